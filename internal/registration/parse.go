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

// MaxAddresses of one node fit into a referral over UDP beside the addresses of
// the other nodes in it.
const MaxAddresses = 12

// maxCuts bounds the work that a registration makes. It is the number of server
// blocks of one node.
const maxCuts = 1000

// Error says why an UPDATE is not a registration.
type Error struct {
	Rcode int    // of the reply (RFC 2136, section 3)
	Text  string // for logs and the extended error of the reply
}

func (e *Error) Error() string { return e.Text }

func formErr(format string, args ...any) error {
	return &Error{dns.RcodeFormatError, fmt.Sprintf(format, args...)}
}

func refused(format string, args ...any) error {
	return &Error{dns.RcodeRefused, fmt.Sprintf(format, args...)}
}

// Parse returns the registration in an UPDATE: a whole one or one part, with or
// without the leading deletion, or a withdrawal, which has no addresses. It
// refuses any other UPDATE, and ignores prerequisites. The error is an *Error.
func Parse(m *dns.Msg) (*Registration, error) {
	if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeSOA || m.Question[0].Qclass != dns.ClassINET {
		return nil, formErr("invalid zone section: expected one zone of type SOA and class IN")
	}
	p := parser{reg: Registration{Zone: dns.CanonicalName(m.Question[0].Name)}, part: noPart, cuts: make(map[string]bool), keys: make(map[DS]bool)}
	for _, rr := range m.Ns {
		if err := p.record(rr); err != nil {
			return nil, err
		}
	}
	p.reg.Prefixes = p.prefixes.items
	p.reg.Lease, _ = GrantedLease(m)
	if err := p.finish(); err != nil {
		return nil, err
	}
	return &p.reg, nil
}

// parser reads the records of one UPDATE in order.
type parser struct {
	reg      Registration // without prefixes until all records are read
	prefixes prefixList
	cuts     map[string]bool // those of both lists, true in Cuts
	keys     map[DS]bool     // of reg.DS

	deleted   bool // all RRsets at the name of the node
	hasTXT    bool
	aplAtNode bool // an APL record is at the name of the node
	part      int  // in the names of the records, or noPart
	parts     int  // in the TXT record; 0: not in it
}

const noPart = -1

func (p *parser) record(rr dns.RR) error {
	h := rr.Header()
	name := dns.CanonicalName(h.Name)
	if !dns.IsSubDomain(p.reg.Zone, name) {
		return &Error{dns.RcodeNotZone, fmt.Sprintf("%s is not in the zone %s", name, p.reg.Zone)}
	}
	if h.Class != dns.ClassINET && h.Ttl != 0 {
		return formErr("invalid deletion at %s: expected a TTL of 0", name)
	}
	switch h.Class {
	case dns.ClassANY:
		if h.Rdlength != 0 {
			return formErr("invalid deletion of an RRset at %s: expected no data", name)
		}
		if h.Rrtype != dns.TypeANY {
			return refused("cannot delete the %s records at %s: delete all records of the node, or one of its NS records", typeName(h.Rrtype), name)
		}
		return p.deleteName(name)
	case dns.ClassNONE:
		ns, ok := rr.(*dns.NS)
		if !ok {
			return refused("cannot delete one %s record at %s: delete all records of the node, or one of its NS records", typeName(h.Rrtype), name)
		}
		return p.ns(name, ns, false)
	case dns.ClassINET:
		switch rr := rr.(type) {
		case *dns.NS:
			return p.ns(name, rr, true)
		case *dns.DS:
			return p.ds(name, rr)
		}
		return p.add(name, rr)
	}
	return formErr("invalid class %s at %s: expected IN, ANY or NONE", dns.Class(h.Class), name)
}

// owner takes the node and the part from the name of a record, and returns the
// number of the part, or noPart for the name of the node itself. A message has
// one node and at most one part.
func (p *parser) owner(name string) (part int, err error) {
	node, ok := strings.CutSuffix(name, "."+Label+"."+p.reg.Zone)
	if !ok {
		return 0, refused("%s is not the name of a node, expected NODE.%s.%s", name, Label, p.reg.Zone)
	}
	part = noPart
	if number, rest, below := strings.Cut(node, "."); below {
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || strconv.Itoa(n) != number {
			return 0, refused("invalid node '%s' in %s: expected one label of letters, digits and hyphens", node, name)
		}
		if n >= MaxParts {
			return 0, refused("invalid part in %s: a registration has at most %d parts", name, MaxParts)
		}
		part, node = n, rest
	}
	switch {
	case !IsLabel(node):
		return 0, refused("invalid node '%s' in %s: expected one label of letters, digits and hyphens", node, name)
	case p.reg.Node != "" && p.reg.Node != node:
		return 0, refused("records of the nodes %s and %s in one message: send one message for each node", node, p.reg.Node)
	case part != noPart && p.part != noPart && p.part != part:
		return 0, formErr("parts %d and %d in one message: send one message for each part", p.part, part)
	}
	if part != noPart {
		p.part = part
	}
	p.reg.Node = node
	return part, nil
}

// deleteName reads the deletion of all records of the node, which also deletes
// what the message has added so far, or of a part.
func (p *parser) deleteName(name string) error {
	part, err := p.owner(name)
	if err != nil {
		return err
	}
	if part != noPart {
		if len(p.prefixes.items) > 0 || part > 0 && p.hasTXT {
			return formErr("deletion at %s after records were added: delete first", name)
		}
		return nil
	}
	r := &p.reg
	r.Addresses, r.Deputies, r.Location, r.Serial = nil, nil, "", 0
	p.prefixes = prefixList{}
	p.deleted, p.hasTXT, p.parts, p.aplAtNode = true, false, 0, false
	return nil
}

// ns notes that the node serves a cut, or no longer does. The last record of a
// cut counts.
func (p *parser) ns(cut string, rr *dns.NS, serves bool) error {
	if rr.Ns == "" {
		return formErr("NS record at %s has no data", cut)
	}
	if part, err := p.owner(dns.CanonicalName(rr.Ns)); err != nil {
		return err
	} else if part != noPart {
		return refused("invalid NS record at %s: %s is the name of a part, expected the name of the node", cut, rr.Ns)
	}
	served, known := p.cuts[cut]
	if known && served == serves {
		return nil
	}
	if !known && len(p.cuts) == maxCuts {
		return refused("node %s has NS records of more than %d cuts", p.reg.Node, maxCuts)
	}
	to, from := &p.reg.Cuts, &p.reg.FormerCuts
	if !serves {
		to, from = from, to
	}
	if known {
		*from = slices.DeleteFunc(*from, func(other string) bool { return other == cut })
		if len(*from) == 0 {
			*from = nil
		}
	}
	*to = append(*to, cut)
	p.cuts[cut] = serves
	return nil
}

func (p *parser) add(name string, rr dns.RR) error {
	rrtype := typeName(rr.Header().Rrtype)
	switch rr.(type) {
	case *dns.ANY, *dns.OPT, *dns.TSIG:
		return formErr("cannot add a record of type %s", rrtype)
	}
	part, err := p.owner(name)
	if err != nil {
		return err
	}
	switch rr := rr.(type) {
	case *dns.APL:
		p.aplAtNode = p.aplAtNode || part == noPart
		prefixes, err := ParseAPL(rr)
		if err != nil {
			return err
		}
		return p.prefixes.add(prefixes)
	case *dns.TXT:
		return p.txt(rr)
	}
	if part != noPart {
		return refused("%s record at %s: a part has APL and TXT records only", rrtype, name)
	}
	switch rr := rr.(type) {
	case *dns.A, *dns.AAAA:
		return p.address(dnsmsg.Address(rr))
	case *dns.LOC:
		return p.location(rr)
	}
	return refused("%s record at %s: a node has A, AAAA, APL, LOC and TXT records only", rrtype, name)
}

func (p *parser) address(addr netip.Addr, ok bool) error {
	r := &p.reg
	if !ok {
		return formErr("address record of node %s has no address", r.Node)
	}
	if !IsNodeAddress(addr) {
		return refused("invalid address '%s' of node %s: expected the IP address of a host, such as 192.0.2.53 or 2001:db8::53", addr, r.Node)
	}
	if slices.Contains(r.Addresses, addr) {
		return nil
	}
	if len(r.Addresses) == MaxAddresses {
		return refused("node %s has more than %d addresses", r.Node, MaxAddresses)
	}
	r.Addresses = append(r.Addresses, addr)
	return nil
}

// finish checks what depends on several records.
func (p *parser) finish() error {
	r := &p.reg
	switch {
	case r.Node == "":
		return refused("the update names no node: add the records of NODE.%s.%s, or delete them", Label, r.Zone)
	case p.part != noPart || p.parts > 1:
		if err := p.checkPart(); err != nil {
			return err
		}
		r.Part, r.Parts = p.part, p.parts
		return p.checkDS()
	case len(r.Addresses) > 0:
		return p.checkDS()
	case len(r.Prefixes) > 0 || len(r.Cuts) > 0 || len(r.DS) > 0 || r.Location != "" || len(r.Deputies) > 0 || r.ClientSubnets || len(r.Beside) > 0 || !p.deleted:
		return refused("node %s has no address: send all its records in one update, or delete all records of %s", r.Node, NodeName(r.Node, r.Zone))
	}
	r.Lease = 0 // of a withdrawal
	return nil
}

func typeName(rrtype uint16) string { return dns.Type(rrtype).String() }
