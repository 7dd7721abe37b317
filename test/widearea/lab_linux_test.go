package widearea

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// IPv4 addresses of the hosts, which all have an IPv6 address too. Each ISP has
// a /28 of isps: its first host is the resolver, its second the client.
var (
	rootAddr = netip.MustParseAddr("192.0.2.1")
	dnsAAddr = netip.MustParseAddr("192.0.2.2")
	etcdAddr = netip.MustParseAddr("192.0.2.3")
	dnsBs    = netip.MustParsePrefix("192.0.2.8/29")
	nodes    = netip.MustParsePrefix("192.0.2.16/28")
	servers  = netip.MustParsePrefix("203.0.113.0/24")
	isps     = netip.MustParsePrefix("198.51.100.0/24")
)

// names are the names below example.org that clients ask for, aliases of
// services.
var names = []string{"www", "shop"}

// lab is the network with all machines.
type lab struct {
	*Network
	dnsBs   []*Host
	etcd    *Host            // nil without etcd
	nodes   map[string]*Host // by city
	servers map[string]*Host // by city
	isps    []*isp

	fastPath string // the line of dnsb and dnslb; "": none
}

// labPlan is what differs between labs.
type labPlan struct {
	dnsBCities []string
	etcdCity   string // empty without etcd
	resolverOf func(city string) resolver
}

// oneDNSB is a lab with one DNS-B.
var oneDNSB = labPlan{dnsBCities: []string{dnsBCity}, resolverOf: resolverOf}

// isp is an Internet service provider in one city.
type isp struct {
	city     string
	prefix   netip.Prefix
	kind     resolver
	resolver *Host
	recursor *daemon // on resolver
	client   *Host
	node     string // city of the nearest node
}

// packetCounts are the numbers of packets from a resolver to its nearest node
// and to the deputy of this node.
type packetCounts struct{ node, deputy uint64 }

func (l *lab) packetCounts(i *isp) packetCounts {
	return packetCounts{i.resolver.Sent(l.nodes[i.node]), i.resolver.Sent(l.nodes[deputies[i.node]])}
}

// deputyShare returns the share of the deputy since an earlier count, in
// percent.
func (c packetCounts) deputyShare(earlier packetCounts) float64 {
	node, deputy := float64(c.node-earlier.node), float64(c.deputy-earlier.deputy)
	return 100 * deputy / max(node+deputy, 1)
}

// nth returns the n-th address of a prefix, from 0.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// toIPv6 returns the IPv6 address of a host: it ends with the IPv4 address.
func toIPv6(four netip.Addr) netip.Addr {
	b := netip.MustParseAddr("2001:db8::").As16()
	copy(b[12:], four.AsSlice())
	return netip.AddrFrom16(b)
}

// bothFamilies returns an IPv4 prefix and the IPv6 prefix of the same hosts.
func bothFamilies(four netip.Prefix) []string {
	return []string{four.String(), netip.PrefixFrom(toIPv6(four.Addr()), 96+four.Bits()).String()}
}

// newHosts returns a network that ends with the test, and a function that adds a host
// to it.
func newHosts(t *testing.T, m *Matrix) (n *Network, host func(name, city string, addrs ...netip.Addr) *Host) {
	t.Helper()
	n, err := New(m)
	if err != nil {
		t.Fatalf("Expected a network, got %v", err)
	}
	t.Cleanup(n.Close)
	return n, func(name, city string, addrs ...netip.Addr) *Host {
		t.Helper()
		h, err := n.Host(name, city, addrs...)
		if err != nil {
			t.Fatalf("Expected host %s, got %v", name, err)
		}
		return h
	}
}

// newLab starts the network, the root server, DNS-A, the servers and the ISPs.
// The hosts of DNS-Bs, etcd and DNS-LBs have no program yet.
func newLab(t *testing.T, m *Matrix, plan labPlan) *lab {
	t.Helper()
	n, hostOf := newHosts(t, m)
	host := func(name, city string, addr netip.Addr) *Host { return hostOf(name, city, addr, toIPv6(addr)) }

	l := &lab{Network: n, nodes: make(map[string]*Host), servers: make(map[string]*Host)}
	root := host("root", rootCity, rootAddr)
	dnsA := host("DNS-A", dnsACity, dnsAAddr)
	for i, city := range plan.dnsBCities {
		l.dnsBs = append(l.dnsBs, host("DNS-B in "+city, city, nth(dnsBs, i+1)))
	}
	if plan.etcdCity != "" {
		l.etcd = host("etcd", plan.etcdCity, etcdAddr)
	}
	for i, city := range nodeCities {
		l.nodes[city] = host("DNS-LB in "+city, city, nth(nodes, i+1))
	}
	for i, city := range serverCities {
		l.servers[city] = host("server in "+city, city, nth(servers, 10*(i+1)))
	}
	for i, city := range ispCities {
		prefix := netip.PrefixFrom(nth(isps, 16*i), 28)
		l.isps = append(l.isps, &isp{
			city:     city,
			prefix:   prefix,
			kind:     plan.resolverOf(city),
			resolver: host("ISP in "+city, city, nth(prefix, 1)),
			client:   host("client in "+city, city, nth(prefix, 2)),
		})
	}
	n.Start()

	nsd(t, root, map[string]string{".": fill(t, rootZone, root), "org": fill(t, orgZone, map[string]any{"Org": root, "DNSA": dnsA})})
	nsd(t, dnsA, map[string]string{"example.org": fill(t, exampleZone, map[string]any{"DNSA": dnsA, "DNSBs": l.dnsBs, "Names": names})})
	for city, h := range l.servers {
		serve(t, h, city)
	}
	for _, i := range l.isps {
		i.recursor = i.kind.start(t, i.resolver, root)
	}
	return l
}

// serve answers HTTP, and so TCP, on a server; the kernel answers ICMP.
func serve(t *testing.T, h *Host, city string) {
	t.Helper()
	l, err := h.Listen("tcp", 80)
	if err != nil {
		t.Fatalf("Expected a listener in %s, got %v", city, err)
	}
	s := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, city) }),
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// ask sends one query from a host, and returns the reply and how long it took.
func ask(from *Host, to netip.Addr, name string, qtype uint16, recurse bool, timeout time.Duration, edit ...func(*dns.Msg)) (*dns.Msg, time.Duration, error) {
	return askFrom(from, nil, to, name, qtype, recurse, timeout, edit...)
}

// askFrom is ask from one address of the host; nil: the kernel chooses.
func askFrom(from *Host, source net.IP, to netip.Addr, name string, qtype uint16, recurse bool, timeout time.Duration, edit ...func(*dns.Msg)) (*dns.Msg, time.Duration, error) {
	var conn net.Conn
	err := from.Do(func() (err error) {
		conn, err = net.DialUDP("udp", &net.UDPAddr{IP: source}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 53)))
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = recurse
	for _, f := range edit {
		f(m)
	}
	client := dns.Client{Timeout: timeout}
	return client.ExchangeWithConn(m, &dns.Conn{Conn: conn})
}

// addresses returns the IPv4 and IPv6 addresses in an answer.
func addresses(m *dns.Msg) []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// programs are the programs that the tests start.
var programs = []string{"nsd", "unbound", "named", "kresd", "pdns_recursor"}
