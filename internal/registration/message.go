package registration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	// maxMessage is what fits a message over TCP beside the TSIG record: two
	// names, the longest MAC that is in use and the fixed part.
	maxMessage = dns.MaxMsgSize - 2*255 - 64 - 64

	// udpSize is announced so that errors can come back with a text.
	udpSize = 1232

	version = "v=1" // of the TXT record
)

// Name returns the name that holds the records of a node.
func Name(node, zone string) string { return node + "." + Label + "." + zone }

// Message returns the unsigned UPDATE that states r, or the part of one that r
// is: all of it, in place of whatever the receiver knew. It fails if r is not
// valid or does not fit one message over TCP (65535 bytes less the signature).
func (r *Registration) Message() (*dns.Msg, error) {
	if len(r.Addresses) == 0 && r.Part == 0 {
		return nil, errors.New("a registration needs an address")
	}
	m := r.update(r.Lease)
	name := Name(r.Node, r.Zone)
	listed, told := name, name // the owners of the prefixes and of the TXT record
	if r.Parts > 0 {
		listed = PartName(r.Part, r.Node, r.Zone)
		if r.Part > 0 {
			told = listed
			m.Ns = nil // the deletion of the node
		}
		m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: listed}}})
	}

	adds := make([]dns.RR, 0, len(r.Addresses)+len(r.Cuts)+3)
	for _, addr := range r.Addresses {
		adds = append(adds, dnsmsg.AddressRecord(name, addr, 0))
	}
	if len(r.Prefixes) > 0 {
		adds = append(adds, r.apl(listed))
	}
	if r.Location != "" {
		loc, err := dns.NewRR(name + " 0 IN LOC " + r.Location)
		if err != nil || loc == nil {
			return nil, fmt.Errorf("location %q is not of the form '48 51 0 N 2 21 0 E 35m'", r.Location)
		}
		adds = append(adds, loc)
	}
	adds = append(adds, r.Text(header(told, dns.TypeTXT)))
	for _, cut := range r.Cuts {
		adds = append(adds, &dns.NS{Hdr: header(cut, dns.TypeNS), Ns: name})
	}
	for _, ds := range r.DS {
		adds = append(adds, ds.RR(header(ds.Cut, dns.TypeDS)))
	}
	m.Insert(adds)
	m.Remove(servers(name, r.GivenUp))

	// What the receiver would make of it is the check of all that is in it.
	if _, err := Parse(m); err != nil {
		return nil, err
	}
	if n := m.Len(); n > maxMessage {
		return nil, fmt.Errorf("a registration of %d bytes with %d prefixes does not fit one message of %d bytes", n, len(r.Prefixes), maxMessage)
	}
	return m, nil
}

// Withdrawal returns the unsigned UPDATE that takes back all that r states.
func (r *Registration) Withdrawal() *dns.Msg {
	m := r.update(0)
	name := Name(r.Node, r.Zone)
	m.Remove(servers(name, slices.Concat(r.Cuts, r.GivenUp)))
	if r.Serial != 0 {
		m.Insert([]dns.RR{text(header(name, dns.TypeTXT), []string{version, r.serial()})})
	}
	setLease(m, &dns.EDNS0_UL{Code: dns.EDNS0UL})
	return m
}

// update returns an UPDATE that begins by deleting all records of the node.
func (r *Registration) update(lease time.Duration) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(r.Zone)
	m.SetEdns0(udpSize, false)
	if lease > 0 {
		setLease(m, &dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: seconds(lease)})
	}
	m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: Name(r.Node, r.Zone)}}})
	return m
}

func (r *Registration) apl(name string) *dns.APL {
	apl := &dns.APL{Hdr: header(name, dns.TypeAPL), Prefixes: make([]dns.APLPrefix, len(r.Prefixes))}
	for i, p := range r.Prefixes {
		apl.Prefixes[i] = p.APL()
	}
	return apl
}

// APL returns the prefix as an item of an APL record.
func (p Prefix) APL() dns.APLPrefix {
	addr := p.Addr()
	return dns.APLPrefix{
		Negation: p.Negated,
		Network:  net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(p.Bits(), addr.BitLen())},
	}
}

// String returns the prefix with the "!" of APL's presentation form in front of
// a negated one.
func (p Prefix) String() string {
	if p.Negated {
		return "!" + p.Prefix.String()
	}
	return p.Prefix.String()
}

func prefixFrom(item dns.APLPrefix) (Prefix, error) {
	addr, ok := netip.AddrFromSlice(item.Network.IP)
	bits, size := item.Network.Mask.Size()
	if !ok || size != addr.BitLen() {
		return Prefix{}, formErr("an APL item is neither IPv4 nor IPv6")
	}
	p := Prefix{Prefix: netip.PrefixFrom(addr, bits), Negated: item.Negation}
	if addr.Is4In6() {
		return Prefix{}, formErr("APL item %s: write IPv4 prefixes as family 1", p)
	}
	if p.Masked() != p.Prefix {
		return Prefix{}, formErr("APL item %s has bits set beyond its length: did you mean %s?", p, p.Masked())
	}
	return p, nil
}

// deputies returns the words that name them, each short enough for one
// character-string.
func deputies(nodes []string) []string {
	var words []string
	for _, node := range nodes {
		if n := len(words); n > 0 && len(words[n-1])+1+len(node) <= dnsmsg.MaxString {
			words[n-1] += "," + node
			continue
		}
		words = append(words, "deputy="+node)
	}
	return words
}

// Text returns the TXT record of the node, owned as h says: what no other record
// of it holds.
func (r *Registration) Text(h dns.RR_Header) *dns.TXT {
	words := []string{version}
	if r.Serial != 0 {
		words = append(words, r.serial())
	}
	words = append(words, "parts="+strconv.Itoa(max(r.Parts, 1)))
	return text(h, slices.Concat(words, deputies(r.Deputies)))
}

func (r *Registration) serial() string { return "serial=" + strconv.FormatUint(r.Serial, 10) }

// text returns a TXT record of words, as many to a character-string as fit.
func text(h dns.RR_Header, words []string) *dns.TXT {
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

func servers(name string, cuts []string) []dns.RR {
	rrs := make([]dns.RR, len(cuts))
	for i, cut := range cuts {
		rrs[i] = &dns.NS{Hdr: header(cut, dns.TypeNS), Ns: name}
	}
	return rrs
}

func header(name string, rrtype uint16) dns.RR_Header { return dnsmsg.Header(name, rrtype, 0) }
