package secure

import (
	"crypto/ecdsa"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	rootAddr      = "192.0.2.100"
	dnsbAddr      = "192.0.2.1"
	nodeAddr      = "192.0.2.53"
	plainAddr     = "192.0.2.54" // of a name server for an insecure delegation
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

// svcZone has the records that are no addresses of services.
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
	anchor *dns.DS // of DNS-B's zone
}

// start starts the root, DNS-B, a node that signs its cut, and a name server that
// does not, and waits until the node is registered.
func start(t *testing.T) *system {
	t.Helper()
	l, err := net.Listen("tcp", serverAddr+":80")
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

	files := map[string]string{"Corefile": corefile, "root": rootZone, "svczone": svcZone, "plainzone": plainZone}
	s := &system{anchor: key(t, files, "gslb", "gslb.example.org.")}
	key(t, files, "svc", "svc.gslb.example.org.")
	run(t, files, binary, "-conf", "DIR/Corefile")
	wait(t, 20*time.Second, "the node to be registered", func() bool {
		r, err := ask(dnsbAddr, "svc.gslb.example.org.", dns.TypeDS)
		return err == nil && len(r.Answer) > 0
	})
	register(t, fra1()) // until all nodes are there, no name is said not to exist
	return s
}

// fra1 is a node that registers by hand.
func fra1() *registration.Registration {
	return &registration.Registration{
		Zone: "gslb.example.org.", Node: "fra1", Cuts: []string{"other.gslb.example.org."},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.55"), netip.MustParseAddr("2001:db8::55")},
	}
}

// register sends a registration to DNS-B.
func register(t *testing.T, r *registration.Registration) {
	t.Helper()
	m, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	m.SetTsig("node.key.", dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{"node.key.": secret}}
	reply, _, err := c.Exchange(m, dnsbAddr+":53")
	if err != nil || reply.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected %s to register, got %v, %v", r.Node, reply, err)
	}
}

// key adds the files of a key for a zone and returns its DS record.
func key(t *testing.T, files map[string]string, name, zone string) *dns.DS {
	t.Helper()
	k := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	files[name+".key"] = k.String() + "\n"
	files[name+".private"] = k.PrivateKeyString(private.(*ecdsa.PrivateKey))
	return k.ToDS(dns.SHA256)
}

// ask asks a server, as who validates does.
func ask(server, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.SetEdns0(1232, true)
	m.AuthenticatedData = true
	c := &dns.Client{Timeout: 8 * time.Second}
	r, _, err := c.Exchange(m, server+":53")
	if err == nil && r.Truncated {
		c.Net = "tcp"
		r, _, err = c.Exchange(m, server+":53")
	}
	return r, err
}

// resolver is a validating resolver with its defaults, but for its address, the
// root servers, the trust anchor and where it writes.
type resolver struct {
	name, addr, program string
	args                []string
	file, config        string
}

var resolvers = []resolver{
	{"Unbound", unboundAddr, "unbound", []string{"-d", "-c", "DIR/conf"}, "conf", `server:
	directory: "DIR"
	pidfile: "DIR/pid"
	chroot: ""
	username: ""
	use-syslog: no
	logfile: ""
	num-threads: 1
	interface: ADDR
	outgoing-interface: ADDR
	access-control: 0.0.0.0/0 allow
	root-hints: "DIR/hints"
	trust-anchor: "ANCHOR"
	val-log-level: 2
remote-control:
	control-enable: no
`},
	{"BIND", bindAddr, "named", []string{"-g", "-n", "1", "-c", "DIR/conf"}, "conf", `options {
	directory "DIR";
	pid-file none;
	lock-file none;
	session-keyfile none;
	listen-on { ADDR; };
	listen-on-v6 { none; };
	query-source address ADDR;
	recursion yes;
	allow-query { any; };
	allow-recursion { any; };
	dnssec-validation yes;
};
trust-anchors { gslb.example.org static-ds STATIC; };
controls { };
zone "." { type hint; file "DIR/hints"; };
`},
	{"Knot Resolver", knotAddr, "kresd", []string{"-n", "-c", "DIR/conf", "DIR"}, "conf", `net.listen('ADDR', 53, { kind = 'dns' })
net.outgoing_v4('ADDR')
net.ipv6 = false
modules = { 'hints > iterate' }
hints.root_file('DIR/hints')
trust_anchors.remove('.')
trust_anchors.add('ANCHOR')
cache.open(10 * MB, 'lmdb://DIR/cache')
`},
	{"PowerDNS", powerDNSAddr, "pdns_recursor", []string{"--config-dir=DIR"}, "recursor.conf", `daemon=no
write-pid=no
disable-syslog=yes
quiet=yes
loglevel=6
socket-dir=DIR
threads=1
local-address=ADDR
query-local-address=ADDR
allow-from=0.0.0.0/0
dont-query=
hint-file=DIR/hints
dnssec=validate
dnssec-log-bogus=yes
lua-config-file=DIR/lua
security-poll-suffix=
`},
}

const hints = `. 3600000 NS a.root-servers.net.
a.root-servers.net. 3600000 A ` + rootAddr + `
`

// start runs the resolver and waits until it answers.
func (r resolver) start(t *testing.T, s *system) {
	t.Helper()
	a := s.anchor
	static := fmt.Sprintf("%d %d %d \"%s\"", a.KeyTag, a.Algorithm, a.DigestType, strings.ToUpper(a.Digest))
	text := strings.NewReplacer(
		"ADDR", r.addr, "STATIC", static,
		"ANCHOR", fmt.Sprintf("gslb.example.org. 3600 IN DS %d %d %d %s", a.KeyTag, a.Algorithm, a.DigestType, a.Digest),
	).Replace(r.config)
	run(t, map[string]string{
		r.file:  text,
		"hints": hints,
		"lua":   fmt.Sprintf("clearTA()\naddTA('gslb.example.org', '%d %d %d %s')\n", a.KeyTag, a.Algorithm, a.DigestType, a.Digest),
	}, r.program, append([]string(nil), r.args...)...)
	// The first name that PowerDNS Recursor looks for below the anchor, whatever it
	// is, comes without AD: the root is not signed here.
	try := 0
	wait(t, 20*time.Second, r.name+" to answer", func() bool {
		try++
		m, err := ask(r.addr, fmt.Sprintf("try%d.gslb.example.org.", try), dns.TypeTXT)
		return err == nil && m.AuthenticatedData
	})
}

// write writes a file for a program that is not a daemon.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
