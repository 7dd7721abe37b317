package secure

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
)

const (
	rootAddr      = "192.0.2.100"
	dnsbAddr      = "192.0.2.1"
	nodeAddr      = "192.0.2.53"
	plainAddr     = "192.0.2.54" // server of a zone that is not signed
	unboundAddr   = "198.51.100.1"
	bindAddr      = "198.51.100.2"
	knotAddr      = "198.51.100.3"
	powerDNSAddr  = "198.51.100.4"
	bindSecondary = "198.51.100.11"
	nsdSecondary  = "198.51.100.12"
	serverAddr    = "203.0.113.1"

	secret = "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="
)

const corefile = `.:53 {
	bind ` + rootAddr + `
	file DIR/root
}
gslb.example.org:53 {
	bind ` + dnsbAddr + `
	dnssec {
		key file DIR/gslb
	}
	tsig {
		secret node.key. ` + secret + `
	}
	transfer {
		to ` + bindSecondary + ` ` + nsdSecondary + `
		source ` + dnsbAddr + `
	}
	dnsb {
		ns      b1 ` + dnsbAddr + `
		accept  node.key. par1 any for svc ds
		accept  node.key. fra1 any for other ds
		node    nyc1 ` + plainAddr + `
		cut     plain nyc1
		default par1
		lease   1s 2h
	}
}
svc.gslb.example.org:53 {
	bind ` + nodeAddr + `
	dnssec {
		key file DIR/svc
	}
	latencyprobe {
		rtt tcp 80
	}
	dnslb {
		server   fra ` + serverAddr + `
		service  www.svc.gslb.example.org fra
		service  only.deep.svc.gslb.example.org fra
		service  *.wild.svc.gslb.example.org fra
		node     par1 ` + nodeAddr + `
		near     198.51.100.0/24
		location 48.85 2.35
		register ` + dnsbAddr + `
		key      node.key. ` + secret + `
		ds
	}
	file DIR/svczone
}
plain.gslb.example.org:53 {
	bind ` + plainAddr + `
	file DIR/plainzone
}
`

const rootZone = `. 3600 SOA a.root-servers.net. hostmaster.example.org. 1 7200 1800 86400 300
. 3600 NS a.root-servers.net.
a.root-servers.net. 3600 A ` + rootAddr + `
gslb.example.org. 3600 NS b1.gslb.example.org.
b1.gslb.example.org. 3600 A ` + dnsbAddr + `
`

// svcZone is the backend zone, without the addresses of the services.
const svcZone = `$ORIGIN svc.gslb.example.org.
@ 3600 SOA ns hostmaster 1 7200 1800 86400 300
@ 3600 NS par1.lb.gslb.example.org.
www 300 HTTPS 1 . alpn=h2
www 300 CAA 0 issue "ca.example.org"
mail 300 MX 10 www
alias 300 CNAME www
dangling 300 CNAME nowhere
sub 300 NS ns.example.net.
`

const plainZone = `$ORIGIN plain.gslb.example.org.
@ 3600 SOA ns hostmaster 1 7200 1800 86400 300
@ 3600 NS nyc1.lb.gslb.example.org.
www 60 A 203.0.113.9
`

// system is the running DNS-B and node.
type system struct {
	anchor *dns.DS // trust anchor for the zone of DNS-B
	hints  string  // root servers
}

// start starts the root server, DNS-B, a node that signs its cut, and a server
// of a zone that is not signed, and waits until the node is registered.
func start(t *testing.T) *system {
	t.Helper()
	acceptConnections(t, serverAddr)
	files := map[string]string{"Corefile": corefile, "root": rootZone, "svczone": svcZone, "plainzone": plainZone}
	s := &system{hints: hints, anchor: testcert.ZoneKey(t, files, "gslb", "gslb.example.org.")}
	testcert.ZoneKey(t, files, "svc", "svc.gslb.example.org.")
	run(t, files, binary, "-conf", "DIR/Corefile")
	wait(t, 20*time.Second, "the node to be registered", func() bool {
		r, err := ask(dnsbAddr, "svc.gslb.example.org.", dns.TypeDS)
		return err == nil && len(r.Answer) > 0
	})
	register(t, dnsbAddr, fra1()) // until all nodes are registered, DNS-B answers no NXDOMAIN
	return s
}

// acceptConnections accepts connections to port 80 of an address, and closes them.
func acceptConnections(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "80"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// fra1 returns the registration of a node that the test registers.
func fra1() *registration.Registration {
	return &registration.Registration{
		Zone: "gslb.example.org.", Node: "fra1", Cuts: []string{"other.gslb.example.org."},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.55"), netip.MustParseAddr("2001:db8::55")},
	}
}

// register sends a registration to a DNS-B.
func register(t *testing.T, server string, r *registration.Registration) {
	t.Helper()
	m, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	m.SetTsig("node.key.", dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{"node.key.": secret}}
	reply, _, err := c.Exchange(m, net.JoinHostPort(server, "53"))
	if err != nil || reply.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected %s to register, got %v, %v", r.Node, reply, err)
	}
}

// ask sends a question as a validating client does.
func ask(server, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.SetEdns0(1232, true)
	m.AuthenticatedData = true
	c := &dns.Client{Timeout: 8 * time.Second}
	r, _, err := c.Exchange(m, net.JoinHostPort(server, "53"))
	if err == nil && r.Truncated {
		c.Net = "tcp"
		r, _, err = c.Exchange(m, net.JoinHostPort(server, "53"))
	}
	return r, err
}

// write returns the path of a new file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
