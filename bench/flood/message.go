package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// node returns the registration of a node that has one prefix, and another one at
// each version.
func node(name string, version int) *registration.Registration {
	return &registration.Registration{
		Zone: zone, Node: name, Addresses: []netip.Addr{address(version + 1)}, Cuts: []string{cut}, Serial: serial(),
		Prefixes: prefixes(1, version),
	}
}

// largest returns a registration with the most prefixes that one may have.
func largest(version int) *registration.Registration {
	r := node(stolen, version)
	r.Prefixes = prefixes(160_000, version)
	return r
}

// prefixes returns IPv4 prefixes that are not neighbors.
func prefixes(n, version int) []registration.Prefix {
	list := make([]registration.Prefix, n)
	for i := range list {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(16<<24+i*512+version%2*256)) // #nosec G115 -- below 2^32
		list[i].Prefix = netip.PrefixFrom(netip.AddrFrom4(b), 24)
	}
	return list
}

// manyCuts returns a registration with the most cuts that one may have.
func manyCuts(version int) *registration.Registration {
	r := node(stolen, version)
	for i := range 999 {
		r.Cuts = append(r.Cuts, fmt.Sprintf("c%d-%d.%s", i, version%2, zone))
	}
	return r
}

// longName returns a name of 255 bytes in a zone, with the most labels.
func longName(zone string) []byte {
	end := make([]byte, 255)
	n, err := dns.PackDomainName(zone, end, 0, nil, false)
	if err != nil {
		panic(err)
	}
	return append([]byte(strings.Repeat("\x01a", (255-n)/2)), end[:n]...)
}

// compressed returns an UPDATE of so many SOA records, each with three compressed
// names that unpack to 255 bytes.
func compressed(zone string, records int) []byte {
	m := header(dns.OpcodeUpdate, zone)
	binary.BigEndian.PutUint16(m[8:], uint16(records)) // #nosec G115 -- below 2^16
	for range records {
		m = append(m, pointer...)
		m = append(m, 0, byte(dns.TypeSOA), 0, dns.ClassINET, 0, 0, 0, 0, 0, 24)
		m = append(append(m, pointer...), pointer...)
		m = append(m, make([]byte, 20)...)
	}
	return m
}

// rendezvous returns a message of 64 kB with one HIP record (RFC 8005) of so many
// compressed names as fit.
func rendezvous(zone string, opcode int) []byte {
	const names = 32_000
	m := header(opcode, zone)
	m[11] = 1
	m = append(m, pointer...)
	m = append(m, 0, byte(dns.TypeHIP), 0, dns.ClassINET, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, 4+2*names)
	m = append(m, 0, 2, 0, 0)
	for range names {
		m = append(m, pointer...)
	}
	return m
}

// textStrings returns a query of 64 kB with one TXT record of so many empty
// strings as fit.
func textStrings() []byte {
	const strings = 65_000
	m := header(dns.OpcodeQuery, zone)
	m[11] = 1
	m = append(m, pointer...)
	m = append(m, 0, byte(dns.TypeTXT), 0, dns.ClassINET, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, strings)
	return append(m, make([]byte, strings)...)
}

// signedStrings returns an UPDATE with such a record, signed with the stolen key.
func signedStrings() []byte {
	m := new(dns.Msg)
	m.SetUpdate(zone)
	m.Ns = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: registration.NodeName(stolen, zone), Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: make([]string, 64_000)}}
	return signed(m)
}

// pointer refers to the name in the first question.
var pointer = []byte{0xC0, 12}

// header returns the header of a message and a question or zone section with a
// long name.
func header(opcode int, zone string) []byte {
	m := make([]byte, 12)
	binary.BigEndian.PutUint16(m, dns.Id())
	m[2], m[5] = byte(opcode)<<3, 1 // #nosec G115 -- 4 bits
	m = append(m, longName(zone)...)
	return append(m, 0, byte(dns.TypeSOA), 0, dns.ClassINET)
}

// unknownKey signs a message with a key that the server does not know.
func unknownKey(m []byte) []byte {
	t := &dns.TSIG{
		Hdr: dns.RR_Header{Name: "unknown.key.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256,
		TimeSigned: uint64(time.Now().Unix()), Fudge: 300, MACSize: 32, MAC: strings.Repeat("00", 32), OrigId: binary.BigEndian.Uint16(m), // #nosec G115 -- positive
	}
	b := make([]byte, 512)
	n, err := dns.PackRR(t, b, 0, nil, false)
	if err != nil {
		panic(err)
	}
	m = append(slices.Clip(m), b[:n]...)
	m[11]++
	return m
}

// signed returns an UPDATE signed with the stolen key.
func signed(m *dns.Msg) []byte {
	m.SetTsig(keyName(stolen), dns.HmacSHA256, 300, time.Now().Unix())
	b, _, err := dns.TsigGenerate(m, secret, "", false)
	if err != nil {
		panic(err)
	}
	return b
}

// registers returns a registration signed with the stolen key.
func registers(r *registration.Registration) []byte {
	m, err := r.Message()
	if err != nil {
		panic(err)
	}
	return signed(m)
}

// prerequisites returns an UPDATE with so many prerequisites on another node.
func prerequisites(n int) []byte {
	m := new(dns.Msg)
	m.SetUpdate(zone)
	m.Compress = true
	for i := range n {
		m.Answer = append(m.Answer, &dns.ANY{Hdr: dns.RR_Header{Name: registration.PartName(i%20, nodeName(0), zone), Rrtype: dns.TypeAPL, Class: dns.ClassANY}})
	}
	return signed(m)
}

// question returns a query that allows answers of any size.
func question(name string, qtype uint16) []byte {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.SetEdns0(65535, true)
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// notify returns a NOTIFY for a zone.
func notify(zone string) []byte {
	b, err := new(dns.Msg).SetNotify(zone).Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// badSubnet returns a query with a client subnet whose prefix is longer than an
// address (RFC 7871, section 7.1.2).
func badSubnet(name string) []byte {
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 33, 0, 192, 0, 2, 1, 0}}}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}
