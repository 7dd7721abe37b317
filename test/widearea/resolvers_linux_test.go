package widearea

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolver is a kind of resolver with its default configuration, apart from
// addresses, the root servers of this network, no validation (this root is not
// signed), and its directory.
type resolver struct {
	name    string
	program string
	args    []string
	config  string            // contents of its configuration file
	files   map[string]string // further files
}

var (
	unbound = resolver{
		name: "Unbound", program: "unbound", args: []string{"-d", "-c", "DIR/conf"},
		config: `server:
	directory: "DIR"
	pidfile: "DIR/pid"
	chroot: ""
	username: ""
	use-syslog: no
	logfile: ""
	num-threads: 1
	interface: {{.Addr}}
{{- range .Addrs}}
	outgoing-interface: {{.}}
{{- end}}
	access-control: 0.0.0.0/0 allow
	root-hints: "DIR/hints"
	module-config: "iterator"
remote-control:
	control-enable: no
`,
	}
	bind = resolver{
		name: "BIND", program: "named", args: []string{"-g", "-n", "1", "-c", "DIR/conf"},
		config: `options {
	directory "DIR";
	pid-file none;
	lock-file none;
	session-keyfile none;
	listen-on { {{.Addr}}; };
	listen-on-v6 { none; };
	recursion yes;
	allow-query { any; };
	allow-recursion { any; };
	allow-query-cache { any; };
	dnssec-validation no;
};
controls { };
zone "." { type hint; file "DIR/hints"; };
`,
	}
	knot = resolver{
		name: "Knot", program: "kresd", args: []string{"-n", "-c", "DIR/conf", "DIR"},
		config: `net.listen('{{.Addr}}', 53, { kind = 'dns' })
modules = { 'hints > iterate' }
hints.root_file('DIR/hints')
trust_anchors.remove('.')
cache.open(10 * MB, 'lmdb://DIR/cache')
`,
	}
	powerDNS = resolver{
		name: "PowerDNS", program: "pdns_recursor", args: []string{"--config-dir=DIR"},
		config: `daemon=no
write-pid=no
disable-syslog=yes
quiet=yes
loglevel=4
socket-dir=DIR
threads=1
local-address={{.Addr}}
query-local-address={{range $i, $addr := .Addrs}}{{if $i}}, {{end}}{{$addr}}{{end}}
allow-from=0.0.0.0/0
dont-query=
hint-file=DIR/hints
dnssec=off
security-poll-suffix=
`,
	}
)

// resolvers are the kinds in some cities; in the others it is Unbound.
var resolvers = map[string]resolver{
	"London":    powerDNS,
	"Madrid":    bind,
	"Stockholm": knot,
}

func resolverOf(city string) resolver {
	if r, ok := resolvers[city]; ok {
		return r
	}
	return unbound
}

const hints = `.                   3600000 NS a.root-servers.net.
{{range .Addrs}}
a.root-servers.net. 3600000 {{if .Is4}}A{{else}}AAAA{{end}} {{.}}
{{end}}`

// start runs the resolver on a host.
func (r resolver) start(t *testing.T, h, root *Host) *daemon {
	t.Helper()
	file := "conf"
	if r.name == powerDNS.name {
		file = "recursor.conf" // a fixed name
	}
	files := map[string]string{file: fill(t, r.config, h), "hints": fill(t, hints, root)}
	maps.Copy(files, r.files)
	return run(t, h, files, r.program, r.args...)
}

// TestResolversFindNames uses no program of this project: the resolver of each
// client finds names from the root servers on, and not faster than the latency
// to DNS-A allows.
func TestResolversFindNames(t *testing.T) {
	needNetwork(t, programs...)
	m := cities(t)
	l := newLab(t, m, oneDNSB)
	for _, i := range l.isps {
		t.Run(i.city, func(t *testing.T) {
			find := func(name string) (time.Duration, error) {
				reply, took, err := ask(i.client, i.resolver.Addr(), name, dns.TypeA, true, 5*time.Second)
				if err == nil && len(addresses(reply)) != 1 {
					err = fmt.Errorf("expected one address, got %v", reply)
				}
				return took, err
			}
			// The servers may still be starting.
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
