package widearea

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
)

// publicCity has the public resolvers, which all clients use.
const publicCity = "Amsterdam"

// cut is a zone that all nodes serve, each in a server block of its own.
type cut struct {
	Name    string // label below gslb.example.org
	Subnets bool   // the server blocks have 'client-subnets'
	Signed  bool   // they have 'dnssec'
}

const (
	without  = "plain" // a cut without client subnets
	with     = "svc"   // one with them
	withSigs = "safe"  // one with them, and signed
)

// threeCuts returns one of each kind.
func threeCuts() []cut {
	return []cut{{Name: without}, {Name: with, Subnets: true}, {Name: withSigs, Subnets: true, Signed: true}}
}

// subnetClient is a client of the public resolvers, in a subnet of its own.
type subnetClient struct {
	*Host
	prefix netip.Prefix // of the subnet
	length int          // of the client subnet that resolvers send
	near   string       // city of the node that DNS-B has for the subnet
}

// qtype is the type of the addresses that the client can use.
func (c *subnetClient) qtype() uint16 {
	if c.Addr().Is6() {
		return dns.TypeAAAA
	}
	return dns.TypeA
}

// subnetLab is the network with public resolvers.
type subnetLab struct {
	*lab
	program  string
	cuts     []cut
	public   []*publicResolver
	clients  []*subnetClient
	moving   *subnetClient // whose node the operator corrects during the test
	anchor   *dns.DS
	dnsB     *daemon
	programs map[string]*daemon        // DNS-LBs, by city
	blocks   map[string][]*subnetBlock // their server blocks
	values   map[string]any            // what all Corefiles are made of, besides
}

// publicResolver is a resolver in publicCity.
type publicResolver struct {
	*Host
	resolver
	subnets bool // it sends client subnets to the nodes
}

// publicPrefix has the public resolvers.
var publicPrefix = netip.PrefixFrom(nth(isps, 16*len(ispCities)), 28)

// subnetLength is the length of the client subnets that the public resolvers send
// for IPv4. All clients are in one /24, so it is not the usual 24.
const subnetLength = 28

// publicResolvers are the kinds of resolvers, with validation, both families, and
// client subnets where they have them. NODES are the addresses of the nodes, and
// ANCHOR, TAG and DIGEST are of the key of gslb.example.org.
var publicResolvers = []struct {
	resolver
	subnets bool
	changes []string // pairs
}{
	{unbound, true, []string{
		"interface: {{.Addr}}", "interface: {{index .Addrs 0}}\n\tinterface: {{index .Addrs 1}}",
		"access-control: 0.0.0.0/0 allow", "access-control: 0.0.0.0/0 allow\n\taccess-control: ::/0 allow",
		`module-config: "iterator"`, `module-config: "subnetcache validator iterator"
	send-client-subnet: NODES4
	send-client-subnet: NODES6
	max-client-subnet-ipv4: 28
	trust-anchor: "gslb.example.org. DS TAG 13 2 DIGEST"`,
	}},
	{powerDNS, true, []string{
		"local-address={{.Addr}}", "local-address={{index .Addrs 0}}, {{index .Addrs 1}}",
		"allow-from=0.0.0.0/0", "allow-from=0.0.0.0/0, ::/0\nedns-subnet-allow-list=NODES4, NODES6\necs-ipv4-bits=28\necs-ipv4-cache-bits=28",
		"dnssec=off", "dnssec=validate\nlua-config-file=DIR/lua",
	}},
	{bind, false, []string{
		"listen-on-v6 { none; }", "listen-on-v6 { any; }",
		"dnssec-validation no;\n};", "dnssec-validation yes;\n};\ntrust-anchors { gslb.example.org static-ds TAG 13 2 \"DIGEST\"; };",
	}},
	{knot, false, []string{
		"net.listen('{{.Addr}}', 53, { kind = 'dns' })", "net.listen('{{index .Addrs 0}}', 53, { kind = 'dns' })\nnet.listen('{{index .Addrs 1}}', 53, { kind = 'dns' })",
		"trust_anchors.remove('.')", "trust_anchors.remove('.')\ntrust_anchors.add('gslb.example.org. DS TAG 13 2 DIGEST')",
	}},
}

// newSubnetLab starts the network and all programs but the public resolvers.
func newSubnetLab(t *testing.T, m *Matrix, program string, cuts []cut) *subnetLab {
	t.Helper()
	n, host := newHosts(t, m)
	both := func(four ...netip.Addr) (addrs []netip.Addr) {
		for _, addr := range four {
			addrs = append(addrs, addr, toIPv6(addr))
		}
		return addrs
	}

	l := &subnetLab{
		lab:      &lab{Network: n, nodes: make(map[string]*Host), servers: make(map[string]*Host)},
		program:  program,
		cuts:     cuts,
		programs: make(map[string]*daemon), blocks: make(map[string][]*subnetBlock),
	}
	root, dnsA := host("root", rootCity, both(rootAddr)...), host("DNS-A", dnsACity, both(dnsAAddr)...)
	l.dnsBs = []*Host{host("DNS-B", dnsBCity, both(nth(dnsBs, 1))...)}
	for i, city := range nodeCities { // an address for each cut
		first := 1 + len(cuts)*i
		l.nodes[city] = host("DNS-LB in "+city, city, both(nth(nodes, first), nth(nodes, first+1), nth(nodes, first+2))...)
	}
	for i, city := range serverCities {
		l.servers[city] = host("server in "+city, city, both(nth(servers, 10*(i+1)))...)
	}
	for i, r := range publicResolvers {
		l.public = append(l.public, &publicResolver{host("public "+r.name, publicCity, both(nth(publicPrefix, i+1))...), r.resolver, r.subnets})
	}
	for i, city := range []string{"Paris", "Stockholm", "NewYork", "Montreal", "Osaka", "Seoul"} {
		c := &subnetClient{prefix: netip.PrefixFrom(nth(isps, 16*i), 28), length: subnetLength}
		if i%2 == 1 {
			c.prefix, c.length = netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/48", i)), 56
		}
		c.near, _ = m.Nearest(city, nodeCities)
		c.Host = host("client in "+city, city, nth(c.prefix, 2))
		l.clients = append(l.clients, c)
	}
	// Nobody has registered this one, so it gets the node that covers all.
	l.moving = &subnetClient{prefix: netip.PrefixFrom(nth(isps, 16*15), 28), length: subnetLength, near: covering}
	l.moving.Host = host("moving client in Seoul", "Seoul", nth(l.moving.prefix, 2))
	l.clients = append(l.clients, l.moving)
	n.Start()

	nsd(t, root, map[string]string{".": fill(t, rootZone, root), "org": fill(t, orgZone, map[string]any{"Org": root, "DNSA": dnsA})})
	nsd(t, dnsA, map[string]string{"example.org": fill(t, exampleZone, map[string]any{"DNSA": dnsA, "DNSBs": l.dnsBs, "Names": names})})
	for city, h := range l.servers {
		serve(t, h, city)
	}
	l.startPrograms(t, m)
	l.startResolvers(t, root)
	return l
}

const signingDNSBCorefile = `gslb.example.org {
	bind {{range .DNSB.Addrs}} {{.}}{{end}}
	tsig {
{{- range .Blocks}}
		secret {{.Key}} {{.Secret}}
{{- end}}
	}
	dnssec {
		key file DIR/gslb
	}
	latencyprobe {
		interval {{.Interval}}
		timeout  {{.Timeout}}
	}
	dnsb {
		ns b0 {{range .DNSB.Addrs}} {{.}}{{end}}
{{- range .Blocks}}
		accept {{.Key}} {{.Label}} {{.Near}} for {{.Cut.Name}} {{if .Cut.Signed}}ds{{end}}
{{- end}}
		map   DIR/map
		store db DIR/store
	}
	errors
}
`

const subnetCorefile = `{{range .Blocks}}{{.Cut.Name}}.gslb.example.org {
	bind {{range .Addrs}} {{.}}{{end}}
	tsig {
		secret views.key.example.org {{$.ViewSecret}}
	}
{{- if .Cut.Signed}}
	dnssec {
		key file DIR/safe
	}
{{- end}}
	latencyprobe {
		rtt      icmp
		interval {{$.Interval}}
		timeout  {{$.Timeout}}
	}
	dnslb {
{{- range $.Servers}}
		server {{.Label}} {{range .Addrs}} {{.}}{{end}}
{{- end}}
		service www.{{.Cut.Name}}.gslb.example.org {{range $.Servers}} {{.Label}}{{end}}
		ttl      2s {{$.TTL}}

		node     {{.Label}} {{range .Addrs}} {{.}}{{end}}
		near     {{.Near}}
		deputy   {{.Deputy}}
		view-key views.key.example.org
		register {{$.DNSB.Addr}}
		key      {{.Key}} {{.Secret}}
{{- if .Cut.Signed}}
		ds
{{- end}}
{{- if .Cut.Subnets}}
		client-subnets
{{- end}}
	}
	errors
}
{{end}}`

// subnetBlock is the server block of one cut at one node.
type subnetBlock struct {
	machine
	Cut cut
}

// startPrograms starts DNS-B and the DNS-LBs. Each DNS-LB registers the subnets of
// the clients that it is nearest to, and that of the public resolvers.
func (l *subnetLab) startPrograms(t *testing.T, m *Matrix) {
	t.Helper()
	near := map[string][]string{covering: bothFamilies(isps)}
	for _, c := range l.clients {
		if c != l.moving {
			near[c.near] = append(near[c.near], c.prefix.String())
		}
	}
	nearest, _ := m.Nearest(publicCity, nodeCities)
	near[nearest] = append(near[nearest], bothFamilies(publicPrefix)...)

	var servers []machine
	for _, city := range serverCities {
		servers = append(servers, machine{Label: labels[city], Addrs: l.servers[city].Addrs})
	}
	l.values = map[string]any{"DNSB": l.dnsBs[0], "Servers": servers, "Interval": interval, "Timeout": timeout, "TTL": answerTTL, "ViewSecret": newSecret()}
	files := make(map[string]string)
	l.anchor = testcert.ZoneKey(t, files, "gslb", "gslb.example.org.")
	testcert.ZoneKey(t, files, "safe", withSigs+".gslb.example.org.")

	var all []*subnetBlock
	for _, city := range nodeCities {
		for i, c := range l.cuts {
			label := labels[city] + "-" + c.Name
			l.blocks[city] = append(l.blocks[city], &subnetBlock{machine{
				Label: label, Addrs: l.nodes[city].Addrs[2*i : 2*i+2], Near: strings.Join(near[city], " "),
				Deputy: labels[deputies[city]] + "-" + c.Name, Key: label + ".key.example.org", Secret: newSecret(),
			}, c})
		}
		all = append(all, l.blocks[city]...)
	}
	files["map"], files["Corefile"] = subnetMapFile, l.corefile(t, signingDNSBCorefile, all)
	l.dnsB = run(t, l.dnsBs[0], files, l.program, "-conf", "DIR/Corefile")
	for _, city := range nodeCities {
		files["Corefile"] = l.corefile(t, subnetCorefile, l.blocks[city])
		l.programs[city] = run(t, l.nodes[city], files, l.program, "-conf", "DIR/Corefile")
	}
}

// corefile returns a Corefile with, or about, these server blocks.
func (l *subnetLab) corefile(t *testing.T, text string, blocks []*subnetBlock) string {
	t.Helper()
	l.values["Blocks"] = blocks
	return fill(t, text, l.values)
}

func (l *subnetLab) startResolvers(t *testing.T, root *Host) {
	t.Helper()
	tag, digest := fmt.Sprint(l.anchor.KeyTag), strings.ToUpper(l.anchor.Digest)
	addresses := bothFamilies(nodes)
	for i, p := range l.public {
		changes := publicResolvers[i].changes
		for j := 0; j < len(changes); j += 2 {
			if !strings.Contains(p.config, changes[j]) {
				t.Fatalf("Expected %q in the configuration of %s", changes[j], p.name)
			}
			p.config = strings.Replace(p.config, changes[j], changes[j+1], 1)
		}
		p.config = strings.NewReplacer("NODES4", addresses[0], "NODES6", addresses[1], "TAG", tag, "DIGEST", digest).Replace(p.config)
		p.files = map[string]string{"lua": fmt.Sprintf("clearTA()\naddTA('gslb.example.org', '%s 13 2 %s')\n", tag, digest)}
		p.start(t, p.Host, root)
	}
}

// subnetOf returns the option with which a resolver sends the subnet of a client.
func (c *subnetClient) subnetOf() func(*dns.Msg) {
	family := uint16(1)
	if c.Addr().Is6() {
		family = 2
	}
	prefix := netip.PrefixFrom(c.Addr(), c.length).Masked()
	return func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{
			Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(c.length), Address: prefix.Addr().AsSlice(), // #nosec G115 -- at most 56
		}}
	}
}

// answer is what a client got for a service.
type answer struct {
	city   string // of the server, or a failure
	ok     bool   // it has an address
	secure bool   // the AD bit
}

// lookUp has a host ask another one for the service of a cut.
func (l *subnetLab) lookUp(from *Host, to netip.Addr, cut string, qtype uint16, recurse bool, edit ...func(*dns.Msg)) answer {
	reply, _, err := ask(from, to, "www."+cut+".gslb.example.org.", qtype, recurse, patience, edit...)
	if err != nil {
		return answer{city: noReply}
	}
	found := addresses(reply)
	if len(found) != 1 {
		return answer{city: dns.RcodeToString[reply.Rcode]}
	}
	for city, h := range l.servers {
		if slices.Contains(h.Addrs, found[0]) {
			return answer{city, true, reply.AuthenticatedData}
		}
	}
	return answer{city: found[0].String()}
}

// addrFor returns the address of a host of the family of the client.
func (c *subnetClient) addrFor(h *Host) netip.Addr {
	i := slices.IndexFunc(h.Addrs, func(addr netip.Addr) bool { return addr.Is6() == c.Addr().Is6() })
	return h.Addrs[i]
}

// awaitNodes waits until each node answers each client subnet, and each of its
// cuts, as it should. Resolvers are asked after that.
func (l *subnetLab) awaitNodes(t *testing.T, want func(c *subnetClient, subnets bool) string, deadline time.Time) {
	t.Helper()
	nearest, _ := l.Matrix().Nearest(publicCity, nodeCities)
	for _, city := range nodeCities {
		for i, cut := range l.cuts {
			to := l.nodes[city].Addrs[2*i]
			for _, c := range l.clients {
				edit := c.subnetOf()
				if !cut.Subnets {
					if city != nearest && city != deputies[nearest] {
						continue // never asked by these resolvers
					}
					edit = func(*dns.Msg) {}
				}
				for {
					got := l.lookUp(l.public[0].Host, to, cut.Name, c.qtype(), false, edit)
					if got.city == want(c, cut.Subnets) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("Expected the node in %s to answer %s for the %s in time, got %s for %s", city, want(c, cut.Subnets), c.Name, got.city, cut.Name)
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
		}
	}
}

// authenticate has a resolver say whether its answer is secure.
func authenticate(m *dns.Msg) { m.AuthenticatedData = true }

// awaitResolvers waits until the resolvers answer for other names, and say that
// they are secure. PowerDNS Recursor does not say that of the first name below the
// trust anchor, because this root is not signed.
func (l *subnetLab) awaitResolvers(t *testing.T, deadline time.Time) {
	t.Helper()
	for _, p := range l.public {
		for attempt := 0; ; attempt++ {
			reply, _, err := ask(l.clients[0].Host, p.Addr(), fmt.Sprintf("try%d.gslb.example.org.", attempt), dns.TypeTXT, true, patience, authenticate)
			if err == nil && reply.AuthenticatedData {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("Expected %s to validate in time, got %v, %v", p.name, reply, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// subnetMapFile is the map file of DNS-B.
var subnetMapFile = strings.ReplaceAll(mapFile, labels["Paris"], labels["Paris"]+"-"+without)
