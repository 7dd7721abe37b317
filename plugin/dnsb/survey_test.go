package dnsb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

const surveyLines = "accept par1.key. par1 any survey\nsurvey budget 1000 avoid 10.9.0.0/16\nexplain 127.0.0.0/8"

// workQuestion returns the question of a node for work.
func workQuestion(node string) *dns.Msg {
	m := new(dns.Msg).SetQuestion(surveymsg.NodeName(node, testZone), dns.TypeTXT)
	m.SetEdns0(1232, false)
	return m
}

// TestHostileReports sends what a node must not: the RCODE says what is wrong, and
// nothing changes.
func TestHostileReports(t *testing.T) {
	_, port := serve(t, surveyLines)
	survey := runningZone(testZone).survey
	addr := netip.MustParseAddr("198.18.1.7")
	send(t, port, workQuestion("par1"), parKey, parSecret)
	survey.Saw(addr)
	survey.Tick(time.Now())
	var work surveymsg.Work
	var err error
	for end := time.Now().Add(patience); err == nil && len(work.Targets) == 0 && time.Now().Before(end); { // the budget begins with nothing
		time.Sleep(50 * time.Millisecond)
		work, err = surveymsg.ParseWork(send(t, port, workQuestion("par1"), parKey, parSecret).Answer)
	}
	if err != nil || len(work.Targets) != 1 || work.Targets[0].Address != addr {
		t.Fatalf("Expected work, got %+v, %v", work, err)
	}
	good := surveymsg.Result{Address: addr, RTT: 12.5, Method: surveymsg.ICMP}
	text := func(text string) *dns.Msg {
		m := surveymsg.Report("par1", testZone, []surveymsg.Result{good})
		m.Ns[0].(*dns.TXT).Txt = []string{text}
		return m
	}
	flood := surveymsg.Report("par1", testZone, make([]surveymsg.Result, 500))
	prerequisite := surveymsg.Report("par1", testZone, []surveymsg.Result{good})
	prerequisite.NameUsed([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "lon1.lb." + testZone}}})
	otherZone := surveymsg.Report("par1", "x."+testZone, []surveymsg.Result{good})
	otherZone.Ns[0].Header().Name = surveymsg.NodeName("par1", testZone)
	mixed := surveymsg.Report("par1", testZone, []surveymsg.Result{good})
	mixed.Ns = append(mixed.Ns, &dns.A{Hdr: dns.RR_Header{Name: "par1.lb." + testZone, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{192, 0, 2, 1}})
	for _, tc := range []struct {
		name        string
		m           *dns.Msg
		key, secret string
		rcode       int
	}{
		{"unsigned", surveymsg.Report("par1", testZone, []surveymsg.Result{good}), "", "", dns.RcodeRefused},
		{"another secret", surveymsg.Report("par1", testZone, []surveymsg.Result{good}), parKey, nycSecret, dns.RcodeNotAuth},
		{"a key without the word", surveymsg.Report("nyc1", testZone, []surveymsg.Result{good}), nycKey, nycSecret, dns.RcodeRefused},
		{"another node", surveymsg.Report("nyc1", testZone, []surveymsg.Result{good}), parKey, parSecret, dns.RcodeRefused},
		{"a node by another key", surveymsg.Report("par1", testZone, []surveymsg.Result{good}), nycKey, nycSecret, dns.RcodeRefused},
		{"an address that was not asked", surveymsg.Report("par1", testZone, []surveymsg.Result{good, {Address: addr.Next(), Outcome: surveymsg.Silent}}), parKey, parSecret, dns.RcodeRefused},
		{"NaN", text("v=1 198.18.1.7 rtt=NaN method=icmp"), parKey, parSecret, dns.RcodeFormatError},
		{"negative", text("v=1 198.18.1.7 rtt=-1 method=icmp"), parKey, parSecret, dns.RcodeFormatError},
		{"huge", text("v=1 198.18.1.7 rtt=99999999999999999999 method=icmp"), parKey, parSecret, dns.RcodeFormatError},
		{"a router by its method", text("v=1 198.18.1.7 rtt=1 method=router"), parKey, parSecret, dns.RcodeFormatError},
		{"a private router", text("v=1 198.18.1.7 silent router=10.0.0.1 router-rtt=1 ttl=9"), parKey, parSecret, dns.RcodeFormatError},
		{"a router at no distance", text("v=1 198.18.1.7 silent router=203.0.113.1 router-rtt=0 ttl=9"), parKey, parSecret, dns.RcodeFormatError},
		{"text", text(strings.Repeat("x", 255)), parKey, parSecret, dns.RcodeFormatError},
		{"too many results", flood, parKey, parSecret, dns.RcodeRefused},
		{"a prerequisite", prerequisite, parKey, parSecret, dns.RcodeNameError},
		{"another zone", otherZone, parKey, parSecret, dns.RcodeNotAuth},
		{"with a registration", mixed, parKey, parSecret, dns.RcodeRefused},
	} {
		if r := send(t, port, tc.m, tc.key, tc.secret); r.Rcode != tc.rcode {
			t.Errorf("%s: Expected %s, got %v", tc.name, dns.RcodeToString[tc.rcode], r)
		}
		if status, ok := survey.Site(addr); !ok || len(status.Answers) > 0 || survey.Table().Size() > 0 {
			t.Fatalf("%s: Expected nothing to change, got %+v", tc.name, status)
		}
	}
	for range 2 { // the reply may be lost
		if r := send(t, port, surveymsg.Report("par1", testZone, []surveymsg.Result{good}), parKey, parSecret); r.Rcode != dns.RcodeSuccess || r.IsTsig() == nil {
			t.Errorf("Expected a signed NOERROR, got %v", r)
		}
	}
	if status, _ := survey.Site(addr); len(status.Answers) != 1 || status.Answers[0].RTT != 12.5 || status.Answers[0].Method != "icmp" {
		t.Errorf("Expected the latency, got %+v", status)
	}

	refused := false
	for range 200 { // a flood
		r := send(t, port, surveymsg.Report("par1", testZone, []surveymsg.Result{good}), parKey, parSecret)
		refused = refused || r.Rcode == dns.RcodeServerFailure
	}
	if !refused {
		t.Error("Expected too many reports to be refused")
	}
}

func TestWorkQuestions(t *testing.T) {
	_, port := serve(t, surveyLines)
	soa := workQuestion("par1")
	soa.Question[0].Qtype = dns.TypeSOA
	for _, tc := range []struct {
		name        string
		m           *dns.Msg
		key, secret string
		rcode       int
	}{
		{"unsigned", workQuestion("par1"), "", "", dns.RcodeRefused},
		{"another secret", workQuestion("par1"), parKey, nycSecret, dns.RcodeNotAuth},
		{"a key without the word", workQuestion("nyc1"), nycKey, nycSecret, dns.RcodeRefused},
		{"another node", workQuestion("nyc1"), parKey, parSecret, dns.RcodeRefused},
		{"another type", soa, parKey, parSecret, dns.RcodeRefused},
		{"work", workQuestion("par1"), parKey, parSecret, dns.RcodeSuccess},
	} {
		if r := send(t, port, tc.m, tc.key, tc.secret); r.Rcode != tc.rcode || tc.rcode == dns.RcodeSuccess && (r.IsTsig() == nil || len(r.Answer) != 1) {
			t.Errorf("%s: Expected %s, got %v", tc.name, dns.RcodeToString[tc.rcode], r)
		}
	}
	r := query(t, port, "udp", "_survey."+testZone, dns.TypeTXT)
	if len(r.Answer) != 1 || !strings.Contains(fmt.Sprint(r.Answer), "write to hostmaster@gslb.example.org") {
		t.Errorf("Expected an explanation for those who are measured, got %v", r)
	}
	if r := query(t, port, "udp", "_survey."+testZone, dns.TypeA); r.Rcode != dns.RcodeSuccess || len(r.Answer) > 0 || len(r.Ns) != 1 {
		t.Errorf("Expected no data, got %v", r)
	}
}

// measured has nodes report latencies, in milliseconds, of resolvers.
func measured(t *testing.T, d *DNSB, latencies map[string]map[string]float64) {
	t.Helper()
	s := d.zone.survey
	now := time.Now()
	nodes := slices.Sorted(maps.Keys(latencies)) // in this order, as the first node stays the first if it is hardly slower
	for _, node := range nodes {
		s.Work(node, nil, now)
	}
	s.Tick(now)
	for _, byAddress := range latencies {
		for addr := range byAddress {
			s.Saw(netip.MustParseAddr(addr))
		}
	}
	now = now.Add(10 * time.Second) // of the budget
	s.Tick(now)
	for range 3 {
		for _, node := range nodes {
			byAddress := latencies[node]
			var results []surveymsg.Result
			for _, target := range s.Work(node, nil, now).Targets {
				r := surveymsg.Result{Address: target.Address, RTT: byAddress[target.Address.String()], Method: surveymsg.DNS}
				if r.RTT == 0 {
					r = surveymsg.Result{Address: target.Address, Outcome: surveymsg.Silent}
				}
				results = append(results, r)
			}
			if _, err := s.Report(node, results, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.refresh()
}

// TestSurveyLayer checks the place of the layer in the search, in explanations, in
// the map that nodes get, and in the export.
func TestSurveyLayer(t *testing.T) {
	d := started(t, "default nyc1\naccept k2 nyc1 any survey\naccept k1 par1 any survey\naccept k1 lon1 any survey\nsurvey", nil)
	registers(t, d, nodeAt("par1", "192.0.2.53", "198.51.100.0/25"))
	registers(t, d, nodeAt("nyc1", "192.0.2.54"))
	registers(t, d, nodeAt("lon1", "2001:db8::53")) // not over IPv4
	const mapped, near, silent = "198.51.100.1", "198.51.100.201", "203.0.113.1"
	if got := referredTo(t, d, near); got != "nyc1" {
		t.Errorf("Expected the default at first, got %s", got)
	}
	before := d.snapshot.Load()
	measured(t, d, map[string]map[string]float64{
		"par1": {near: 20, silent: 0}, "nyc1": {near: 80.25, silent: 0}, "lon1": {near: 10, silent: 0}, "gone": {near: 1, silent: 0},
	})
	for addr, want := range map[string]string{near: "par1", "198.51.100.129": "par1", mapped: "par1", silent: "nyc1"} {
		if got := referredTo(t, d, addr); got != want {
			t.Errorf("Expected %s to go to %s, got %s", addr, want, got)
		}
	}
	s := d.snapshot.Load()
	if s.sameMap(before) || s.sites == before.sites {
		t.Error("Expected another map")
	}
	text := strings.Join(s.linesOf("svc."+testZone, netip.MustParseAddr(near)), "\n")
	for _, want := range []string{
		"layer survey", "prefix 198.51.100.0/24", "source: 20.0 ms, measured at ", "; lon1 measured 10.0 ms by dns at", "survey: par1 measured 20.0 ms by dns at",
		"par1 is the first eligible node by the latencies that were measured to 198.51.100.0/24", "candidate 1: lon1 live (no IPv4 address), survey 198.51.100.0/24",
	} {
		if !strings.Contains(strings.ReplaceAll(text, "\nsurvey: lon1", "\n; lon1"), want) {
			t.Errorf("Expected %q, got\n%s", want, text)
		}
	}
	if text := strings.Join(s.linesOf("svc."+testZone, netip.MustParseAddr(silent)), "\n"); !strings.Contains(text, "layer default") || !strings.Contains(text, "survey: 203.0.113.0/24 is silent, by "+silent) {
		t.Errorf("Expected a silent site, got\n%s", text)
	}
	if text := strings.Join(s.linesOf("svc."+testZone, netip.MustParseAddr(mapped)), "\n"); !strings.Contains(text, "layer registration") {
		t.Errorf("Expected the registered prefix to win, got\n%s", text)
	}
	list := ""
	for prefix, l := range s.sharedLists() {
		if prefix.String() == "198.51.100.0/24" {
			list = fmt.Sprint(l)
		}
	}
	if list != "[{lon1 survey} {par1 survey} {nyc1 survey}]" {
		t.Errorf("Expected the nodes in the map, got %s", list)
	}
	var export bytes.Buffer
	if err := s.export(&export); err != nil || !strings.Contains(export.String(), "\n198.51.100.0/24 lon1 par1 nyc1 # survey\n") {
		t.Errorf("Expected the site in the export, got %v\n%s", err, export.String())
	}
	if lines := strings.Join(d.surveyLines(), "\n"); !strings.Contains(lines, "sites: 1 measured, 0 searching, 1 silent, 0 unmeasured") || !strings.Contains(lines, "par1 asked for work at") {
		t.Errorf("Expected the state of the survey, got\n%s", lines)
	}
}

// TestSurveyByRouters checks that all that tells of the latencies of a silent site says
// that these are those of a router.
func TestSurveyByRouters(t *testing.T) {
	d := started(t, "default nyc1\naccept k2 nyc1 any survey\naccept k1 par1 any survey\naccept k1 lon1 any survey\naccept k1 ams1 any survey\naccept k1 fra1 any survey\nsurvey budget 1000", nil)
	for name, addr := range map[string]string{"par1": "192.0.2.53", "nyc1": "192.0.2.54", "lon1": "192.0.2.55", "ams1": "192.0.2.56", "fra1": "192.0.2.57"} {
		registers(t, d, nodeAt(name, addr))
	}
	const silent = "198.51.100.201"
	router := map[string]surveymsg.Result{
		"par1": {RTT: 12.5, Router: netip.MustParseAddr("203.0.113.1"), TTL: 9},
		"nyc1": {RTT: 80.25, Router: netip.MustParseAddr("203.0.113.2"), TTL: 14},
		"ams1": {RTT: 20, Router: netip.MustParseAddr("203.0.113.3"), TTL: 8},
		"fra1": {RTT: 30, Router: netip.MustParseAddr("203.0.113.4"), TTL: 7},
		"lon1": {RTT: 2, Router: netip.MustParseAddr("192.0.2.1"), TTL: 3},
	}
	s, now := d.zone.survey, time.Now()
	for node := range router {
		s.Work(node, nil, now)
	}
	s.Tick(now)
	s.Saw(netip.MustParseAddr(silent))
	now = now.Add(10 * time.Second)
	s.Tick(now)
	for range 5 {
		for _, node := range []string{"par1", "nyc1", "lon1", "ams1", "fra1"} {
			var results []surveymsg.Result
			for _, target := range s.Work(node, nil, now).Targets {
				r := surveymsg.Result{Address: target.Address, Outcome: surveymsg.Silent}
				if target.Method == surveymsg.Router {
					r = router[node]
					r.Address, r.Method = target.Address, surveymsg.Router
				}
				results = append(results, r)
			}
			if _, err := s.Report(node, results, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.refresh()
	if got := referredTo(t, d, silent); got != "par1" {
		t.Errorf("Expected the node that is nearest to the router, got %s", got)
	}
	snap := d.snapshot.Load()
	text := strings.Join(snap.linesOf("svc."+testZone, netip.MustParseAddr(silent)), "\n")
	for _, want := range []string{
		"layer survey", "source: 12.5 ms to a router on the way, measured at ",
		"par1 is the first eligible node by the latencies that were measured to a router on the way to 198.51.100.0/24",
		"survey: 198.51.100.0/24 is silent, by " + silent + "; the latencies are those of a router on the way, in 203.0.113.0/24",
		"survey: par1 measured 12.5 ms to a router in 203.0.113.0/24 by TTL 9 at ",
		"survey: nyc1 measured 80.2 ms to a router in 203.0.113.0/24 by TTL 14 at ",
		"survey: lon1 measured 2.0 ms to a router in 192.0.2.0/24 by TTL 3, which does not count, at ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("Expected %q, got\n%s", want, text)
		}
	}
	e, err := d.Explain("svc."+testZone, netip.MustParseAddr(silent))
	if err != nil || e.Survey == nil {
		t.Fatalf("Expected the survey, got %+v, %v", e, err)
	}
	packed, err := json.Marshal(e.Survey)
	for _, want := range []string{
		`"state":"router"`, `"router":"203.0.113.0/24"`, `{"node":"par1","outcome":"measured","rtt_ms":12.5,"method":"router",`,
		`{"node":"lon1","outcome":"other router","rtt_ms":2,"method":"router",`, `"router":"192.0.2.0/24","ttl":3}`,
	} {
		if err != nil || !strings.Contains(string(packed), want) {
			t.Errorf("Expected %s, got %s, %v", want, packed, err)
		}
	}
	for site := range snap.sharedSites() {
		if !site.Routed || len(site.Measured) != maxSurveyed+1 {
			t.Errorf("Expected latencies of a router for the nodes, got %+v", site)
		}
	}
	const cut = "svc." + testZone
	shared := snap.share()
	table, err := nodemaptest.Read(t, cut, shared.lists, shared.nodes[cut]...)
	if err != nil {
		t.Fatal(err)
	}
	// The nearest ones, by the layer that nodes of all versions know, and the default.
	want := nodemaptest.List("survey=par1", "survey=ams1", "survey=fra1", "default=nyc1")
	slots := peerview.NewSlots(table, func(node string) int { return slices.Index([]string{"lon1", "nyc1", "ams1"}, node) })
	set := peerview.NewSet(nil, slots)
	if prefix, named := set.Named(netip.MustParseAddr(silent)); prefix.String() != "198.51.100.0/24" || !slices.Equal(named, want) {
		t.Errorf("Expected %v for the site in explanations of nodes, got %v for %s", want, named, prefix)
	}
	slot, site, length := set.SubnetSlot(netip.MustParseAddr(silent))
	if slot != 2 || length != 24 || site == nodemap.NoSite || !table.Routed(site) || table.SiteCandidates(site).ByPrefix != maxSurveyed {
		t.Errorf("Expected the next node in a site by a router, got slot %d, site %d, length %d", slot, site, length)
	}
	var export bytes.Buffer
	if err := snap.export(&export); err != nil || !strings.Contains(export.String(), "\n198.51.100.0/24 par1 ams1 fra1 nyc1 # survey-router\n") {
		t.Errorf("Expected the router in the export, got %v\n%s", err, export.String())
	}
	if lines := strings.Join(d.surveyLines(), "\n"); !strings.Contains(lines, "sites: 0 measured, 0 searching, 0 silent, 0 unmeasured, 1 measured by a router on the way") {
		t.Errorf("Expected a site by a router, got\n%s", lines)
	}
	page, err := siteBadge(sitesurvey.StateRouter)
	if err != nil || !strings.Contains(string(page), "router") {
		t.Errorf("Expected a badge, got %s, %v", page, err)
	}
}

// Which nodes measured must not decide about queries of resolvers that were mapped,
// and the counts that sites come from must not take part in that.
func TestSurveyTakesUnmappedResolvers(t *testing.T) {
	d := started(t, "accept k1 par1 any survey\nsurvey", nil)
	registers(t, d, nodeAt("par1", "192.0.2.53", "198.51.100.0/24"))
	for _, addr := range []string{"198.51.100.1", "203.0.113.7", "2001:db8::7"} {
		referredTo(t, d, addr)
	}
	d.zone.survey.Tick(time.Now())
	for addr, want := range map[string]bool{"198.51.100.1": false, "203.0.113.9": true, "2001:db8::8": true} {
		if _, got := d.zone.survey.Site(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Expected %t for %s, got %t", want, addr, got)
		}
	}
}

// The script in the document takes part in the survey.
func TestSurveyScript(t *testing.T) {
	needs(t, "nsupdate")
	needs(t, "dig")
	dir := t.TempDir()
	for name, content := range map[string]string{
		"par1.key": "key \"par1.key\" {\n\talgorithm hmac-sha256;\n\tsecret \"" + parSecret + "\";\n};\n",
		"ping":     "#!/bin/sh\nfor address; do :; done\ncase $address in 198.18.1.7) echo 'rtt min/avg/max/mdev = 12.345/13.1/14.2/0.5 ms' ;; *) exit 1 ;; esac\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil { // #nosec G306 -- a program
			t.Fatal(err)
		}
	}
	_, port := serve(t, surveyLines)
	survey := runningZone(testZone).survey
	answering, silent := netip.MustParseAddr("198.18.1.7"), netip.MustParseAddr("198.18.2.7")
	survey.Saw(answering)
	survey.Saw(silent)
	all := scripts(t, "../../docs/survey.md")
	if len(all) != 1 {
		t.Fatalf("Expected one script, got %d", len(all))
	}
	script := strings.NewReplacer("server 192.0.2.1 1053", fmt.Sprintf("server 127.0.0.1 %d", port), "@192.0.2.1 -p 1053", fmt.Sprintf("@127.0.0.1 -p %d", port)).Replace(all[0])
	state := func(addr netip.Addr) string { return fmt.Sprint(must(survey.Site(addr)).Answers) }
	for end := time.Now().Add(patience); time.Now().Before(end) && (state(answering) == "[]" || state(silent) == "[]"); time.Sleep(100 * time.Millisecond) {
		survey.Tick(time.Now())
		cmd := exec.Command("sh", "-e") // #nosec G204 -- from the document
		cmd.Dir, cmd.Stdin, cmd.Env = dir, strings.NewReader(script), append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("Expected the script to succeed, got %v, %s", err, out)
		}
	}
	if got := state(answering); !strings.Contains(got, "par1 measured 12.34") {
		t.Errorf("Expected the latency that ping shows, got %s", got)
	}
	if got := state(silent); !strings.Contains(got, "par1 silent") {
		t.Errorf("Expected silence, got %s", got)
	}
}

func must[T any](v T, _ bool) T { return v }

// What was measured outlives reloads and, with a store, restarts.
func TestSurveyOverRestarts(t *testing.T) {
	lines := surveyLines + "\nstore db " + filepath.Join(t.TempDir(), "map.db")
	const resolver = "198.18.1.7"
	explained := func(t *testing.T, port int) string {
		t.Helper()
		return dig(t, port, "+short", "+tcp", "+subnet="+resolver, "_explain.svc."+testZone, "TXT")
	}
	t.Run("first", func(t *testing.T) {
		s, port := serve(t, lines)
		if r := send(t, port, sent(t, nodeAt("par1", "192.0.2.53")), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected par1 to register, got %v", r)
		}
		measured(t, zones.Values()[0].youngest.Load(), map[string]map[string]float64{"par1": {resolver: 12}})
		if got := explained(t, port); !strings.Contains(got, "layer survey") {
			t.Fatalf("Expected the resolver to be measured, got %s", got)
		}
		for range 2 {
			if err := s.restart(lines); err != nil {
				t.Fatal(err)
			}
			if got := explained(t, port); !strings.Contains(got, "layer survey") {
				t.Errorf("Expected the measurement after a reload, got %s", got)
			}
		}
	})
	_, port := serve(t, lines)
	if got := explained(t, port); !strings.Contains(got, "layer survey") || !strings.Contains(got, "par1 measured 12.0 ms by dns") {
		t.Errorf("Expected the measurement after a restart, got %s", got)
	}
}
