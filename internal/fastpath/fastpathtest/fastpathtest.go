// Package fastpathtest compares the replies of the fast path with those of the plugin
// chain.
package fastpathtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fastpath"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// Server is a server of CoreDNS with one server block, and an Answerer of it.
type Server struct {
	chain    *dnsserver.Server
	answerer fastpath.Answerer
}

// New returns a server of a zone whose handlers, first to last, are those of plugins.
func New(t testing.TB, zone string, a fastpath.Answerer, plugins ...plugin.Plugin) *Server {
	t.Helper()
	s, err := dnsserver.NewServer("dns://:53", []*dnsserver.Config{{Zone: zone, Plugin: plugins}})
	if err != nil {
		t.Fatal(err)
	}
	return &Server{s, a}
}

// Compare returns whether the fast path answers a datagram, with an error if the chain
// answers otherwise. Nothing is answered after an error.
func (s *Server) Compare(packet []byte, from netip.Addr) (answered bool, err error) {
	before := bytes.Clone(packet)
	q, out := new(fastpath.Query), make([]byte, fastpath.MaxReply)
	if !q.Parse(packet) {
		return false, nil
	}
	q.From = resolver.Normalize(from)
	n, ok := s.answerer.Answer(q, out)
	if !bytes.Equal(packet, before) {
		return false, fmt.Errorf("the fast path changed query %x", before)
	}
	if !ok {
		return false, nil
	}
	chain, err := s.ask(packet, from)
	if err == nil && !bytes.Equal(out[:n], chain) {
		err = fmt.Errorf("replies to query %x from %s differ:\nfast path %x\n%s\nchain     %x\n%s", packet, from, out[:n], text(out[:n]), chain, text(chain))
	}
	return err == nil, err
}

// ask returns the reply of the chain.
func (s *Server) ask(packet []byte, from netip.Addr) ([]byte, error) {
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		return nil, fmt.Errorf("the fast path answered query %x, which is malformed: %w", packet, err)
	}
	w := &writer{from: from}
	s.chain.ServeDNS(context.WithValue(context.Background(), dnsserver.Key{}, s.chain), w, m)
	if w.reply == nil {
		return nil, fmt.Errorf("the fast path answered query %x, the chain did not", packet)
	}
	return w.reply, nil
}

func text(reply []byte) string {
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		return err.Error()
	}
	return m.String()
}

// writer packs the reply.
type writer struct {
	test.ResponseWriter
	from  netip.Addr
	reply []byte
}

func (w *writer) RemoteAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.from, 40000))
}

func (w *writer) WriteMsg(m *dns.Msg) (err error) {
	w.reply, err = m.Pack()
	return err
}

// Traffic generates datagrams: queries, and queries with a few bytes changed.
type Traffic struct {
	Rand  *rand.Rand
	Names []string // to ask for, and for names around them
	Types []uint16
}

// Next returns another datagram.
func (t *Traffic) Next() []byte {
	r := t.Rand
	m := new(dns.Msg)
	m.SetQuestion(t.name(), t.Types[r.IntN(len(t.Types))])
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = r.IntN(2) == 0, r.IntN(4) == 0, r.IntN(4) == 0
	if r.IntN(30) == 0 {
		m.Question[0].Qclass = dns.ClassCHAOS
	}
	if r.IntN(30) == 0 {
		m.Opcode = r.IntN(16)
	}
	if r.IntN(4) > 0 {
		t.edns(m)
	}
	packet, err := m.Pack()
	if err != nil {
		return nil
	}
	if r.IntN(3) > 0 {
		return packet
	}
	return t.mutate(packet)
}

// name returns one of the names, or one below or above it, in some case.
func (t *Traffic) name() string {
	r := t.Rand
	name := t.Names[r.IntN(len(t.Names))]
	switch r.IntN(6) {
	case 0:
		for range 1 + r.IntN(4) {
			label := []string{"a", "www", "_tcp", "mail", "_explain", "_map", "x-1", "longer-than-the-others", `a\.b`, "*"}[r.IntN(10)]
			if below := label + "." + name; len(below) < 250 {
				name = below
			}
		}
	case 1:
		if off, end := dns.NextLabel(name, 0); !end {
			name = name[off:]
		}
	}
	if r.IntN(3) > 0 {
		return name
	}
	mixed := []byte(name)
	for i, c := range mixed {
		if 'a' <= c && c <= 'z' && r.IntN(2) == 0 {
			mixed[i] = c - 'a' + 'A'
		}
	}
	return string(mixed)
}

func (t *Traffic) edns(m *dns.Msg) {
	r := t.Rand
	m.SetEdns0([]uint16{0, 100, 512, 600, 1220, 1232, 4096, 65535}[r.IntN(8)], r.IntN(2) == 0)
	opt := m.IsEdns0()
	if r.IntN(3) == 0 {
		opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
	}
	if r.IntN(3) == 0 {
		opt.Option = append(opt.Option, t.subnet())
	}
	if r.IntN(20) == 0 {
		opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	}
	if r.IntN(20) == 0 {
		opt.SetVersion(1)
	}
	if r.IntN(20) == 0 {
		opt.SetZ(uint16(r.Uint32())) // #nosec G115 -- any bits
	}
}

// subnet returns the client subnet of some address.
func (t *Traffic) subnet() *dns.EDNS0_SUBNET {
	addr := t.Address()
	lengths := []int{0, 1, 8, 20, 24, 25, 32}
	if addr.Is6() {
		lengths = []int{0, 3, 32, 48, 56, 63, 128}
	}
	prefix, _ := addr.Prefix(lengths[t.Rand.IntN(len(lengths))])
	subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(prefix.Bits()), Address: prefix.Addr().AsSlice()} // #nosec G115 -- at most 128
	if addr.Is6() {
		subnet.Family = 2
	}
	return subnet
}

func (t *Traffic) mutate(packet []byte) []byte {
	r := t.Rand
	for range 1 + r.IntN(3) {
		switch r.IntN(5) {
		case 0:
			packet = packet[:max(1, len(packet)-1-r.IntN(12))]
		case 1:
			packet = append(packet, byte(r.Uint32())) // #nosec G115 -- any byte
		case 2:
			packet[r.IntN(len(packet))] ^= 1 << r.IntN(8)
		default:
			packet[r.IntN(len(packet))] = byte(r.Uint32()) // #nosec G115 -- any byte
		}
	}
	return packet
}

// Address returns some address, of both families alike, within or beyond 10.0.0.0/8
// and 2001:db8::/32.
func (t *Traffic) Address() netip.Addr {
	r := t.Rand
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32()) // #nosec G115 -- any byte
	}
	switch r.IntN(5) {
	case 0:
		return netip.AddrFrom4([4]byte{10, b[1], b[2], b[3]})
	case 1:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 2:
		copy(b[:], []byte{0x20, 0x01, 0x0d, 0xb8})
	case 3: // NAT64
		copy(b[:], []byte{0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 10})
	}
	return netip.AddrFrom16(b)
}

// Fuzz compares the replies of servers to any datagrams, of which the first are of
// these names and types.
func Fuzz(f *testing.F, names []string, types []uint16, servers ...*Server) {
	traffic := &Traffic{Rand: rand.New(rand.NewPCG(3, 4)), Names: names, Types: types} // #nosec G404 -- a test
	for range 50 {
		from := traffic.Address().As16()
		f.Add(traffic.Next(), from[:])
	}
	f.Fuzz(func(t *testing.T, packet, from []byte) {
		var addr [16]byte
		copy(addr[:], from)
		for _, s := range servers {
			if _, err := s.Compare(packet, netip.AddrFrom16(addr).Unmap()); err != nil {
				t.Error(err)
			}
		}
	})
}
