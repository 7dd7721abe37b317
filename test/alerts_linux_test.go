package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const alertKey = "dGhlIGtleSBvZiB0aGUgYWxlcnRz"

// alertsDNSB refers to par1, which is up, and to dead1 and dead2, which are not.
// new1 and old1 differ in client subnets. mute1 registers and fetches no overrides.
const alertsDNSB = `gslb.example.org:PORT {
	bind 127.0.0.1
	tsig {
		secret par1.key. dGhlIGtleSBvZiB0aGUgYWxlcnRz
	}
	latencyprobe {
		interval 1s
	}
	dnsb {
		ns b1 127.0.0.1
		accept par1.key. par1 10.0.0.0/8 for svc.gslb.example.org
		node dead1 127.0.0.77
		cut svc dead1
		map MAP
	}
	prometheus 127.0.0.1:METRICS
}
other.example.org:PORT {
	bind 127.0.0.1
	tsig {
		secret par1.key. dGhlIGtleSBvZiB0aGUgYWxlcnRz
	}
	latencyprobe {
		interval 1s
	}
	dnsb {
		ns b1 127.0.0.1
		accept par1.key. par2 any
		node dead2 127.0.0.78
		cut svc dead2
		store etcd http://127.0.0.1:1
	}
	prometheus 127.0.0.1:METRICS
}
mixed.example.org:PORT {
	bind 127.0.0.1
	tsig {
		secret par1.key. dGhlIGtleSBvZiB0aGUgYWxlcnRz
	}
	dnsb {
		ns b1 127.0.0.1
		accept par1.key. mute1 any for mute.mixed.example.org
		admin OVERRIDES
		node new1 127.0.0.77 client-subnets
		node old1 127.0.0.78
		cut svc new1 old1
	}
	prometheus 127.0.0.1:METRICS
}
`

// alertsNode is a node at 127.0.0.2, or with the wrong key at 127.0.0.5.
const alertsNode = `svc.gslb.example.org:PORT {
	bind ADDRESS
	latencyprobe {
		rtt dns PROBED probe.example.org
		interval 1s
		timeout 500ms
	}
	dnslb {
SERVICES		node NODE ADDRESS
		near 10.0.0.0/8
		register DNSBS
		key par1.key. KEY
		lease 30s
		admin ADMIN
	}
	prometheus 127.0.0.1:METRICS
}
`

// fasterRules returns the rules with all times 60 times shorter.
func fasterRules(t *testing.T) string {
	t.Helper()
	rules, err := os.ReadFile(filepath.Join(root, "deploy", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(\[|for: )(\d+)([mh])`).ReplaceAllStringFunc(string(rules), func(s string) string {
		i := strings.IndexAny(s, "0123456789")
		n, _ := strconv.Atoi(s[i : len(s)-1])
		if strings.HasSuffix(s, "h") {
			n *= 60
		}
		return fmt.Sprintf("%s%ds", s[:i], n)
	})
}

// dnsServer answers probes by a return code, or not at all, until the test ends.
type dnsServer struct {
	rcode  atomic.Int32
	silent atomic.Bool
}

func serveProbes(t *testing.T, address string) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := new(dnsServer)
	srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if s.silent.Load() {
			return
		}
		m := new(dns.Msg).SetRcode(r, int(s.rcode.Load()))
		if m.Rcode == dns.RcodeSuccess {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return s
}

// registers registers a node that is not there.
func registers(t *testing.T, dnsb, zone, node string) {
	t.Helper()
	m, err := (&registration.Registration{
		Zone: zone, Node: node, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Cuts: []string{"mute." + zone}, Serial: uint64(time.Now().UnixMilli()), // #nosec G115 -- after 1970
	}).Message()
	if err != nil {
		t.Fatal(err)
	}
	m.SetTsig("par1.key.", dns.HmacSHA256, 300, time.Now().Unix())
	client := dns.Client{Net: "tcp", Timeout: 20 * time.Second, TsigSecret: map[string]string{"par1.key.": alertKey}}
	if r, _, err := client.Exchange(m, dnsb); err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected the node to be registered, got %v, %v", r, err)
	}
}

// serveSkewed is a DNS-B that takes each registration, with a clock that is a minute
// ahead.
func serveSkewed(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{
		Listener: l, TsigSecret: map[string]string{"par1.key.": alertKey},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetReply(r)
			m.Authoritative = true
			if q := r.Question[0]; r.Opcode == dns.OpcodeQuery && q.Qtype == dns.TypeSOA {
				soa, err := dns.NewRR(q.Name + " 60 IN SOA ns." + q.Name + " root." + q.Name + " 1 60 60 60 60")
				if err == nil {
					m.Answer = []dns.RR{soa}
				}
			} else if r.Opcode == dns.OpcodeQuery {
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 2)}}
			}
			if sig := r.IsTsig(); sig != nil {
				m.SetTsig(sig.Hdr.Name, sig.Algorithm, 300, time.Now().Add(time.Minute).Unix())
			}
			_ = w.WriteMsg(m)
		}),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// prometheus is a running Prometheus.
type prometheus struct{ url string }

// startPrometheus starts a Prometheus that ends with the test.
func startPrometheus(t *testing.T, dir, rules string, targets ...string) prometheus {
	t.Helper()
	config := "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules.yml]\nscrape_configs:\n  - job_name: coredns\n    static_configs: [{targets: ['" + strings.Join(targets, "', '") + "']}]\n"
	for name, text := range map[string]string{"prometheus.yml": config, "rules.yml": rules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := "127.0.0.1:" + freePort(t)
	cmd := exec.Command(program(t, "prometheus", "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	background(t, "Prometheus", cmd)
	return prometheus{"http://" + address}
}

// get decodes the answer of the API into v, and returns an error if it is none.
func (p prometheus) get(path string, v any) error {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get(p.url + "/api/v1/" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(v)
}

// firing returns the alerts that fire, none if Prometheus does not listen yet.
func (p prometheus) firing() []string {
	var got struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if p.get("alerts", &got) != nil {
		return nil
	}
	names := make(map[string]bool)
	for _, a := range got.Data.Alerts {
		if a.State == "firing" {
			names[a.Labels["alertname"]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// checkDashboard checks that Prometheus takes each expression of the dashboard, and
// that each metric of the dashboard and the rules is exported.
func (p prometheus) checkDashboard(t *testing.T) {
	t.Helper()
	dashboard, err := os.ReadFile(filepath.Join(root, "deploy", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard, &got); err != nil {
		t.Fatal(err)
	}
	expressions := 0
	for _, panel := range got.Panels {
		for _, target := range panel.Targets {
			expressions++
			var answer struct{ Status, Error string }
			query := url.Values{"query": {strings.ReplaceAll(target.Expr, "$instance", ".*")}}
			if err := p.get("query?"+query.Encode(), &answer); err != nil || answer.Status != "success" {
				t.Errorf("Expected Prometheus to take the expression of panel %q, got: %v %s", panel.Title, err, answer.Error)
			}
		}
	}
	if expressions < 10 {
		t.Errorf("Expected a dashboard with expressions, got %d", expressions)
	}
	var names struct{ Data []string }
	if err := p.get("label/__name__/values", &names); err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`coredns_(dnsb|dnslb|latencyprobe)_[a-z_]+`).FindAllString(fasterRules(t)+string(dashboard), -1) {
		if !slices.Contains(names.Data, name) {
			t.Errorf("Expected the metric %s to be exported", name)
		}
	}
}

// TestRules runs the unit tests of the rules.
func TestRules(t *testing.T) {
	promtool := program(t, "promtool", "prometheus")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(root, "deploy")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("Expected promtool %v to succeed, got: %v\n%s", args, err, out)
		}
	}
}

// TestAlerts provokes each alert of deploy/alerts.yml: a real Prometheus scrapes a
// DNS-B and two nodes, on a clock on which a minute is a second.
func TestAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	dir := t.TempDir()
	mapFile := filepath.Join(dir, "map")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(mapFile, "10.0.0.0/8 par1\n")
	write(filepath.Join(dir, "overrides"), "down server fra until 2100-01-01T00:00:00Z reason test\n")
	port, probed := freePort(t), freePort(t)
	metrics := [3]string{freePort(t), freePort(t), freePort(t)}
	launchAs := func(name, corefile string, replacements ...string) *server {
		path := filepath.Join(dir, name)
		write(path, strings.NewReplacer(append(replacements, "PORT", port, "PROBED", probed, "MAP", mapFile, "ADMIN", filepath.Join(dir, "admin"), "OVERRIDES", filepath.Join(dir, "overrides"))...).Replace(corefile))
		return start(t, "-conf", path)
	}
	serveProbes(t, "127.0.1.1:"+probed)
	flapping := serveProbes(t, "127.0.50.1:"+probed)
	var far []*dnsServer
	services := ""
	for i := range 20 {
		address := fmt.Sprintf("127.%d.0.1", 101+i) // networks of isolation are /16
		far = append(far, serveProbes(t, address+":"+probed))
		services += fmt.Sprintf("\t\tserver far%d %s\n\t\tservice far%d.svc.gslb.example.org far%[1]d\n", i, address, i)
	}
	serveSkewed(t, "127.0.0.3:"+port)

	launchAs("dnsb", alertsDNSB, "METRICS", metrics[0])
	node := launchAs("node", alertsNode, "METRICS", metrics[1], "ADDRESS", "127.0.0.2", "NODE", "par1", "KEY", alertKey,
		"DNSBS", "127.0.0.1:"+port+" 127.0.0.3:"+port+" 127.0.0.4:"+port,
		"SERVICES", "\t\tserver up 127.0.1.1\n\t\tserver flap 127.0.50.1\n\t\tserver gone 127.0.60.1\n"+
			"\t\tservice www.svc.gslb.example.org up\n\t\tservice flap.svc.gslb.example.org flap up\n\t\tservice gone.svc.gslb.example.org gone\n")
	refused := launchAs("refused", alertsNode, "METRICS", metrics[2], "ADDRESS", "127.0.0.5", "NODE", "par1", "KEY", "YW5vdGhlciBzZWNyZXQgZW50aXJlbHk=",
		"DNSBS", "127.0.0.1:"+port, "SERVICES", services)
	prom := startPrometheus(t, dir, fasterRules(t), "127.0.0.1:"+metrics[0], "127.0.0.1:"+metrics[1], "127.0.0.1:"+metrics[2])
	begin := time.Now()

	fired := make(map[string]time.Duration)
	look := func() {
		for _, name := range prom.firing() {
			if _, ok := fired[name]; !ok {
				fired[name] = time.Since(begin).Round(time.Second)
			}
		}
	}
	expect := func(limit time.Duration, names ...string) {
		t.Helper()
		for until := time.Now().Add(limit); len(names) > 0; time.Sleep(100 * time.Millisecond) {
			look()
			names = slices.DeleteFunc(names, func(name string) bool { _, ok := fired[name]; return ok })
			if time.Now().After(until) {
				t.Fatalf("Expected alerts %v within %s, got only %v", names, limit, fired)
			}
		}
	}
	exchange := func(address string) {
		m := new(dns.Msg).SetQuestion("www.svc.gslb.example.org.", dns.TypeA)
		_, _ = dns.Exchange(m, address+":"+port)
	}

	registers(t, "127.0.0.1:"+port, "mixed.example.org.", "mute1")
	node.waitFor(`Registered node "par1" at DNS-B 127.0.0.1:`+port, 20*time.Second)
	expect(60*time.Second, "DNSLBRegistrationRefused", "DNSLBUnreachableDNSB", "DNSLBLeaseRunsOut", "DNSLBClockSkew", "DNSLBAllServersDown",
		"DNSBNodeDown", "DNSBNoLiveNode", "DNSBStoreDown", "DNSBOverridesNotFetched")
	provoked := []string{"DNSLBReloadRefused", "DNSLBForeignResolvers", "DNSLBServerFlaps", "DNSLBIsolated"}
	for _, name := range provoked {
		if _, ok := fired[name]; ok {
			t.Errorf("Expected %s not to fire before its reason", name)
		}
	}

	for range 200 {
		exchange("127.0.0.1") // Prometheus has seen its counters at 0
	}
	write(mapFile, "10.0.0.0/8 nobody\n")
	stop := make(chan struct{})
	flapped := make(chan struct{})
	go func() {
		defer close(flapped)
		for down := true; ; down = !down {
			if flapping.rcode.Store(dns.RcodeSuccess); down {
				flapping.rcode.Store(dns.RcodeServerFailure)
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Second):
			}
		}
	}()
	for range 6 {
		for range 50 {
			exchange("127.0.0.2")
		}
		_ = refused.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(700 * time.Millisecond)
		_ = refused.cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(300 * time.Millisecond)
		look()
	}
	expect(60*time.Second, "DNSLBReloadRefused", "DNSLBForeignResolvers", "DNSLBServerFlaps", "DNSLBProbesLate", "DNSBNoReferrals", "DNSBClientSubnetsDiffer")
	for _, s := range far {
		s.silent.Store(true)
	}
	expect(60*time.Second, "DNSLBIsolated")
	close(stop)
	<-flapped
	prom.checkDashboard(t)

	for _, name := range slices.SortedFunc(maps.Keys(fired), func(a, b string) int { return int(fired[a] - fired[b]) }) {
		t.Logf("%-26s after %s", name, fired[name])
	}
	for _, name := range regexp.MustCompile(`(?m)- alert: (\S+)`).FindAllStringSubmatch(fasterRules(t), -1) {
		if _, ok := fired[name[1]]; !ok {
			t.Errorf("Expected %s to be provoked by this test", name[1])
		}
	}
}
