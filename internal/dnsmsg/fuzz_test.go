package dnsmsg

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// FuzzSetOptions checks the options of the reply to any request: one OPT record if
// the request has one, the client subnet as it was asked (RFC 7871, section 7.2.1), and no text that would truncate the reply.
func FuzzSetOptions(f *testing.F) {
	for _, options := range [][]dns.EDNS0{
		nil,
		{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{198, 51, 100, 0}}},
		{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 48, Address: netip.MustParseAddr("2001:db8:1::").AsSlice()}},
		{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 128, Address: netip.MustParseAddr("::ffff:192.0.2.1").AsSlice()}},
		{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET}},
		{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 20, 0, 203, 0, 127}}},
		{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 24, 24, 203, 0, 113}}},
		{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 2, 129, 0}}},
		{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 3, 0, 0}}},
		{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}},
	} {
		for _, size := range []uint16{0, 512, 1232, 65535} {
			r := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
			r.SetEdns0(size, size == 512)
			r.IsEdns0().Option = options
			packed, err := r.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packed, "all servers are down")
			f.Add(packed, "")
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, text string) {
		r := new(dns.Msg)
		if r.Unpack(packet) != nil || len(r.Question) != 1 || len(text) > 1000 || MalformedSubnet(r) {
			return
		}
		NormalizeEDNS(r)
		m := new(dns.Msg).SetReply(r)
		size := compressedLen(m)
		SetOptions(m, r, dns.ExtendedErrorCodeOther, text)
		packed, err := m.Pack()
		if err != nil {
			t.Fatalf("Expected a reply that packs, got %v: %v", err, m)
		}
		asked := r.IsEdns0()
		if len(m.Extra) > 1 || len(m.Extra) == 1 && asked == nil {
			t.Fatalf("Expected one OPT record, if there is one in %v, got %v", r, m)
		}
		if asked != nil && asked.UDPSize() > MaxUDPSize {
			t.Fatalf("Expected answers of at most %d bytes, got %d", MaxUDPSize, asked.UDPSize())
		}
		if err := m.Unpack(packed); err != nil {
			t.Fatal(err)
		}
		for s := range Options[*dns.EDNS0_SUBNET](m) {
			addr, _ := netip.AddrFromSlice(s.Address)
			if s.Family != 2 {
				addr = addr.Unmap()
			}
			prefix, err := addr.Prefix(int(s.SourceNetmask))
			if err != nil || prefix.Addr() != addr || s.SourceScope != 0 {
				t.Fatalf("Expected a valid client subnet with scope 0, got %v", s)
			}
			echoes := false
			for asked := range Options[*dns.EDNS0_SUBNET](r) {
				echoes = echoes || asked.String() == s.String()
			}
			if !echoes {
				t.Fatalf("Expected the client subnet of %v, got %v", r, s)
			}
		}
		for ede := range Options[*dns.EDNS0_EDE](m) {
			if most := max(dns.MinMsgSize, int(asked.UDPSize())); ede.ExtraText != "" && (ede.ExtraText != text || compressedLen(m) > most) {
				t.Fatalf("Expected the text in a reply of at most %d bytes, got %d: %q", most, compressedLen(m), ede.ExtraText)
			}
		}
		if opt := m.IsEdns0(); opt != nil && compressedLen(m) > size+len(text)+100 {
			t.Fatalf("Expected few bytes more than %d, got %d", size, compressedLen(m))
		}
	})
}

// FuzzMalformedSubnet compares what is found in a message, whose octets package dns
// has mended, with the octets of the option, beside an option of any other type.
func FuzzMalformedSubnet(f *testing.F) {
	for _, data := range [][]byte{
		{0, 1, 24, 0, 198, 51, 100}, {0, 1, 24, 0, 198, 51}, {0, 1, 24, 0, 198, 51, 100, 0}, {0, 1, 20, 0, 203, 0, 127}, {0, 1, 24, 24, 198, 51, 100}, {0, 1, 33, 0, 198, 51, 100, 0, 0},
		{0, 2, 48, 0, 0x20, 1, 0xd, 0xb8, 0, 1}, {0, 2, 48, 0, 0x20}, {0, 2, 129, 0}, {0, 0, 0, 0}, {0, 0, 0, 0, 0}, {0, 3, 0, 0}, {0, 1, 24}, {},
	} {
		for _, code := range []uint16{dns.EDNS0COOKIE, dns.EDNS0NSID, dns.EDNS0PADDING, dns.EDNS0EDE, 65001} {
			f.Add(data, code, []byte{1, 2, 3, 4, 5, 6, 7, 8}, code == 65001)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, code uint16, other []byte, first bool) {
		if len(data)+len(other) > 60_000 || code == dns.EDNS0SUBNET {
			return
		}
		options := []dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: data}, &dns.EDNS0_LOCAL{Code: code, Data: other}}
		if first {
			slices.Reverse(options)
		}
		r := received(t, options...)
		if r == nil {
			return
		}
		for _, option := range r.IsEdns0().Option {
			if option.Option() == code && optionLen(option) != 4+len(other) {
				return // package dns mends this one, too
			}
		}
		if got, want := MalformedSubnet(r), !wellFormed(data); got != want {
			t.Fatalf("Expected %v for %v beside %d with %v, got %v", want, data, code, other, got)
		}
	})
}

// wellFormed reports whether data are those of a client subnet in a query, as RFC 7871,
// section 6, has it.
func wellFormed(data []byte) bool {
	var size int
	switch family := int(data[0])<<8 | int(data[1]); family {
	case 0:
		return slices.Equal(data, []byte{0, 0, 0, 0})
	case 1:
		size = 4
	case 2:
		size = 16
	default:
		return false
	}
	bits, octets := int(data[2]), data[4:]
	if bits > 8*size || data[3] != 0 || len(octets) != (bits+7)/8 {
		return false
	}
	return bits%8 == 0 || octets[len(octets)-1]<<(bits%8) == 0
}
