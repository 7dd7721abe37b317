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

// IPv4 addresses of the hosts; all have an IPv6 address too. Each ISP has a /28 of isps: its resolver is the first host in it and its client the second.
var (
	rootAddr = netip.MustParseAddr("192.0.2.1")
	dnsAAddr = netip.MustParseAddr("192.0.2.2")
	dnsBAddr = netip.MustParseAddr("192.0.2.3")
	nodes    = netip.MustParsePrefix("192.0.2.16/28")
	servers  = netip.MustParsePrefix("203.0.113.0/24")
	isps     = netip.MustParsePrefix("198.51.100.0/24")
)

// names are what clients ask for below example.org, and the services that DNS-A makes of them.
var names = []string{"www", "shop"}

// lab is the network with all its machines.
type lab struct {
	*Network
	dnsB    *Host
	nodes   map[string]*Host // by city, as all
	servers map[string]*Host
	isps    []*isp
}

// isp is a provider with the kind of resolver that it runs.
type isp struct {
	city     string
	prefix   netip.Prefix
	kind     resolver
	resolver *Host
	client   *Host
	node     string // city of the node that DNS-B refers the resolver to while it lives
}

// asked is how many packets a resolver has sent to its node and to the deputy of that.
type asked struct{ node, deputy uint64 }

func (l *lab) asked(i *isp) asked {
	return asked{i.resolver.Sent(l.nodes[i.node]), i.resolver.Sent(l.nodes[deputies[i.node]])}
}

// deputised returns the share of the deputy since an earlier count, in percent.
func (a asked) deputised(before asked) float64 {
	node, deputy := float64(a.node-before.node), float64(a.deputy-before.deputy)
	return 100 * deputy / max(node+deputy, 1)
}

// nth returns the address number n of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// six returns the IPv6 address that goes with an IPv4 address: its last four bytes are that.
func six(four netip.Addr) netip.Addr {
	b := netip.MustParseAddr("2001:db8::").As16()
	copy(b[12:], four.AsSlice())
	return netip.AddrFrom16(b)
}

// both returns a prefix of IPv4 and the same one of IPv6.
func both(four netip.Prefix) []string {
	return []string{four.String(), netip.PrefixFrom(six(four.Addr()), 96+four.Bits()).String()}
}

// newLab makes the network, the root server, DNS-A, the servers and the ISPs. DNS-B and the DNS-LBs are hosts without a program yet.
func newLab(t *testing.T, m *Matrix) *lab {
	t.Helper()
	n, err := New(m)
	if err != nil {
		t.Fatalf("Expected a network, got %v", err)
	}
	t.Cleanup(n.Close)
	host := func(name, city string, addr netip.Addr) *Host {
		h, err := n.Host(name, city, addr, six(addr))
		if err != nil {
			t.Fatalf("Expected a host, got %v", err)
		}
		return h
	}

	l := &lab{Network: n, nodes: make(map[string]*Host), servers: make(map[string]*Host)}
	root := host("root", rootCity, rootAddr)
	dnsA := host("DNS-A", dnsACity, dnsAAddr)
	l.dnsB = host("DNS-B", dnsBCity, dnsBAddr)
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
			kind:     resolverOf(city),
			resolver: host("ISP in "+city, city, nth(prefix, 1)),
			client:   host("client in "+city, city, nth(prefix, 2)),
		})
	}
	n.Start()

	nsd(t, root, map[string]string{".": fill(t, rootZone, root), "org": fill(t, orgZone, map[string]any{"Org": root, "DNSA": dnsA})})
	nsd(t, dnsA, map[string]string{"example.org": fill(t, exampleZone, map[string]any{"DNSA": dnsA, "DNSB": l.dnsB, "Names": names})})
	for city, h := range l.servers {
		serve(t, h, city)
	}
	for _, i := range l.isps {
		i.kind.start(t, i.resolver, root)
	}
	return l
}

const rootZone = `$ORIGIN .
$TTL 86400
@                   SOA a.root-servers.net. hostmaster.example.org. 1 1800 900 604800 86400
                    NS  a.root-servers.net.
{{range .Addrs}}
a.root-servers.net. {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
a0.org.             {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}
org.                NS  a0.org.
`

const orgZone = `$ORIGIN org.
$TTL 86400
@           SOA a0 hostmaster.example.org. 1 1800 900 604800 3600
            NS  a0
example     NS  ns1.example
{{range .Org.Addrs}}
a0          {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}{{range .DNSA.Addrs}}
ns1.example {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}`

const exampleZone = `$ORIGIN example.org.
$TTL 3600
@       SOA   ns1 hostmaster 1 1800 900 604800 300
        NS    ns1
first   A     203.0.113.98
second  A     203.0.113.99
{{range .Names}}{{.}} CNAME {{.}}.svc.gslb
{{end}}
{{range .DNSA.Addrs}}
ns1     {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}
gslb    NS    b1.gslb
{{range .DNSB.Addrs}}
b1.gslb {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}`

// serve lets a server of the services answer HTTP, and with that TCP; ICMP is answered by the kernel.
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

// ask sends one query from a host to a server and returns what came back.
func ask(from *Host, to netip.Addr, name string, qtype uint16, recurse bool, timeout time.Duration) (*dns.Msg, time.Duration, error) {
	var conn net.Conn
	err := from.Do(func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 53)))
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = recurse
	client := dns.Client{Timeout: timeout}
	return client.ExchangeWithConn(m, &dns.Conn{Conn: conn})
}

// addresses returns those in an answer, of both families.
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

// TestResolvers checks the network with servers alone that are not ours: each client's resolver finds names by way of the root and of DNS-A, in no less time than the
// way there takes.
func TestResolvers(t *testing.T) {
	needNetwork(t, programs...)
	m := cities(t)
	l := newLab(t, m)
	for _, i := range l.isps {
		t.Run(i.city, func(t *testing.T) {
			find := func(name string) (time.Duration, error) {
				reply, took, err := ask(i.client, i.resolver.Addr(), name, dns.TypeA, true, 5*time.Second)
				if err == nil && len(addresses(reply)) != 1 {
					err = fmt.Errorf("got %v", reply)
				}
				return took, err
			}
			// The servers have just been started.
			first, err := find("first.example.org.")
			for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); {
				time.Sleep(100 * time.Millisecond)
				first, err = find("first.example.org.")
			}
			if err != nil {
				t.Fatalf("Expected %s to find a name, got %v", i.kind.name, err)
			}
			second, err := find("second.example.org.")
			if err != nil {
				t.Fatalf("Expected %s to find a second name, got %v", i.kind.name, err)
			}
			if least := Local + m.RTT(i.city, dnsACity); second < least {
				t.Errorf("Expected %s to need at least %v for an answer from %s, got one in %v", i.kind.name, least, dnsACity, second)
			}
			t.Logf("%s took %v for the first name and %v for the second", i.kind.name, first.Round(time.Millisecond), second.Round(time.Millisecond))
		})
	}
}

// programs are those that the test starts.
var programs = []string{"nsd", "unbound", "named", "kresd", "pdns_recursor"}
