package widearea

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
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

const dnsBCorefile = `gslb.example.org {
	bind {{range .DNSB.Addrs}} {{.}}{{end}}
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
		ns b1 {{range .DNSB.Addrs}} {{.}}{{end}}
{{- range .Nodes}}
		accept {{.Key}} {{.Label}} {{.Near}} for svc.gslb.example.org
{{- end}}
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
	}
	dnslb {
{{- range .Servers}}
		server   {{.Label}} {{range .Addrs}} {{.}}{{end}}
{{- end}}
{{- range $name := .Names}}
		service  {{$name}}.svc.gslb.example.org {{range $.Servers}} {{.Label}}{{end}}
{{- end}}
		ttl      2s {{.TTL}}

		node     {{.Node.Label}} {{range .Node.Addrs}} {{.}}{{end}}
		near     {{.Node.Near}}
		deputy   {{.Node.Deputy}}
		view-key views.key.example.org
		register {{.DNSB.Addr}}
		key      {{.Node.Key}} {{.Node.Secret}}
	}
	prometheus {{index .Node.Addrs 0}}:9153
	errors
}
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

// startSystem starts DNS-B and the DNS-LBs. Each DNS-LB registers the prefixes
// of the ISPs that it is nearest to, and the covering one a prefix of all ISPs.
func (l *lab) startSystem(t *testing.T, program string, m *Matrix) {
	t.Helper()
	values := map[string]any{"DNSB": l.dnsB, "Interval": interval, "Timeout": timeout, "TTL": answerTTL, "Names": names, "ViewSecret": newSecret()}
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

	run(t, l.dnsB, map[string]string{"Corefile": fill(t, dnsBCorefile, values)}, program, "-conf", "DIR/Corefile")
	for i, city := range nodeCities {
		values["Node"] = nodes[i]
		run(t, l.nodes[city], map[string]string{"Corefile": fill(t, dnsLBCorefile, values)}, program, "-conf", "DIR/Corefile")
	}
}

// metric returns the value of the first sample of a DNS-LB with this prefix.
func (l *lab) metric(t *testing.T, city, prefix string) float64 {
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
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				t.Fatalf("Expected a number, got %v", err)
			}
			return value
		}
	}
	t.Fatalf("Expected %s to have a metric %s, got none", h.Name, prefix)
	return 0
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
// differ between the addresses of DNS-B, they are joined by "or".
func (l *lab) referral(i *isp) (string, error) {
	var nodes []string
	for _, addr := range l.dnsB.Addrs {
		node, err := l.referralFrom(i, addr)
		if err != nil {
			return "", err
		}
		nodes = append(nodes, node)
	}
	return strings.Join(slices.Compact(nodes), " or "), nil
}

func (l *lab) referralFrom(i *isp, addr netip.Addr) (string, error) {
	reply, _, err := ask(i.resolver, addr, "www.svc.gslb.example.org.", dns.TypeA, false, 2*time.Second)
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
