package registration

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	// More addresses than this do not fit a referral over UDP beside those of
	// the other nodes that it names.
	maxAddresses = 12
	maxDeputies  = 16
)

// Error is why an UPDATE is no registration, and the RCODE that says so
// (RFC 2136, section 3).
type Error struct {
	Rcode int
	Text  string
}

func (e *Error) Error() string { return e.Text }

func formErr(format string, args ...any) error {
	return &Error{dns.RcodeFormatError, fmt.Sprintf(format, args...)}
}

func refused(format string, args ...any) error {
	return &Error{dns.RcodeRefused, fmt.Sprintf(format, args...)}
}

// Parse returns what an UPDATE states. It takes a registration in full or one
// part of it, with or without the leading deletion, and a withdrawal, which has no
// addresses; any other UPDATE is refused. Prerequisites are not looked at. The error is an
// *Error.
func Parse(m *dns.Msg) (*Registration, error) {
	if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeSOA || m.Question[0].Qclass != dns.ClassINET {
		return nil, formErr("the zone section must be one zone, of type SOA and class IN")
	}
	p := parser{Registration: Registration{Zone: dns.CanonicalName(m.Question[0].Name)}, part: noPart}
	for _, rr := range m.Ns {
		if err := p.record(rr); err != nil {
			return nil, err
		}
	}
	if ul := lease(m); ul != nil {
		p.Lease, _ = Granted(m)
	}
	return p.end()
}

type parser struct {
	Registration
	seen    map[netip.Prefix]bool // prefix to its negation
	deleted bool                  // all RRsets at the node's name
	text    bool
	part    int  // of the names of parts, or noPart
	parts   int  // that the TXT record tells; 0: it does not
	away    bool // prefixes or text are at the name of the node
}

const noPart = -1

func (p *parser) record(rr dns.RR) error {
	h := rr.Header()
	name := dns.CanonicalName(h.Name)
	if !dns.IsSubDomain(p.Zone, name) {
		return &Error{dns.RcodeNotZone, fmt.Sprintf("%s is not in the zone %s", name, p.Zone)}
	}
	if h.Class != dns.ClassINET && h.Ttl != 0 {
		return formErr("deletion at %s: its TTL must be 0", name)
	}
	switch h.Class {
	case dns.ClassANY:
		if h.Rdlength != 0 {
			return formErr("deletion of a set at %s: it must have no data", name)
		}
		if h.Rrtype != dns.TypeANY {
			return refused("deletion of the %s records at %s: delete all records of the node, or single NS records of it", typeName(h.Rrtype), name)
		}
		return p.deleteNode(name)
	case dns.ClassNONE:
		ns, ok := rr.(*dns.NS)
		if !ok {
			return refused("deletion of one %s record at %s: delete all records of the node, or single NS records of it", typeName(h.Rrtype), name)
		}
		return p.serves(name, ns, false)
	case dns.ClassINET:
		switch rr := rr.(type) {
		case *dns.NS:
			return p.serves(name, rr, true)
		case *dns.DS:
			return p.signs(name, rr)
		}
		return p.add(name, rr)
	}
	return formErr("class %s at %s: it must be IN, ANY or NONE", dns.Class(h.Class), name)
}

// about makes name that of the node which the message is about, or of the part of
// it: it returns the number of the part, or noPart.
func (p *parser) about(name string) (int, error) {
	node, ok := strings.CutSuffix(name, "."+Label+"."+p.Zone)
	part := noPart
	if number, rest, below := strings.Cut(node, "."); ok && below {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || strconv.Itoa(n) != number {
			return 0, refused("%s: %q is not one label of letters, digits and hyphens", name, node)
		}
		if n >= MaxParts {
			return 0, refused("%s: a registration has at most %d parts", name, MaxParts)
		}
		part, node = n, rest
	}
	switch {
	case !ok:
		return 0, refused("%s is not the name of a node, NODE.%s.%s", name, Label, p.Zone)
	case !IsLabel(node):
		return 0, refused("%s: %q is not one label of letters, digits and hyphens", name, node)
	case p.Node != "" && p.Node != node:
		return 0, refused("%s beside %s: one message is about one node", node, p.Node)
	case part != noPart && p.part != noPart && p.part != part:
		return 0, formErr("parts %d and %d: each part is one message", p.part, part)
	}
	if part != noPart {
		p.part = part
	}
	p.Node = node
	return part, nil
}

func (p *parser) deleteNode(name string) error {
	part, err := p.about(name)
	if err != nil {
		return err
	}
	if part != noPart && (len(p.Prefixes) > 0 || part > 0 && p.text) {
		return formErr("deletion at %s behind what is added there", name)
	}
	if part != noPart {
		return nil
	}
	p.Addresses, p.Prefixes, p.Deputies, p.Location, p.Serial = nil, nil, nil, "", 0
	clear(p.seen)
	p.deleted, p.text, p.parts, p.away = true, false, 0, false
	return nil
}

func (p *parser) serves(cut string, ns *dns.NS, yes bool) error {
	if ns.Ns == "" {
		return formErr("NS record without data at %s", cut)
	}
	if part, err := p.about(dns.CanonicalName(ns.Ns)); err != nil {
		return err
	} else if part != noPart {
		return refused("%s is the name of a part, and not of a node", ns.Ns)
	}
	to, from := &p.Cuts, &p.GivenUp
	if !yes {
		to, from = from, to
	}
	*from = slices.DeleteFunc(*from, func(other string) bool { return other == cut })
	if len(*from) == 0 {
		*from = nil
	}
	if !slices.Contains(*to, cut) {
		*to = append(*to, cut)
	}
	return nil
}

func (p *parser) add(name string, rr dns.RR) error {
	switch rr.(type) {
	case *dns.ANY, *dns.OPT, *dns.TSIG:
		return formErr("%s cannot be added", typeName(rr.Header().Rrtype))
	}
	part, err := p.about(name)
	if err != nil {
		return err
	}
	switch rr := rr.(type) {
	case *dns.APL:
		p.away = p.away || part == noPart
		return p.prefixes(rr)
	case *dns.TXT:
		return p.words(rr)
	}
	if part != noPart {
		return refused("%s record at %s: a part has APL and TXT", typeName(rr.Header().Rrtype), name)
	}
	switch rr := rr.(type) {
	case *dns.A, *dns.AAAA:
		return p.address(dnsmsg.Address(rr))
	case *dns.LOC:
		return p.location(rr)
	}
	return refused("%s record at %s: a node has A, AAAA, APL, LOC and TXT", typeName(rr.Header().Rrtype), name)
}

func (p *parser) address(addr netip.Addr, ok bool) error {
	if !ok {
		return formErr("address record of %s without an address", p.Node)
	}
	if !addr.IsGlobalUnicast() && !addr.IsLoopback() || addr.Is4In6() {
		return refused("%s cannot be the address of %s", addr, p.Node)
	}
	if slices.Contains(p.Addresses, addr) {
		return nil
	}
	if len(p.Addresses) == maxAddresses {
		return refused("%s has more than %d addresses", p.Node, maxAddresses)
	}
	p.Addresses = append(p.Addresses, addr)
	return nil
}

func (p *parser) prefixes(apl *dns.APL) error {
	p.Prefixes = slices.Grow(p.Prefixes, len(apl.Prefixes))
	for _, item := range apl.Prefixes {
		prefix, err := prefixFrom(item)
		if err != nil {
			return err
		}
		if err := p.prefix(prefix); err != nil {
			return err
		}
	}
	return nil
}

// prefix adds one, once.
func (p *parser) prefix(prefix Prefix) error {
	negated, ok := p.seen[prefix.Prefix]
	if ok && negated != prefix.Negated {
		return formErr("APL: %s and !%s", prefix.Prefix, prefix.Prefix)
	}
	if ok {
		return nil
	}
	if p.seen == nil {
		p.seen = make(map[netip.Prefix]bool)
	}
	p.seen[prefix.Prefix] = prefix.Negated
	p.Prefixes = append(p.Prefixes, prefix)
	return nil
}

func (p *parser) location(loc *dns.LOC) error {
	text := strings.TrimPrefix(loc.String(), loc.Hdr.String())
	again, err := dns.NewRR(". 0 IN LOC " + text)
	if err != nil || again == nil || loc.Version != 0 || strings.TrimPrefix(again.String(), again.Header().String()) != text {
		return formErr("the LOC record of %s is not a place", p.Node)
	}
	if p.Location != "" && p.Location != text {
		return formErr("%s has two LOC records", p.Node)
	}
	p.Location = text
	return nil
}

func (p *parser) words(rr *dns.TXT) error {
	if p.text {
		return formErr("%s has two TXT records", p.Node)
	}
	p.text = true
	words := strings.Fields(strings.Join(rr.Txt, " "))
	if len(words) == 0 || !strings.HasPrefix(words[0], "v=") {
		return formErr("the TXT record of %s does not begin with v=1", p.Node)
	}
	if words[0] != version {
		return &Error{dns.RcodeNotImplemented, fmt.Sprintf("TXT %s: only v=1 is known here", words[0])}
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "serial":
			serial, err := strconv.ParseUint(value, 10, 64)
			if err != nil || serial == 0 || p.Serial != 0 {
				return formErr("TXT %s: a serial is one number, the time in milliseconds since 1970", word)
			}
			p.Serial = serial
		case "parts":
			parts, err := strconv.ParseUint(value, 10, 16)
			if err != nil || parts == 0 || p.parts != 0 {
				return formErr("TXT %s: the number of parts is one number from 1", word)
			}
			if parts > MaxParts {
				return refused("TXT %s: a registration has at most %d parts", word, MaxParts)
			}
			p.parts = int(parts)
		case "deputy":
			for node := range strings.SplitSeq(value, ",") {
				if !IsLabel(node) {
					return formErr("TXT %s: %q is not the label of a node", word, node)
				}
				if !slices.Contains(p.Deputies, node) {
					p.Deputies = append(p.Deputies, node)
				}
			}
			if len(p.Deputies) > maxDeputies {
				return refused("%s has more than %d deputies", p.Node, maxDeputies)
			}
		}
	}
	return nil
}

// end checks the whole.
func (p *parser) end() (*Registration, error) {
	r := &p.Registration
	switch {
	case r.Node == "":
		return nil, refused("the update is about no node: it must add the records of NODE.%s.%s, or delete them", Label, p.Zone)
	case p.part != noPart || p.parts > 1:
		return p.endPart()
	case len(r.Addresses) > 0:
		return r, p.checkDS()
	case len(r.Prefixes) > 0 || len(r.Cuts) > 0 || len(r.DS) > 0 || r.Location != "" || len(r.Deputies) > 0 || !p.deleted:
		return nil, refused("%s has no address: one update states all of a node, or deletes all records of %s", r.Node, Name(r.Node, r.Zone))
	}
	r.Lease = 0
	return r, nil
}

// endPart checks a part.
func (p *parser) endPart() (*Registration, error) {
	r := &p.Registration
	switch {
	case p.part == noPart || p.away:
		return nil, formErr("%s has %d parts: the prefixes of each stand at the name of the part, such as %s", r.Node, p.parts, PartName(0, r.Node, r.Zone))
	case p.parts < 2 || p.part >= p.parts:
		return nil, formErr("part %d of %s, and TXT parts=%d", p.part, r.Node, p.parts)
	case r.Serial == 0:
		return nil, formErr("part %d of %s has no serial: parts belong together by that", p.part, r.Node)
	case p.part == 0 && len(r.Addresses) == 0:
		return nil, refused("part 0 of %s has no address", r.Node)
	case p.part > 0 && (p.deleted || len(r.Addresses) > 0 || len(r.Cuts) > 0 || len(r.GivenUp) > 0 || len(r.DS) > 0 || r.Location != "" || len(r.Deputies) > 0):
		return nil, formErr("part %d of %s has what belongs into part 0", p.part, r.Node)
	}
	r.Part, r.Parts = p.part, p.parts
	return r, p.checkDS()
}

// IsLabel reports whether s can name a node: one label of lower-case letters,
// digits and inner hyphens.
func IsLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func typeName(rrtype uint16) string { return dns.Type(rrtype).String() }
