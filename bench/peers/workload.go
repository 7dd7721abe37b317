//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/miekg/dns"
)

const (
	zone  = "gslb.example.org"
	cut   = "svc." + zone
	nodes = 50 // of the map
)

// workload is what servers are to know, and what they are asked.
type workload struct {
	v6       bool // whether queries come over IPv6
	prefixes int  // of the map, /24 or /48; 0: the answers are those of services
	qtype    uint16
	services int
	servers  int    // that are probed
	each     int    // servers of a service; 0: two
	interval string // between probes; "": 10s

	clients, strangers [][16]byte // addresses in the prefixes, and in others
}

// draw draws the clients. It is to be called once.
func (w *workload) draw() {
	const strangers = 400_000
	n := max(w.prefixes, 1000)
	r := rand.New(rand.NewPCG(1, 1)) // #nosec G404 -- the same each time
	seen := make(map[uint32]bool, n+strangers)
	for len(w.clients)+len(w.strangers) < n+strangers {
		site := 1<<16 + r.Uint32N(222<<16)
		if seen[site] || site>>16 == 127 || site>>16 == 10 || site>>8 == 192<<8 {
			continue
		}
		seen[site] = true
		if len(w.clients) < n {
			w.clients = append(w.clients, w.client(site))
		} else {
			w.strangers = append(w.strangers, w.client(site))
		}
	}
}

// client returns an address in a site: a /24, or a /48 of 3fff::/20 (RFC 9637).
func (w *workload) client(site uint32) (addr [16]byte) {
	if !w.v6 {
		return netip.AddrFrom4([4]byte{byte(site >> 16), byte(site >> 8), byte(site), 1}).As16()
	}
	copy(addr[:], []byte{0x3f, 0xff, byte(site >> 20 & 0xf), byte(site >> 12), byte(site >> 4), byte(site << 4)})
	addr[15] = 1
	return addr
}

// prefix returns the prefix of a client.
func (w *workload) prefix(client [16]byte) netip.Prefix {
	if w.v6 {
		return netip.PrefixFrom(netip.AddrFrom16(client), 48).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16(client).Unmap(), 24).Masked()
}

// listen returns the address that servers listen at.
func (w *workload) listen() netip.Addr {
	if w.v6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// nodeAddress returns that of a node of the map. The i-th client has the node i modulo
// their number.
func nodeAddress(node int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(node) + 1}) } // #nosec G115 -- fewer than 255

// digits is how many the first label of the name of a service has.
const digits = 6

// label returns the first label of the name of a service.
func label(service int) string { return fmt.Sprintf("w%0*d", digits, service) }

// serversOf returns the servers of a service, whose addresses differ in the last byte.
// If they are more than two, hardly any other service has the same.
func (w *workload) serversOf(service int) []int {
	if w.each == 0 {
		return []int{2 * service % w.servers, 2*service%w.servers + 1}
	}
	r := rand.New(rand.NewPCG(2, uint64(service))) // #nosec G115 G404 -- the same each time
	block := r.IntN(w.servers/network) * network
	servers := r.Perm(network)[:w.each]
	for i := range servers {
		servers[i] += block
	}
	return servers
}

// network is how many servers have addresses that differ in the last byte.
const network = 200

// serverAddress returns the address of a server.
func serverAddress(server int, v6 bool) netip.Addr {
	last, next := byte(server%network+1), byte(server/network) // #nosec G115 -- a few thousand
	if !v6 {
		return netip.AddrFrom4([4]byte{10, 1, next, last})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: next, 15: last})
}

// query returns a query for the service 0.
func (w *workload) query() ([]byte, error) {
	m := new(dns.Msg).SetQuestion(label(0)+"."+cut+".", w.qtype)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	return m.Pack()
}

// right returns bytes that the reply to a client for a service must have: the address
// of the client's node, or what the servers of the service have in common.
func (w *workload) right(client, service int) []byte {
	if w.prefixes > 0 {
		return nodeAddress(client % nodes).AsSlice()
	}
	addr := serverAddress(w.serversOf(service)[0], w.qtype == dns.TypeAAAA).AsSlice()
	return addr[:len(addr)-1]
}
