package widearea

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Labels of nodes and servers in the Corefiles.
var labels = map[string]string{
	"Paris": "par1", "NewYork": "nyc1", "Osaka": "kix1",
	"Frankfurt": "fra", "Washington": "iad", "Tokyo": "nrt", "SaoPaulo": "gru",
}

// methods are the probe methods of the DNS-LBs, one for each: an address is
// probed once a second by all methods together.
var methods = map[string]string{"Paris": "icmp", "NewYork": "tcp 80", "Osaka": "http://www.example.org/"}

// covering is the node with a registered prefix that covers all ISPs: DNS-B
// refers to it if a nearest node is dead and has no live deputy.
const covering = "NewYork"

// deputies has the deputy of each node.
var deputies = map[string]string{"Paris": "Osaka", "NewYork": "Paris", "Osaka": "NewYork"}

// repository is the root of the repository.
const repository = "../.."

// build compiles the program, with the race detector if this test has it.
func build(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "coredns-dnslb")
	args := []string{"build", "-o", name}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	// The sources are inputs of this test: go test must not reuse a cached
	// result after a change.
	if err := filepath.WalkDir(repository, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".git") {
			return filepath.SkipDir
		}
		return err
	}); err != nil {
		t.Fatalf("Expected to read the sources, got error: %v", err)
	}
	compile := exec.Command("go", append(args, ".")...)
	compile.Dir = repository
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("Expected to build the program, got error: %v: %s", err, out)
	}
	return name
}

// dnsBHead begins the Corefile of a DNS-B, up to the options of *dnsb*.
const dnsBHead = `gslb.example.org {
	bind {{range .Self.Addrs}} {{.}}{{end}}
	tsig {
{{- range .Nodes}}
		secret {{.Key}} {{.Secret}}
{{- end}}
	}
	latencyprobe {
		interval {{.Interval}}
		timeout  {{.Timeout}}
	}
	dnsb {
{{- range $i, $host := .DNSBs}}
		ns b{{$i}} {{range .Addrs}} {{.}}{{end}}
{{- end}}
`

const dnsBCorefile = dnsBHead + `
{{- range .Nodes}}
		accept {{.Key}} {{.Label}} {{.Near}} for svc.gslb.example.org
{{- end}}
		map   DIR/map
		admin DIR/admin
		ttl   {{.ReferralTTL}}
{{- with .Etcd}}
		store etcd http://{{.Addr}}:2379
{{- end}}
		{{.FastPath}}
	}
	errors
}
`

const dnsLBCorefile = `svc.gslb.example.org {
	bind {{range .Node.Addrs}} {{.}}{{end}}
	tsig {
		secret views.key.example.org {{.ViewSecret}}
	}
	latencyprobe {
		rtt      {{.Node.Method}}
		interval {{.Interval}}
		timeout  {{.Timeout}}
		source   {{range .Node.Addrs}} {{.}}{{end}}
		state    DIR/state
	}
	dnslb {
		services DIR/services
		admin    DIR/admin
		ttl      2s {{.TTL}}

		node     {{.Node.Label}} {{range .Node.Addrs}} {{.}}{{end}}
		near     DIR/near
		deputy   {{.Node.Deputy}}
		view-key views.key.example.org
		register {{range .DNSBs}} {{.Addr}}{{end}}
		key      {{.Node.Key}} {{.Node.Secret}}
		{{.FastPath}}
	}
	prometheus {{index .Node.Addrs 0}}:9153
	errors
}
`

const servicesFile = `{{- range .Servers}}
server  {{.Label}} {{range .Addrs}} {{.}}{{end}}
{{- end}}
{{- range $name := .Names}}
service {{$name}}.svc.gslb.example.org {{range $.Servers}} {{.Label}}{{end}}
{{- end}}
`

// mapFile has the servers, which ask nobody: in so many prefixes that a few
// more or less are no loss of half of the map.
const mapFile = `203.0.113.0/27   par1
203.0.113.32/27  par1
203.0.113.64/27  par1
203.0.113.96/27  par1
203.0.113.128/27 par1
203.0.113.160/27 par1
203.0.113.192/27 par1
203.0.113.224/27 par1
`

// machine is a node or a server in a Corefile.
type machine struct {
	Label       string
	Addrs       []netip.Addr
	Near        string // prefixes of the ISPs near a node
	Method      string // probe method of a node
	Deputy      string // label of the deputy of a node
	Key, Secret string
}

// system is the programs of this project, and etcd.
type system struct {
	etcd  *daemon // nil without etcd
	dnsBs []*daemon
	nodes map[string]*daemon // by city
}

// startSystem starts etcd, the DNS-Bs and the DNS-LBs. Each DNS-LB registers
// the prefixes of the ISPs that it is nearest to, and the covering one a prefix
// of all ISPs.
func (l *lab) startSystem(t *testing.T, program string, m *Matrix, referralTTL time.Duration) *system {
	t.Helper()
	values := map[string]any{
		"DNSBs": l.dnsBs, "Etcd": l.etcd, "Interval": interval, "Timeout": timeout, "TTL": answerTTL, "ReferralTTL": referralTTL,
		"Names": names, "ViewSecret": newSecret(), "FastPath": l.fastPath,
	}
	var nodes, servers []machine
	for _, i := range l.isps {
		i.node, _ = m.Nearest(i.city, nodeCities)
	}
	for _, city := range nodeCities {
		var near []string
		if city == covering {
			near = append(near, bothFamilies(isps)...)
		}
		for _, i := range l.isps {
			if i.node == city {
				near = append(near, bothFamilies(i.prefix)...)
			}
		}
		nodes = append(nodes, machine{
			Label: labels[city], Addrs: l.nodes[city].Addrs, Near: strings.Join(near, " "), Method: methods[city],
			Deputy: labels[deputies[city]], Key: labels[city] + ".key.example.org", Secret: newSecret(),
		})
	}
	for _, city := range serverCities {
		servers = append(servers, machine{Label: labels[city], Addrs: l.servers[city].Addrs})
	}
	values["Nodes"], values["Servers"] = nodes, servers

	s := &system{nodes: make(map[string]*daemon)}
	if l.etcd != nil {
		s.etcd = startEtcd(t, l.etcd)
	}
	for _, h := range l.dnsBs {
		values["Self"] = h
		s.dnsBs = append(s.dnsBs, run(t, h, map[string]string{"Corefile": fill(t, dnsBCorefile, values), "map": mapFile}, program, "-conf", "DIR/Corefile"))
	}
	services := fill(t, servicesFile, values)
	for i, city := range nodeCities {
		values["Node"] = nodes[i]
		near := strings.ReplaceAll(nodes[i].Near, " ", "\n") + "\n"
		s.nodes[city] = run(t, l.nodes[city], map[string]string{"Corefile": fill(t, dnsLBCorefile, values), "services": services, "near": near},
			program, "-conf", "DIR/Corefile")
	}
	return s
}

// startEtcd starts etcd on a host.
func startEtcd(t *testing.T, h *Host) *daemon {
	t.Helper()
	client, peer := fmt.Sprintf("http://%s:2379", h.Addr()), fmt.Sprintf("http://%s:2380", h.Addr())
	return run(t, h, nil, "etcd", "--data-dir", "DIR/data", "--name", "one", "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one="+peer)
}

// metric returns the value of the first sample of a DNS-LB with this prefix.
func (l *lab) metric(t *testing.T, city, prefix string) float64 {
	t.Helper()
	_, after, ok := strings.Cut("\n"+l.metrics(t, city), "\n"+prefix)
	if !ok {
		t.Fatalf("Expected the DNS-LB in %s to have a metric %s, got none", city, prefix)
	}
	line, _, _ := strings.Cut(after, "\n")
	value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
	if err != nil {
		t.Fatalf("Expected a number, got %v", err)
	}
	return value
}

// answersByFastPath reports whether the fast path of a DNS-LB has answered a query.
func (l *lab) answersByFastPath(t *testing.T, city string) bool {
	t.Helper()
	const name = `coredns_fastpath_queries_total{result="answered"`
	return strings.Contains(l.metrics(t, city), name) && l.metric(t, city, name) > 0
}

// metrics returns those of a DNS-LB.
func (l *lab) metrics(t *testing.T, city string) string {
	t.Helper()
	h := l.nodes[city]
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.Dial(ctx, network, netip.AddrPortFrom(h.Addr(), 9153))
	}}}
	reply, err := client.Get("http://metrics.example.org/metrics")
	if err != nil {
		t.Fatalf("Expected the metrics of %s, got %v", h.Name, err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatalf("Expected the metrics of %s, got %v", h.Name, err)
	}
	return string(text)
}

// newSecret returns a random secret for a TSIG key.
func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return base64.StdEncoding.EncodeToString(secret)
}

// awaitReferrals waits until DNS-B refers each resolver to its nearest node.
// Clients start after that: a resolver would cache the failure of a DNS-B
// without nodes for up to a minute.
func (l *lab) awaitReferrals(t *testing.T, deadline time.Time) {
	t.Helper()
	for _, i := range l.isps {
		for {
			node, err := l.referral(i)
			if first, _, _ := strings.Cut(node, " "); err == nil && first == labels[i.node] {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("Expected DNS-B to refer the resolver in %s to %s in time, got '%s', %v", i.city, labels[i.node], node, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// referral returns the nodes in the referral of the resolver of an ISP. If they
// differ between the addresses of the DNS-Bs, they are joined by "or".
func (l *lab) referral(i *isp) (string, error) {
	var nodes []string
	for _, h := range l.dnsBs {
		for _, addr := range h.Addrs {
			node, err := l.referralFrom(i, addr)
			if err != nil {
				return "", err
			}
			nodes = append(nodes, node)
		}
	}
	return strings.Join(slices.Compact(nodes), " or "), nil
}

func (l *lab) referralFrom(i *isp, addr netip.Addr) (string, error) {
	var reply *dns.Msg
	var err error
	for range 3 { // as resolvers do
		if reply, _, err = ask(i.resolver, addr, "www.svc.gslb.example.org.", dns.TypeA, false, 2*time.Second); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	var found []string
	for _, rr := range reply.Ns {
		if ns, ok := rr.(*dns.NS); ok && !reply.Authoritative {
			label, _, _ := strings.Cut(ns.Ns, ".")
			found = append(found, label)
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("expected a referral, got %s", dns.RcodeToString[reply.Rcode])
	}
	return strings.Join(found, " "), nil
}
