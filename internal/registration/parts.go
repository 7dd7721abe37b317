package registration

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/miekg/dns"
)

const (
	// MaxParts bounds a registration. What so many hold is less than the 1.5 MiB
	// that etcd takes in one request.
	MaxParts = 20

	// maxList is how many bytes of APL items go into one message. It leaves
	// room for the rest of it, and for the overhead of the several APL records in
	// which a list is shown again.
	maxList = 63_000
)

// PartName returns the name that holds the prefixes of one part.
func PartName(part int, node, zone string) string {
	return strconv.Itoa(part) + "." + Name(node, zone)
}

// Messages returns the unsigned UPDATEs that together state r: the one of
// Message or, if the prefixes do not fit one, its parts, which the receiver takes
// in any order and shows when all are there. It fails if r is not valid or does
// not fit MaxParts messages, or does not fit one and has no serial.
func (r *Registration) Messages() ([]*dns.Msg, error) {
	bare := *r
	bare.Prefixes = nil
	first, err := bare.Message()
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
		return nil, fmt.Errorf("%d prefixes do not fit %d messages, as many as a registration may have: join or drop prefixes", len(r.Prefixes), MaxParts)
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

// maxHeader is more than what a record takes beside its data.
const maxHeader = 255 + 10

// Lists returns the prefixes as lists of which each fits a message, in their
// order: one if all do.
func Lists(prefixes []Prefix) [][]Prefix { return split(prefixes, maxList) }

// split cuts a list into such as take room for the first one, and maxList for
// each of the others.
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

// size returns how many bytes an item takes: trailing zeros are left out
// (RFC 3123, section 4).
func (p Prefix) size() int { return 4 + (p.Bits()+7)/8 }

// Join returns the registration of which these are all the parts, in order. The
// error is an *Error.
func Join(parts []*Registration) (*Registration, error) {
	whole := *parts[0]
	whole.Part, whole.Parts, whole.Prefixes = 0, 0, nil
	p := parser{Registration: whole}
	for _, part := range parts {
		p.Prefixes = slices.Grow(p.Prefixes, len(part.Prefixes))
		for _, prefix := range part.Prefixes {
			if err := p.prefix(prefix); err != nil {
				return nil, err
			}
		}
	}
	return &p.Registration, nil
}
