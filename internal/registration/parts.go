package registration

import (
	"fmt"

	"github.com/miekg/dns"
)

const (
	// MaxParts bounds the length of a registration. So many parts are less
	// than the 1.5 MiB that etcd takes in one request.
	MaxParts = 20

	// maxList is the most bytes of APL items in one message. The rest is for
	// the other records, and for the headers of the several APL records in
	// which DNS-B answers with a list.
	maxList = 63_000

	// maxHeader is more than a record takes beside its data.
	maxHeader = 255 + 10
)

// Messages returns the unsigned UPDATEs that together register r: one message
// or, if the prefixes do not fit into one, its parts. The receiver takes parts
// in any order and applies them once it has all. Messages fails if r is
// invalid, needs more than MaxParts messages, or needs several and has no
// serial.
func (r *Registration) Messages() ([]*dns.Msg, error) {
	withoutPrefixes := *r
	withoutPrefixes.Prefixes = nil
	first, err := withoutPrefixes.Message()
	if err != nil {
		return nil, err
	}
	lists := split(r.Prefixes, min(maxList, maxMessage-first.Len()-2*maxHeader))
	if len(lists) < 2 {
		m, err := r.Message()
		if err != nil {
			return nil, err
		}
		return []*dns.Msg{m}, nil
	}
	if len(lists) > MaxParts {
		return nil, fmt.Errorf("%d prefixes do not fit into %d messages, the most that a registration may have: join or drop prefixes",
			len(r.Prefixes), MaxParts)
	}
	messages := make([]*dns.Msg, len(lists))
	for i, prefixes := range lists {
		part := Registration{Zone: r.Zone, Node: r.Node, Serial: r.Serial, Lease: r.Lease}
		if i == 0 {
			part = *r
		}
		part.Prefixes, part.Part, part.Parts = prefixes, i, len(lists)
		if messages[i], err = part.Message(); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// SplitPrefixes divides prefixes, in their order, into lists that each fit into
// one message. It returns at least one list.
func SplitPrefixes(prefixes []Prefix) [][]Prefix { return split(prefixes, maxList) }

// split divides prefixes into lists of at most room bytes for the first, and
// maxList for each of the others.
func split(prefixes []Prefix, room int) [][]Prefix {
	var lists [][]Prefix
	begin := 0
	for i, p := range prefixes {
		n := p.size()
		if n > room {
			lists = append(lists, prefixes[begin:i:i])
			begin, room = i, maxList
		}
		room -= n
	}
	return append(lists, prefixes[begin:])
}

// Join returns the registration of which these are all the parts, in order. The
// error is an *Error.
func Join(parts []*Registration) (*Registration, error) {
	var prefixes prefixList
	for _, part := range parts {
		if err := prefixes.add(part.Prefixes); err != nil {
			return nil, err
		}
	}
	whole := *parts[0]
	whole.Part, whole.Parts, whole.Prefixes = 0, 0, prefixes.items
	return &whole, nil
}

// checkPart checks what is required of a part only.
func (p *parser) checkPart() error {
	r := &p.reg
	onlyInPart0 := p.deleted || len(r.Addresses) > 0 || len(r.Cuts) > 0 || len(r.FormerCuts) > 0 ||
		len(r.DS) > 0 || r.Location != "" || len(r.Deputies) > 0 || r.ClientSubnets || len(r.Beside) > 0
	switch {
	case p.part == noPart || p.aplAtNode:
		return formErr("node %s has %d parts: move the prefixes of each part to the name of the part, such as %s",
			r.Node, p.parts, PartName(0, r.Node, r.Zone))
	case p.parts < 2 || p.part >= p.parts:
		return formErr("part %d of node %s does not go with TXT parts=%d", p.part, r.Node, p.parts)
	case r.Serial == 0:
		return formErr("part %d of node %s has no serial: send all parts with the same serial", p.part, r.Node)
	case p.part == 0 && len(r.Addresses) == 0:
		return refused("part 0 of node %s has no address", r.Node)
	case p.part > 0 && onlyInPart0:
		return formErr("part %d of node %s has more than prefixes: move the rest to part 0", p.part, r.Node)
	}
	return nil
}
