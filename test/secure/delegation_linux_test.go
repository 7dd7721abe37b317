package secure

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
)

// host is a machine with an address of each family.
type host struct{ Name, IPv4, IPv6 string }

func newHost(name, ipv4 string) host { return host{name, ipv4, toIPv6(ipv4)} }

// toIPv6 returns the IPv6 address of a host: it ends with the IPv4 address.
func toIPv6(ipv4 string) string {
	b := netip.MustParseAddr("2001:db8::").As16()
	copy(b[12:], netip.MustParseAddr(ipv4).AsSlice())
	return netip.AddrFrom16(b).String()
}

// Label returns the first label of the name.
func (h host) Label() string {
	label, _, _ := strings.Cut(h.Name, ".")
	return label
}

// Hosts of the delegation, from the root to the nodes.
var (
	rootHost   = newHost("a.root-servers.net.", "192.0.2.110")
	dnsAHosts  = []host{newHost("ns1.example.org.", "192.0.2.111"), newHost("ns2.example.org.", "192.0.2.112")}
	dnsBHosts  = []host{newHost("b1.gslb.example.org.", "192.0.2.121"), newHost("b2.gslb.example.org.", "192.0.2.122")}
	par1       = newHost("par1.lb.gslb.example.org.", "192.0.2.131")
	lon1       = newHost("lon1.lb.gslb.example.org.", "192.0.2.132")
	nyc1       = newHost("nyc1.lb.gslb.example.org.", "192.0.2.133")
	nodeHosts  = []host{par1, lon1, nyc1}
	serverHost = newHost("server.example.org.", "203.0.113.2")

	delegationHosts = slices.Concat([]host{rootHost, serverHost}, dnsAHosts, dnsBHosts, nodeHosts)
	// checkerHost is the source of packets to delegationHosts from programs that
	// choose none. It is among the resolvers near par1.
	checkerHost = newHost("checker.example.org.", "198.51.100.20")
)

// Prefixes of checkerHost and of the resolvers.
const (
	resolversIPv4 = "198.51.100.0/24"
	resolversIPv6 = "2001:db8::c633:6400/120"
)

// deputies are those of the nodes, by label.
var deputies = map[string]host{"par1": lon1, "lon1": par1, "nyc1": lon1}

// delegationPlan is what differs between delegations.
type delegationPlan struct {
	signed  bool
	backend bool // the nodes have a backend zone
	apart   bool // resolvers are near par1 by IPv4, and near nyc1 by IPv6
}

// near returns the prefixes of the resolvers near a node.
func (p delegationPlan) near(node host) string {
	switch {
	case node == par1 && p.apart:
		return resolversIPv4
	case node == par1:
		return resolversIPv4 + " " + resolversIPv6
	case node == nyc1 && p.apart:
		return resolversIPv6
	}
	return ""
}

// referred returns the nodes to which a resolver is referred, by the family of
// its address.
func (p delegationPlan) referred(ipv6 bool) []host {
	if ipv6 && p.apart {
		return []host{lon1, nyc1}
	}
	return []host{lon1, par1}
}

// Corefiles and zones are templates. Sign has a dnssec directive by the name of
// the key, or nothing.

const parentCorefile = `.:53 {
	bind {{.Root.IPv4}} {{.Root.IPv6}}
	{{.Sign.root}}
	file DIR/rootzone
}
example.org:53 {
	bind {{range .DNSAs}} {{.IPv4}} {{.IPv6}}{{end}}
	{{.Sign.example}}
	file DIR/examplezone
}
`

const pairedDNSBCorefile = `gslb.example.org:53 {
	bind {{.Self.IPv4}} {{.Self.IPv6}}
	{{.Sign.gslb}}
	tsig {
		secret node.key. ` + secret + `
	}
	latencyprobe
	dnsb {
{{- range .DNSBs}}
		ns      {{.Label}} {{.IPv4}} {{.IPv6}}
{{- end}}
{{- range .Nodes}}
		accept  node.key. {{.Label}} any for svc ds
{{- end}}
		accept  node.key. fra1 any for other
		default par1
	}
}
`

const nodeCorefile = `svc.gslb.example.org:53 {
	bind {{.Self.IPv4}} {{.Self.IPv6}}
	{{.Sign.svc}}
	tsig {
		secret views.key. ` + secret + `
	}
	latencyprobe {
		rtt tcp 80
	}
	dnslb {
		server   fra {{.Server.IPv4}} {{.Server.IPv6}}
		service  www.svc.gslb.example.org fra
		service  *.wild.svc.gslb.example.org fra
		node     {{.Self.Label}} {{.Self.IPv4}} {{.Self.IPv6}}
		{{with .Near}}near {{.}}{{end}}
		deputy   {{.Deputy.Label}}
		view-key views.key.
		register {{range .DNSBs}} {{.IPv4}}{{end}}
		key      node.key. ` + secret + `
		{{if .Signed}}ds{{end}}
	}
	{{if .Backend}}file DIR/svczone{{end}}
}
`

const addressRecords = `{{define "addresses"}}
{{.Name}} 3600 A    {{.IPv4}}
{{.Name}} 3600 AAAA {{.IPv6}}
{{end}}`

const parentHints = addressRecords + `. 3600 NS {{.Root.Name}}
{{template "addresses" .Root}}`

const parentRootZone = parentHints + `
. 3600 SOA a.root-servers.net. hostmaster.example.org. 1 14400 3600 1209600 300
{{range .DNSAs}}
example.org. 3600 NS {{.Name}}
{{template "addresses" .}}
{{end}}
{{.DS.example}}
{{range .Hosts}}
{{reverse .IPv4}} 3600 PTR {{.Name}}
{{reverse .IPv6}} 3600 PTR {{.Name}}
{{end}}`

const exampleZone = addressRecords + `example.org. 3600 SOA ns1.example.org. hostmaster.example.org. 1 14400 3600 1209600 300
example.org. 3600 MX 0 server.example.org.
{{template "addresses" .Server}}
{{range .DNSAs}}
example.org. 3600 NS {{.Name}}
{{template "addresses" .}}
{{end}}
{{range .DNSBs}}
gslb.example.org. 3600 NS {{.Name}}
{{template "addresses" .}}
{{end}}
{{.DS.gslb}}
`

// backendZone is without the addresses of the services.
const backendZone = `$ORIGIN svc.gslb.example.org.
@ 3600 SOA par1.lb.gslb.example.org. hostmaster.example.org. 1 14400 3600 1209600 300
@ 3600 NS par1.lb.gslb.example.org.
alias 86400 CNAME www
mail 300 MX 10 www
`

// delegation is a chain of zones, from the root over DNS-A and two DNS-Bs to
// three nodes.
type delegation struct {
	system
	nodes map[string]*daemon // by label
}

// startDelegation starts all servers. It waits until each of them names the
// nodes that it should.
func startDelegation(t *testing.T, plan delegationPlan) *delegation {
	t.Helper()
	acceptConnections(t, serverHost.IPv4)
	acceptConnections(t, serverHost.IPv6)
	d := &delegation{nodes: make(map[string]*daemon)}
	keys, sign, ds := make(map[string]string), make(map[string]string), make(map[string]string)
	for name, zone := range map[string]string{"root": ".", "example": "example.org.", "gslb": "gslb.example.org.", "svc": "svc.gslb.example.org."} {
		sign[name], ds[name] = "", ""
		if plan.signed {
			record := testcert.ZoneKey(t, keys, name, zone)
			sign[name], ds[name] = "dnssec {\nkey file DIR/"+name+"\n}", record.String()
			if name == "gslb" {
				d.anchor = record
			}
		}
	}
	values := map[string]any{
		"Root": rootHost, "DNSAs": dnsAHosts, "DNSBs": dnsBHosts, "Nodes": nodeHosts, "Server": serverHost, "Hosts": delegationHosts,
		"Sign": sign, "DS": ds, "Signed": plan.signed, "Backend": plan.backend,
	}
	d.hints = fill(t, parentHints, values)
	start := func(corefile string, zones map[string]string) *daemon {
		files := maps.Clone(keys)
		for name, zone := range zones {
			files[name] = fill(t, zone, values)
		}
		files["Corefile"] = fill(t, corefile, values)
		return run(t, files, binary, "-conf", "DIR/Corefile")
	}
	start(parentCorefile, map[string]string{"rootzone": parentRootZone, "examplezone": exampleZone})
	for _, h := range dnsBHosts {
		values["Self"] = h
		start(pairedDNSBCorefile, nil)
	}
	var serial uint32
	for _, h := range nodeHosts {
		// Without a backend zone, the serial at a node is the time of its start.
		// The serials shall differ.
		wait(t, 5*time.Second, "the next second", func() bool { return time.Now().Unix() > int64(serial) })
		values["Self"], values["Deputy"], values["Near"] = h, deputies[h.Label()], plan.near(h)
		d.nodes[h.Label()] = start(nodeCorefile, map[string]string{"svczone": backendZone})
		serial = awaitSerial(t, h, "svc.gslb.example.org.")
	}
	for _, b := range dnsBHosts {
		awaitSerial(t, b, "gslb.example.org.")
		register(t, b.IPv4, fra1()) // until all nodes are registered, DNS-B answers no NXDOMAIN
		for _, h := range nodeHosts {
			wait(t, time.Minute, h.Name+" to be registered at "+b.Name, func() bool {
				r, err := ask(b.IPv4, h.Name, dns.TypeA)
				return err == nil && len(r.Answer) > 0
			})
		}
	}
	for _, ipv6 := range []bool{false, true} {
		nodes := plan.referred(ipv6)
		for _, h := range slices.Concat(dnsBHosts, nodes) {
			addr := h.IPv4
			if ipv6 {
				addr = h.IPv6
			}
			wait(t, time.Minute, fmt.Sprintf("%s to name %s and %s", addr, nodes[0].Name, nodes[1].Name), func() bool {
				r, err := ask(addr, "svc.gslb.example.org.", dns.TypeNS)
				return err == nil && slices.Equal(nameServers(r), []string{nodes[0].Name, nodes[1].Name})
			})
		}
	}
	return d
}

// serials returns the serials of DNS-B's zone at both DNS-Bs.
func serials(t *testing.T) (first, second uint32) {
	t.Helper()
	return awaitSerial(t, dnsBHosts[0], "gslb.example.org."), awaitSerial(t, dnsBHosts[1], "gslb.example.org.")
}

// changeSecond makes changes at the second DNS-B until its serial is the larger
// one.
func changeSecond(t *testing.T) {
	t.Helper()
	for other := fra1(); ; {
		if first, second := serials(t); first < second {
			return
		}
		other.Addresses[0] = other.Addresses[0].Next()
		register(t, dnsBHosts[1].IPv4, other)
	}
}

// awaitSerial returns the serial of a zone at a host, as soon as it answers.
func awaitSerial(t *testing.T, h host, zone string) (serial uint32) {
	t.Helper()
	wait(t, 20*time.Second, h.Name+" to answer", func() bool {
		r, err := ask(h.IPv4, zone, dns.TypeSOA)
		if err != nil || len(r.Answer) == 0 {
			return false
		}
		soa, ok := r.Answer[0].(*dns.SOA)
		if ok {
			serial = soa.Serial
		}
		return ok
	})
	return serial
}

// nameServers returns the names in the NS records of an answer or a referral,
// sorted.
func nameServers(r *dns.Msg) (names []string) {
	for _, rr := range append(slices.Clone(r.Answer), r.Ns...) {
		if ns, ok := rr.(*dns.NS); ok {
			names = append(names, ns.Ns)
		}
	}
	slices.Sort(names)
	return names
}

// fill executes a template.
func fill(t *testing.T, text string, values map[string]any) string {
	t.Helper()
	tmpl, err := template.New("").Funcs(template.FuncMap{"reverse": dns.ReverseAddr}).Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, values); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
