package serveroverride

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// A node asks for the TXT records of NODE._override.CUT, signed with the key by which
// it registers. docs/overrides.md describes the answer.
const (
	Label     = "_override" // between the name of the node and the cut
	version   = "v=1"
	recordTTL = 0 // nobody should cache them
)

// Max is how many overrides of servers a DNS-B may have: they fit into one message.
const Max = 50

// ZoneOf returns the name about which nodes of a cut are notified.
func ZoneOf(cut string) string { return Label + "." + cut }

// NameFor returns the name for which a node asks.
func NameFor(node, cut string) string { return node + "." + ZoneOf(cut) }

// ParseName returns the node and the cut of a name for which a node asks, in lower
// case, and whether it is one.
func ParseName(name string) (node, cut string, ok bool) {
	node, rest, _ := strings.Cut(name, ".")
	cut, ok = strings.CutPrefix(rest, Label+".")
	return node, cut, ok && cut != "" && registration.IsLabel(node)
}

// Records returns lines as the records of a name.
func Records(owner string, lines []string) []dns.RR {
	text := func(text string) dns.RR {
		return dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, recordTTL), text)
	}
	rrs := make([]dns.RR, 0, 1+len(lines))
	rrs = append(rrs, text(version))
	for i, line := range lines {
		rrs = append(rrs, text(strconv.Itoa(i+1)+" "+line)) // records have no order
	}
	return rrs
}

// ErrUnsupported says that a DNS-B knows nothing of such questions.
var ErrUnsupported = errors.New("the server has no overrides for nodes: its version is older than that of this node")

// ReadLines returns the lines that Records has written into an answer.
func ReadLines(answer []dns.RR, owner string) ([]string, error) {
	type numbered struct {
		number int
		line   string
	}
	var found []numbered
	known := false
	for _, rr := range answer {
		txt, ok := rr.(*dns.TXT)
		if !ok || dns.CanonicalName(txt.Hdr.Name) != owner {
			continue
		}
		word, line, _ := strings.Cut(dnsmsg.Text(txt), " ")
		if strings.HasPrefix(word, "v=") {
			if err := dnsmsg.CheckVersion(word, version); err != nil {
				return nil, err
			}
			known = true
			continue
		}
		number, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("invalid record %.40q: expected a number and an override", dnsmsg.Text(txt))
		}
		if len(found) == Max {
			return nil, fmt.Errorf("more than %d overrides", Max)
		}
		found = append(found, numbered{number, line})
	}
	if !known {
		return nil, ErrUnsupported
	}
	slices.SortFunc(found, func(a, b numbered) int { return a.number - b.number })
	lines := make([]string, len(found))
	for i, n := range found {
		if n.number != i+1 {
			return nil, fmt.Errorf("override %d is missing", i+1)
		}
		lines[i] = n.line
	}
	return lines, nil
}
