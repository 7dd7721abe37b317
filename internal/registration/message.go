package registration

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	// maxMessage is the room in a message over TCP beside the TSIG record: two
	// names, the longest MAC in use and the fixed fields.
	maxMessage = 1<<16 - 1 - 2*255 - 64 - 64

	// udpSize is announced so that an error can come back with its text.
	udpSize = 1232
)

// Message returns the unsigned UPDATE that registers r, a whole registration or
// one part of it, in place of all that the receiver knows of the node. It fails
// if r is invalid or longer than one message over TCP (65535 bytes less the
// signature).
func (r *Registration) Message() (*dns.Msg, error) {
	if len(r.Addresses) == 0 && r.Part == 0 {
		return nil, errors.New("a registration needs at least one address")
	}
	m := r.update(r.Lease)
	name := NodeName(r.Node, r.Zone)
	aplName, txtName := name, name
	if r.Parts > 0 {
		aplName = PartName(r.Part, r.Node, r.Zone)
		if r.Part > 0 {
			txtName = aplName
			m.Ns = nil // without the deletion of the node
		}
		m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: aplName}}})
	}

	adds := make([]dns.RR, 0, len(r.Addresses)+len(r.Cuts)+len(r.DS)+3)
	for _, addr := range r.Addresses {
		adds = append(adds, dnsmsg.AddressRecord(name, addr, 0))
	}
	if len(r.Prefixes) > 0 {
		adds = append(adds, r.apl(aplName))
	}
	if r.Location != "" {
		loc, err := dns.NewRR(name + " 0 IN LOC " + r.Location)
		if err != nil || loc == nil {
			return nil, fmt.Errorf("invalid location '%s': expected the data of a LOC record, such as 48 51 0 N 2 21 0 E 35m", r.Location)
		}
		adds = append(adds, loc)
	}
	adds = append(adds, r.TXT(header(txtName, dns.TypeTXT)))
	adds = append(adds, nsRecords(name, r.Cuts)...)
	for _, ds := range r.DS {
		adds = append(adds, ds.RR(header(ds.Cut, dns.TypeDS)))
	}
	m.Insert(adds)
	m.Remove(nsRecords(name, r.FormerCuts))

	// The receiver's parser checks all fields of r.
	if _, err := Parse(m); err != nil {
		return nil, err
	}
	if n := m.Len(); n > maxMessage {
		return nil, fmt.Errorf("registration of %d bytes with %d prefixes does not fit into one message of %d bytes", n, len(r.Prefixes), maxMessage)
	}
	return m, nil
}

// Withdrawal returns the unsigned UPDATE that removes all that r registers.
func (r *Registration) Withdrawal() *dns.Msg {
	m := r.update(0)
	name := NodeName(r.Node, r.Zone)
	m.Remove(nsRecords(name, slices.Concat(r.Cuts, r.FormerCuts)))
	if r.Serial != 0 {
		m.Insert([]dns.RR{joinWords(header(name, dns.TypeTXT), []string{version, r.serialWord()})})
	}
	addLeaseOption(m, &dns.EDNS0_UL{Code: dns.EDNS0UL})
	return m
}

// update returns an UPDATE that begins by deleting all records of the node.
func (r *Registration) update(lease time.Duration) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(r.Zone)
	m.SetEdns0(udpSize, false)
	if lease > 0 {
		addLeaseOption(m, &dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: seconds(lease)})
	}
	m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: NodeName(r.Node, r.Zone)}}})
	return m
}

func (r *Registration) apl(name string) *dns.APL {
	apl := &dns.APL{Hdr: header(name, dns.TypeAPL), Prefixes: make([]dns.APLPrefix, len(r.Prefixes))}
	for i, p := range r.Prefixes {
		apl.Prefixes[i] = p.APL()
	}
	return apl
}

func nsRecords(target string, cuts []string) []dns.RR {
	rrs := make([]dns.RR, len(cuts))
	for i, cut := range cuts {
		rrs[i] = &dns.NS{Hdr: header(cut, dns.TypeNS), Ns: target}
	}
	return rrs
}

func header(name string, rrtype uint16) dns.RR_Header { return dnsmsg.Header(name, rrtype, 0) }
