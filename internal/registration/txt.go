package registration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	version       = "v=1" // first word of the TXT record
	clientSubnets = "client-subnets"
	maxDeputies   = 16
	// MaxBeside is how many sets of nodes beside servers a registration names, and
	// MaxBesideNodes how many nodes a set has.
	MaxBeside, MaxBesideNodes = 16, 64
)

// TXT returns the TXT record of the node with the header h. The record holds
// the serial, the number of parts, what the node can do, and the deputies.
func (r *Registration) TXT(h dns.RR_Header) *dns.TXT {
	words := []string{version}
	if r.Serial != 0 {
		words = append(words, r.serialWord())
	}
	words = append(words, "parts="+strconv.Itoa(max(r.Parts, 1)))
	if r.ClientSubnets {
		words = append(words, clientSubnets)
	}
	words = append(words, listWords("deputy=", "deputy=", r.Deputies)...)
	for _, nodes := range r.Beside {
		words = append(words, listWords("beside=", "beside=+", nodes)...)
	}
	return joinWords(h, words)
}

func (r *Registration) serialWord() string {
	return "serial=" + strconv.FormatUint(r.Serial, 10)
}

// listWords returns words that each fit into one character-string. The first one
// begins with first, the others with more.
func listWords(first, more string, nodes []string) []string {
	var words []string
	for _, node := range nodes {
		switch n := len(words); {
		case n == 0:
			words = append(words, first+node)
		case len(words[n-1])+1+len(node) <= dnsmsg.MaxString:
			words[n-1] += "," + node
		default:
			words = append(words, more+node)
		}
	}
	return words
}

// joinWords returns a TXT record with as many words in each character-string
// as fit.
func joinWords(h dns.RR_Header, words []string) *dns.TXT {
	rr := &dns.TXT{Hdr: h}
	for _, word := range words {
		if n := len(rr.Txt); n > 0 && len(rr.Txt[n-1])+1+len(word) <= dnsmsg.MaxString {
			rr.Txt[n-1] += " " + word
			continue
		}
		rr.Txt = append(rr.Txt, word)
	}
	return rr
}

// txt reads the TXT record. Unknown words are for later versions: ignored.
func (p *parser) txt(rr *dns.TXT) error {
	if p.hasTXT {
		return formErr("node %s has two TXT records, expected one", p.reg.Node)
	}
	p.hasTXT = true
	words := strings.Fields(strings.Join(rr.Txt, " "))
	if len(words) == 0 || !strings.HasPrefix(words[0], "v=") {
		return formErr("invalid TXT record of node %s: expected %s as its first word", p.reg.Node, version)
	}
	if words[0] != version {
		text := fmt.Sprintf("unknown version '%s' of the TXT record of node %s, expected %s: update DNS-B or the node", words[0], p.reg.Node, version)
		return &Error{dns.RcodeNotImplemented, text}
	}
	for _, word := range words[1:] {
		if err := p.word(word); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) word(word string) error {
	key, value, hasValue := strings.Cut(word, "=")
	switch key {
	case "serial":
		serial, err := strconv.ParseUint(value, 10, 64)
		if err != nil || serial == 0 || p.reg.Serial != 0 {
			return formErr("invalid TXT word '%s': expected one serial, the time in milliseconds since 1970", word)
		}
		p.reg.Serial = serial
	case "parts":
		parts, err := strconv.ParseUint(value, 10, 16)
		if err != nil || parts == 0 || p.parts != 0 {
			return formErr("invalid TXT word '%s': expected one number of parts, from 1", word)
		}
		if parts > MaxParts {
			return refused("invalid TXT word '%s': a registration has at most %d parts", word, MaxParts)
		}
		p.parts = int(parts)
	case clientSubnets:
		if hasValue {
			return formErr("invalid TXT word '%s': expected %s alone if the node answers by client subnets, or nothing", word, clientSubnets)
		}
		p.reg.ClientSubnets = true
	case "deputy":
		for node := range strings.SplitSeq(value, ",") {
			if !IsLabel(node) {
				return formErr("invalid TXT word '%s': '%s' is not the label of a node", word, node)
			}
			if slices.Contains(p.reg.Deputies, node) {
				continue
			}
			if len(p.reg.Deputies) == maxDeputies {
				return refused("node %s has more than %d deputies", p.reg.Node, maxDeputies)
			}
			p.reg.Deputies = append(p.reg.Deputies, node)
		}
	case "beside":
		return p.beside(word, value)
	}
	return nil
}

// beside reads a set of nodes beside servers, or after '+' more nodes of the last one.
func (p *parser) beside(word, value string) error {
	nodes, more := strings.CutPrefix(value, "+")
	switch n := len(p.reg.Beside); {
	case more && n == 0:
		return formErr("invalid TXT word '%s': there is no 'beside' before it", word)
	case !more && n == MaxBeside:
		return refused("node %s has more than %d sets of servers beside nodes", p.reg.Node, MaxBeside)
	case !more:
		p.reg.Beside = append(p.reg.Beside, nil)
	}
	last := &p.reg.Beside[len(p.reg.Beside)-1]
	for node := range strings.SplitSeq(nodes, ",") {
		switch {
		case !IsLabel(node):
			return formErr("invalid TXT word '%s': '%s' is not the label of a node", word, node)
		case len(*last) == MaxBesideNodes:
			return refused("node %s has a set of servers beside more than %d nodes", p.reg.Node, MaxBesideNodes)
		case !slices.Contains(*last, node):
			*last = append(*last, node)
		}
	}
	return nil
}
