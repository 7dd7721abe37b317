package secure

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolver is a validating resolver with its default configuration, apart from
// its address, the root servers, the trust anchor and its directory.
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
	outgoing-interface: ADDR6
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
	query-source-v6 address ADDR6;
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
net.outgoing_v6('ADDR6')
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
query-local-address=ADDR, ADDR6
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
		"ADDR6", toIPv6(r.addr), "ADDR", r.addr, "STATIC", static,
		"ANCHOR", fmt.Sprintf("gslb.example.org. 3600 IN DS %d %d %d %s", a.KeyTag, a.Algorithm, a.DigestType, a.Digest),
	).Replace(r.config)
	run(t, map[string]string{
		r.file:  text,
		"hints": s.hints,
		"lua":   fmt.Sprintf("clearTA()\naddTA('gslb.example.org', '%d %d %d %s')\n", a.KeyTag, a.Algorithm, a.DigestType, a.Digest),
	}, r.program, append([]string(nil), r.args...)...)
	// PowerDNS Recursor answers for the first name below the trust anchor
	// without AD, because this root is not signed.
	attempt := 0
	wait(t, 20*time.Second, r.name+" to answer", func() bool {
		attempt++
		m, err := ask(r.addr, fmt.Sprintf("try%d.gslb.example.org.", attempt), dns.TypeTXT)
		return err == nil && m.AuthenticatedData
	})
}
