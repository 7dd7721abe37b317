package widearea

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// surveyNodes have the cities of the nodes of the survey, by label. A server stands
// beside each of them but the one in Paris.
var surveyNodes = map[string]string{"fra1": "Frankfurt", "iad1": "Washington", "nrt1": "Tokyo", "gru1": "SaoPaulo", "par1": "Paris"}

const (
	// liar is the node that reports far too small latencies.
	liar = "gru1"
	// fallback is the node for resolvers of which nothing is known.
	fallback = "iad1"
	// nodeBudget is how many probes a node sends a second. It is less than what
	// nodes would send when they begin to measure each other.
	nodeBudget = 3
)

// stranger is an Internet service provider whose resolver nobody wrote down. It has
// a network, and so a resolver site, of its own.
type stranger struct {
	city     string
	site     netip.Prefix
	kind     resolver
	silent   bool // to pings and to port 53, but for its clients; its router is not
	resolver *Host
	client   *Host
}

// strangers returns the providers: one with IPv4, one with IPv6, one that is silent.
func strangers() []*stranger {
	return []*stranger{
		{city: "Madrid", site: netip.MustParsePrefix("198.18.1.0/24"), kind: bind},
		{city: "Seoul", site: netip.MustParsePrefix("2001:db8:2::/48"), kind: knot},
		{city: "Stockholm", site: netip.MustParsePrefix("198.18.3.0/24"), kind: unbound, silent: true},
	}
}

// crowdSites is how many more networks begin to ask at the same time.
const crowdSites = 8

// surveyLab is the network of a survey.
type surveyLab struct {
	*lab
	strangers []*stranger
	crowd     *Host // with an address in each of the further networks
	observer  *Host // may ask for explanations
	dnsB      *daemon
	wire      *wire
	values    map[string]any // what Corefiles are made of
}

// newSurveyLab starts the network and all programs.
func newSurveyLab(t *testing.T, m *Matrix, program string) *surveyLab {
	t.Helper()
	n, host := newHosts(t, m)
	both := func(name, city string, addr netip.Addr) *Host { return host(name, city, addr, toIPv6(addr)) }

	l := &surveyLab{lab: &lab{Network: n, nodes: make(map[string]*Host), servers: make(map[string]*Host)}, strangers: strangers(), wire: new(wire)}
	root, dnsA := both("root", rootCity, rootAddr), both("DNS-A", dnsACity, dnsAAddr)
	l.observer = dnsA
	l.dnsBs = []*Host{both("DNS-B", dnsBCity, nth(dnsBs, 1))}
	for i, label := range sortedKeys(surveyNodes) {
		h := both("DNS-LB "+label, surveyNodes[label], nth(nodes, i+1))
		l.nodes[label] = h
		l.wire.nodes = append(l.wire.nodes, h.Addrs...)
	}
	for i, city := range serverCities {
		l.servers[city] = both("server in "+city, city, nth(servers, 10*(i+1)))
	}
	for _, s := range l.strangers {
		s.resolver = host("ISP in "+s.city, s.city, nth(s.site, 1))
		s.client = host("client in "+s.city, s.city, nth(s.site, 2))
		l.wire.subjects = append(l.wire.subjects, s.resolver.Addr())
	}
	var addrs []netip.Addr
	for i := range crowdSites {
		addrs = append(addrs, netip.AddrFrom4([4]byte{198, 18, byte(100 + i), 1}))
	}
	l.crowd = host("further networks", "Montreal", addrs...)
	l.wire.subjects = append(l.wire.subjects, addrs...)
	n.Tap(l.wire.see)
	n.Hops()
	n.Start()

	nsd(t, root, map[string]string{".": fill(t, rootZone, root), "org": fill(t, orgZone, map[string]any{"Org": root, "DNSA": dnsA})})
	nsd(t, dnsA, map[string]string{"example.org": fill(t, exampleZone, map[string]any{"DNSA": dnsA, "DNSBs": l.dnsBs, "Names": names})})
	for city, h := range l.servers {
		serve(t, h, city)
	}
	l.startPrograms(t, program)
	for _, s := range l.strangers {
		if s.silent {
			s.silence(t)
		}
		s.kind.start(t, s.resolver, root)
	}
	return l
}

// silence makes a packet filter drop what comes from outside of the network of the
// provider, as many do.
func (s *stranger) silence(t *testing.T) {
	t.Helper()
	err := s.resolver.Do(func() error {
		filter := exec.Command("nft", "-f", "-")
		filter.Stdin = strings.NewReader(fmt.Sprintf(`table ip outside {
	chain input {
		type filter hook input priority 0; policy accept;
		ip saddr %s accept
		icmp type echo-request drop
		udp dport 53 drop
		tcp dport 53 drop
	}
}
`, s.site))
		if out, err := filter.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Expected a packet filter, got %v", err)
	}
}

const surveyDNSBCorefile = dnsBHead + `
{{- range .Nodes}}
		accept {{.Key}} {{.Label}} any for svc.gslb.example.org survey
{{- end}}
		default {{.Fallback}}
		survey {{.Survey}}
		store   db DIR/store
		explain {{.Observer.Addr}}/32
	}
	errors
}
`

const surveyNodeCorefile = `svc.gslb.example.org {
	bind {{range .Node.Addrs}} {{.}}{{end}}
	latencyprobe {
		rtt      icmp
		interval {{.Interval}}
		timeout  {{.Timeout}}
	}
	dnslb {
{{- range .Servers}}
		server {{.Label}} {{range .Addrs}} {{.}}{{end}} beside {{.Label}}1
{{- end}}
{{- range .Names}}
		service {{.}}.svc.gslb.example.org {{range $.Servers}} {{.Label}}{{end}}
{{- end}}
		ttl      2s {{.TTL}}

		node     {{.Node.Label}} {{range .Node.Addrs}} {{.}}{{end}}
		register {{range .DNSBs}} {{.Addr}}{{end}}
		key      {{.Node.Key}} {{.Node.Secret}}
{{- if .Honest}}
		survey budget {{.NodeBudget}}
{{- end}}
		explain {{.Observer.Addr}}/32
	}
	errors
}
`

// startPrograms starts DNS-B and the nodes, and a liar in place of the survey of one
// of them.
func (l *surveyLab) startPrograms(t *testing.T, program string) {
	t.Helper()
	var all, servers []machine
	for _, label := range sortedKeys(surveyNodes) {
		all = append(all, machine{Label: label, Addrs: l.nodes[label].Addrs, Key: label + ".key.example.org", Secret: newSecret()})
	}
	for _, city := range serverCities {
		servers = append(servers, machine{Label: labels[city], Addrs: l.servers[city].Addrs})
	}
	l.values = map[string]any{
		"Self": l.dnsBs[0], "DNSBs": l.dnsBs, "Nodes": all, "Servers": servers, "Names": names, "Interval": interval, "Timeout": timeout, "TTL": answerTTL,
		"Fallback": fallback, "Survey": "", "Observer": l.observer, "NodeBudget": nodeBudget,
	}
	l.dnsB = run(t, l.dnsBs[0], map[string]string{"Corefile": fill(t, surveyDNSBCorefile, l.values)}, program, "-conf", "DIR/Corefile")
	for _, n := range all {
		l.values["Node"], l.values["Honest"] = n, n.Label != liar
		d := run(t, l.nodes[n.Label], map[string]string{"Corefile": fill(t, surveyNodeCorefile, l.values)}, program, "-conf", "DIR/Corefile")
		// What nodes measure once and for a day must be the network, not how busy this
		// machine is: they get the priority of the router.
		if err := unix.Setpriority(unix.PRIO_PGRP, d.process().cmd.Process.Pid, nice); err != nil {
			t.Fatalf("Expected a priority for %s, got %v", d.name, err)
		}
		if n.Label == liar {
			go l.lie(t.Context(), n)
		}
	}
}

// restartDNSB kills DNS-B, and starts it with another 'survey' line.
func (l *surveyLab) restartDNSB(t *testing.T, survey string) {
	t.Helper()
	l.dnsB.kill()
	l.values["Survey"] = survey
	text := strings.ReplaceAll(fill(t, surveyDNSBCorefile, l.values), "DIR", l.dnsB.dir)
	if err := os.WriteFile(filepath.Join(l.dnsB.dir, "Corefile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.dnsB.start(t); err != nil {
		t.Fatal(err)
	}
}

// lie takes part in the survey as a node does, but reports a tenth of a millisecond
// for whatever it is asked to measure, until ctx ends.
func (l *surveyLab) lie(ctx context.Context, n machine) {
	const zone = "gslb.example.org."
	exchange := func(m *dns.Msg) (*dns.Msg, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		conn, err := l.nodes[n.Label].Dial(ctx, "tcp", netip.AddrPortFrom(l.dnsBs[0].Addr(), 53))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		m.SetTsig(n.Key+".", dns.HmacSHA256, 300, time.Now().Unix())
		client := dns.Client{Timeout: patience, TsigSecret: map[string]string{n.Key + ".": n.Secret}}
		r, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: conn})
		return r, err
	}
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		r, err := exchange(new(dns.Msg).SetQuestion(surveymsg.NodeName(n.Label, zone), dns.TypeTXT))
		if err != nil {
			continue
		}
		work, err := surveymsg.ParseWork(r.Answer)
		if err != nil || len(work.Targets) == 0 {
			continue
		}
		var results []surveymsg.Result
		for _, target := range work.Targets {
			results = append(results, surveymsg.Result{Address: target.Address, RTT: 0.1, Method: surveymsg.ICMP})
		}
		_, _ = exchange(surveymsg.Report(n.Label, zone, results))
	}
}

// explain asks DNS-B or a node for an explanation, of the referral or the answer of an
// address if that is valid.
func (l *surveyLab) explain(server *Host, name string, about netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := l.observer.Dial(ctx, "tcp", netip.AddrPortFrom(server.Addr(), 53))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	if about.IsValid() {
		m.SetEdns0(4096, false)
		subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: about.AsSlice()}
		if about.Is6() {
			subnet.Family, subnet.SourceNetmask = 2, 128
		}
		m.IsEdns0().Option = []dns.EDNS0{subnet}
	}
	client := dns.Client{Timeout: patience}
	r, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: conn})
	if err != nil {
		return "", err
	}
	var lines []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			lines = append(lines, strings.Join(txt.Txt, ""))
		}
	}
	return strings.Join(lines, "\n"), nil
}

// referral is the explanation of the referral of a resolver.
func (l *surveyLab) referral(addr netip.Addr) string {
	text, err := l.explain(l.dnsBs[0], "_explain.svc.gslb.example.org.", addr)
	if err != nil {
		return err.Error()
	}
	return text
}

// answer is the explanation of the answer that a node has for a resolver.
func (l *surveyLab) answer(node string, addr netip.Addr) string {
	text, err := l.explain(l.nodes[node], "_explain."+names[0]+".svc.gslb.example.org.", addr)
	if err != nil {
		return err.Error()
	}
	return text
}

// state is the explanation of the survey.
func (l *surveyLab) state() string {
	text, err := l.explain(l.dnsBs[0], "survey._explain.gslb.example.org.", netip.Addr{})
	if err != nil {
		return err.Error()
	}
	return text
}

// lookUp has the client of a provider ask its resolver for a service, and returns
// the city of the server, or a failure.
func (l *surveyLab) lookUp(s *stranger) string {
	qtype := dns.TypeA
	if s.client.Addr().Is6() {
		qtype = dns.TypeAAAA
	}
	reply, _, err := ask(s.client, s.resolver.Addr(), names[0]+".example.org.", qtype, true, patience)
	if err != nil {
		return noReply
	}
	found := addresses(reply)
	if len(found) != 1 {
		return dns.RcodeToString[reply.Rcode]
	}
	for city, h := range l.servers {
		if slices.Contains(h.Addrs, found[0]) {
			return city
		}
	}
	return found[0].String()
}

// crowdAsks has each of the further networks ask DNS-B once.
func (l *surveyLab) crowdAsks() {
	for _, addr := range l.crowd.Addrs {
		_, _, _ = askFrom(l.crowd, net.IP(addr.AsSlice()), l.dnsBs[0].Addr(), "www.svc.gslb.example.org.", dns.TypeA, false, patience)
	}
}
