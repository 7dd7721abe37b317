package widearea

import "testing"

// resolver is a kind of recursive resolver, as an ISP runs it: its defaults, but for addresses, the root servers of this network, validation (this root is not
// signed) and where it writes.
type resolver struct {
	name    string
	program string
	args    []string
	config  string // its file DIR/conf

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

// resolvers are the kinds in the test's cities; where nothing is said it is Unbound.
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
		file = "recursor.conf" // its name cannot be chosen
	}
	return run(t, h, map[string]string{
		file:    fill(t, r.config, h),
		"hints": fill(t, hints, root),
	}, r.program, r.args...)
}

// nsd runs an authoritative server with zones, given by name.
func nsd(t *testing.T, h *Host, zones map[string]string) *daemon {
	t.Helper()
	files := make(map[string]string)
	names := make([]string, 0, len(zones))
	for name, text := range zones {
		files["zone."+name] = text
		names = append(names, name)
	}
	files["conf"] = fill(t, `server:
	server-count: 1
{{- range .Host.Addrs}}
	ip-address: {{.}}
{{- end}}
	username: ""
	chroot: ""
	zonesdir: "DIR"
	database: ""
	pidfile: "DIR/pid"
	xfrdfile: "DIR/xfrd"
	xfrdir: "DIR"
	zonelistfile: "DIR/zones"
	cookie-secret-file: "DIR/cookies"
remote-control:
	control-enable: no
{{range .Zones}}
zone:
	name: "{{.}}"
	zonefile: "DIR/zone.{{.}}"
{{end}}`, map[string]any{"Host": h, "Zones": names})
	return run(t, h, files, "nsd", "-d", "-c", "DIR/conf")
}
