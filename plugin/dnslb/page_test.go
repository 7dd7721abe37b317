package dnslb

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status/pagetest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/overridefetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// pageBlocks are the blocks of the plugin pagetest.
var pageBlocks []status.Block

func init() {
	caddy.RegisterPlugin("pagetest", caddy.Plugin{ServerType: "dns", Action: func(c *caddy.Controller) error {
		for _, b := range pageBlocks {
			status.Add(c, b)
		}
		c.Next()
		return status.Property(c).Parse(corefile.Line{Args: c.RemainingArgs()})
	}})
}

// servePage serves the status of blocks, and returns its URL.
func servePage(t *testing.T, blocks ...status.Block) string {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", testport.Free(t))
	pageBlocks = blocks
	i, err := caddy.Start(caddy.CaddyfileInput{ServerTypeName: "dns", Contents: []byte("example.org:0 {\n  pagetest " + address + "\n}\n")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		i.ShutdownCallbacks()
		_ = i.Stop()
	})
	return "http://" + address
}

// busyDay returns what the page shows of a node after a day on which its first server was
// slow for a while, all servers were down once, and another one is down.
func busyDay(t testing.TB, now time.Time) (v view) {
	t.Helper()
	labels := []string{"fra1", "lon1", "mad1", "waw1"}
	addrs := []string{"192.0.2.80", "198.51.100.80", "203.0.113.80", "203.0.113.90"}
	base, loss := []float64{11.8, 19.4, 42, 31}, []float64{0, 0.002, 0.031, 1}
	conf := config{Zones: []string{testZone}, Node: "par1", inventory: inventory{servers: map[string]serverConfig{}}, ttlLow: 20, ttlHigh: 60}
	for i, l := range labels {
		conf.inventory.servers[l] = serverConfig{[]netip.Addr{netip.MustParseAddr(addrs[i])}, plain}
	}
	conf.inventory.services = []serviceConfig{{name: "www." + testZone, servers: labelsOf(labels...), options: options{answers: 1}}}
	d := newDNSLB(conf, nil)
	d.state = newBlockState()
	s := d.sources.snapshot()
	for i := range s.targets {
		s.observed.status[i] = latencyprobe.Status{State: latencyprobe.Up, Since: now.Add(-50 * time.Hour), Probed: true, Estimate: ranking.Estimate{Round: 1, RTT: base[i], Value: base[i]}}
	}
	s.observed.status[3].State, s.observed.status[3].Since, s.observed.status[3].Reason = latencyprobe.Down, now.Add(-17*time.Minute), "HTTP status 503 Service Unavailable"
	d.state.setSnapshot(s, d)
	testRanker(d, s, s.observed).rankPools(s.pools)
	d.snapshot.Store(s)

	random := rand.New(rand.NewPCG(7, 7))
	h := History{Service: "www." + testZone, Type: "A", Counted: 431, first: netip.MustParseAddr(addrs[0]), at: now}
	out1, out2 := now.Add(-38*time.Minute), now.Add(-29*time.Minute)
	for i := range labels {
		hour := history.NewHour()
		for at := now.Add(-time.Hour); at.Before(now); at = at.Add(5 * time.Second) {
			ms := base[i] * (1 + 0.03*math.Abs(random.NormFloat64()))
			if random.IntN(60) == 0 {
				ms *= 1.5 + random.Float64()
			}
			if i == 0 && at.After(out1) && at.Before(out2) {
				ms += 30 + 4*random.Float64()
			}
			if i == 3 && at.After(now.Add(-17*time.Minute)) || random.Float64() < loss[i]/2 && i < 3 {
				hour.AddLoss(at)
				continue
			}
			hour.Add(at, time.Duration(ms*float64(time.Millisecond)))
		}
		h.Servers = append(h.Servers, ServerHistory{Server: labels[i], Address: netip.MustParseAddr(addrs[i]), Hour: hour.Past(now), Answers: []uint64{8123, 1277, 0, 0}[i]})
	}
	day := history.NewDay()
	for at := now.Add(-24 * time.Hour); at.Before(now); at = at.Add(5 * time.Second) {
		phase := at.Sub(now).Hours() / 24 * 2 * math.Pi
		ms := 12.5 - 1.2*math.Cos(phase+1) + 0.4*math.Abs(random.NormFloat64())
		if at.After(out1) && at.Before(out2) || at.After(now.Add(-9*time.Hour)) && at.Before(now.Add(-8*time.Hour)) {
			ms = 19.4 + 0.6*math.Abs(random.NormFloat64())
		}
		if at.After(now.Add(-9*time.Hour-4*time.Minute)) && at.Before(now.Add(-9*time.Hour)) {
			day.AddLoss(at)
			continue
		}
		day.Add(at, time.Duration(ms*float64(time.Millisecond)))
	}
	h.Day = day.Past(now)
	m := func(i int, ms float64, down string) memberState {
		return memberState{server: labels[i], addr: netip.MustParseAddr(addrs[i]), ms: ms, down: down}
	}
	h.switches = []*switchEvent{
		{now.Add(-9*time.Hour - 4*time.Minute), AllDown, m(0, 0, "timeout"), m(0, 0, "timeout")},
		{now.Add(-9 * time.Hour), ranking.Up, m(0, 0, "timeout"), m(1, 19.4, "")},
		{now.Add(-8 * time.Hour), ranking.Lower, m(1, 19.4, ""), m(0, 11.8, "")},
		{out1.Add(20 * time.Second), ranking.Lower, m(0, 44, ""), m(1, 19.4, "")},
		{out2.Add(60 * time.Second), ranking.Lower, m(1, 19.4, ""), m(0, 11.8, "")},
	}
	for i := range h.switches {
		h.Switches = append(h.Switches, h.switches[len(h.switches)-1-i].describe())
	}
	e, err := d.explainOwn("www."+testZone, dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	for i := range e.Servers {
		for j, l := range labels {
			if e.Servers[i].Server == l {
				e.Servers[i].Loss = &loss[j]
			}
		}
	}
	e.Shared = 3
	f := familyView{Explanation: e}
	f.add(h)
	v = view{Shown: []serviceView{{Name: "www." + testZone, Families: []familyView{f}}}}
	v.Summary = Summary{
		At: now, Zones: d.Zones, Node: "par1", Ready: true, Services: 3, Up: 3, Down: 1,
		Registrations: []registrar.State{
			{DNSB: "192.0.2.1:53", Up: true, Since: now.Add(-26 * time.Hour), LeaseLeft: 1432 * time.Second},
			{DNSB: "198.51.100.1:53", Since: now.Add(-3 * time.Minute), LeaseLeft: 1100 * time.Second, Error: "dial tcp 198.51.100.1:53: connect: connection refused"},
		},
		Map:      &mapfetch.State{DNSB: "192.0.2.1:53", Prefixes: 4211, Nodes: 3, FetchedAt: now.Add(-70 * time.Minute), CheckedAt: now.Add(-12 * time.Second)},
		Deputies: []peerview.DeputyState{{Node: "nyc1", Told: now.Add(-4 * time.Second)}},
		Views:    []ViewState{{"nyc1", now.Add(-5 * time.Second), true, 4, 4}, {"sin1", now.Add(-9 * time.Second), false, 4, 4}},
	}
	v.Overrides = []OverrideState{{Stated: override.Stated{Text: "drain mad1 until 2026-01-31T18:00:00Z reason disk replacement", Until: now.Add(3 * time.Hour), Reason: "disk replacement"}}}

	return v
}

// tenThousandServices returns a block of 10,000 services with one server each, of which every
// thousandth one is down.
func tenThousandServices(t testing.TB, now time.Time) *DNSLB {
	t.Helper()
	d := newDNSLB(config{Zones: []string{testZone}, inventory: inventoryOf(10_000), ttlLow: 20, ttlHigh: 60}, nil)
	d.state = newBlockState()
	s := d.sources.snapshot()
	d.state.setSnapshot(s, d)
	r := testRanker(d, s, s.observed)
	r.measure(1, s.targets...)
	for i := 0; i < len(s.targets); i += 1000 {
		s.observed.status[i] = latencyprobe.Status{State: latencyprobe.Down, Probed: true, Reason: "timeout"}
	}
	r.rankPools(s.pools)
	for at := now.Add(-24 * time.Hour); at.Before(now); at = at.Add(5 * time.Minute) {
		r.recordRound(at)
	}
	d.snapshot.Store(s)
	return d
}

// get returns a page.
func get(t *testing.T, address string) (code int, page string) {
	t.Helper()
	r, err := http.Get(address) // #nosec G107 -- of this test
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// TestPageShowsServers checks what the main page of a node says of its servers, and of
// itself.
func TestPageShowsServers(t *testing.T) {
	v := busyDay(t, time.Now())
	page := string(look.Render("state", status.Part{ID: "b1", At: v.At, State: v}))
	rows := pagetest.Texts(t, page, "tr", "")
	for _, want := range []string{
		"1 fra1 192.0.2.80 ● up since", "11.8 ms 0 % 86 %", "2 lon1 198.51.100.80 ● up since", "19.4 ms 0.2 % 14 %",
		"– waw1 203.0.113.90 ✕ down since", "“HTTP status 503 Service Unavailable”", "100 % 0 %",
	} {
		if !slices.ContainsFunc(rows, func(row string) bool { return strings.Contains(row, want) }) {
			t.Errorf("Expected a row with %q, got %q", want, rows)
		}
	}
	text := strings.Join(pagetest.Texts(t, page, "body", ""), " ")
	for _, want := range []string{
		"one ranking with 3 services", "drain mad1 until 2026-01-31T18:00:00Z reason disk replacement ends in 3 h: disk replacement", "● registered at 192.0.2.1:53", "lease ends in 24 min",
		"✕ not registered at 198.51.100.1:53", "“dial tcp 198.51.100.1:53: connect: connection refused”", "nyc1 ● this node is its deputy, made 5 s ago", "● notified nyc1 4 s ago",
		"5 switches", "all_down: to fra1 192.0.2.80 (down: timeout) from fra1 192.0.2.80 (down: timeout)", "4,211 prefixes of 3 nodes, fetched from 192.0.2.1:53 70 min ago",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("Expected %q, got %q", want, text)
		}
	}
	titles := pagetest.Texts(t, page, "title", "")
	for _, want := range []string{"Latency of fra1 192.0.2.80 in the last 60 minutes: lowest 11.", "no longer first: lower", "became first: lower", "all servers down", "Latency of www." + testZone + " A in the last 24 hours"} {
		if !slices.ContainsFunc(titles, func(title string) bool { return strings.Contains(title, want) }) {
			t.Errorf("Expected a drawing that says %q, got %q", want, titles)
		}
	}
	periods := 0
	for _, e := range pagetest.Elements(t, page) {
		if e.Data == "rect" && pagetest.Attribute(e, "class") == "period" {
			periods++
		}
	}
	if periods != 3 {
		t.Errorf("Expected fra1 to have been first twice in the hour, and lon1 once, got %d periods", periods)
	}
}

// TestStateInPages reads the rankings of 10,000 services as JSON, page by page.
func TestStateInPages(t *testing.T) {
	address := servePage(t, tenThousandServices(t, time.Now()).statusBlock())
	var names []string
	for after, pages := "", 0; ; {
		code, text := get(t, address+"/status.json?zone="+strings.ToUpper(strings.TrimSuffix(testZone, "."))+"&after="+after)
		var got struct{ Blocks []struct{ State State } }
		if err := json.Unmarshal([]byte(text), &got); code != http.StatusOK || err != nil || len(got.Blocks) != 1 {
			t.Fatalf("Expected the state of one block, got %d, %v, %.300s", code, err, text)
		}
		s := got.Blocks[0].State
		if len(s.Rankings) == 0 || len(s.Rankings) > maxStateServices || s.Services != maxPasts {
			t.Fatalf("Expected at most %d services of %d, got %d of %d", maxStateServices, maxPasts, len(s.Rankings), s.Services)
		}
		for _, e := range s.Rankings {
			names = append(names, e.Service)
		}
		if pages++; s.After == "" {
			break
		}
		if after = s.After; after != names[len(names)-1] || pages > maxPasts/maxStateServices {
			t.Fatalf("Expected the last name of page %d, got %q", pages, after)
		}
	}
	if len(names) != maxPasts || !slices.IsSorted(names) || len(slices.Compact(names)) != maxPasts {
		t.Errorf("Expected each of %d services once, in order, got %d", maxPasts, len(names))
	}
	if code, text := get(t, address+"/status.json?after=zzz"); code != http.StatusOK || !strings.Contains(text, `"rankings":[]}`) {
		t.Errorf("Expected no service after the last one, got %d, %.300s", code, text)
	}
	if code, text := get(t, address+"/status.json?zone=example.net"); code != http.StatusNotFound || !strings.Contains(text, "example.net.") {
		t.Errorf("Expected no block of another zone, got %d, %.300s", code, text)
	}
}

// TestExplanationNamesMeasurements checks that the page says whose measurements decided.
func TestExplanationNamesMeasurements(t *testing.T) {
	e := Explanation{Address: netip.MustParseAddr("192.0.2.7"), View: "par1"}
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	for _, tc := range []struct {
		site *SiteMeasurements
		want string
	}{
		{nil, ", by the measurements of par1."},
		{&SiteMeasurements{Prefix: prefix}, ", by what nodes measured to 192.0.2.0/24 in the survey."},
		{&SiteMeasurements{Prefix: prefix, Routed: true}, ", by what nodes measured to a router on the way to 192.0.2.0/24 in the survey."},
	} {
		e.Site = tc.site
		page := string(look.Render("explanation", e))
		page = strings.NewReplacer("<b>", "", "</b>", "", "<code>", "", "</code>", "").Replace(page)
		if !strings.Contains(page, "TTL 0 s"+tc.want) {
			t.Errorf("Expected %q alone, got %s", tc.want, page)
		}
	}
}

// TestPageListsServices checks the list of 10,000 services, its search and its pages.
func TestPageListsServices(t *testing.T) {
	d := tenThousandServices(t, time.Now())
	address := servePage(t, d.statusBlock())
	names := func(query string) (list []string, page string) {
		t.Helper()
		code, page := get(t, address+query)
		if code != http.StatusOK {
			t.Fatalf("%s: expected a page, got %d", query, code)
		}
		if len(page) > 150_000 {
			t.Errorf("%s: expected a small page, got %d bytes", query, len(page))
		}
		for _, e := range pagetest.Elements(t, page) {
			if href := pagetest.Attribute(e, "href"); strings.Contains(href, "?service=") {
				list = append(list, strings.TrimSuffix(pagetest.Text(e), "."+testZone))
			}
		}
		return list, page
	}
	first, page := names("/")
	if len(first) != maxRows || fmt.Sprint(first[:12]) != "[s0 s1000 s2000 s3000 s4000 s5000 s6000 s7000 s8000 s9000 s1 s10]" {
		t.Errorf("Expected the services that are down first, then the others by name, got %v", first)
	}
	if !strings.Contains(page, "1 to 25 of 10,000") || strings.Count(page, "all down</span>") < 10 {
		t.Error("Expected the number of services, and ten that are down")
	}
	second, _ := names("/block/b1?search=&page=1")
	if len(second) != maxRows || slices.ContainsFunc(second, func(name string) bool { return slices.Contains(first, name) }) {
		t.Errorf("Expected other services on the second page, got %v", second)
	}
	last, page := names("/block/b1?page=100000")
	if len(last) != maxRows || strings.Contains(page, `rel="next"`) || !strings.Contains(page, "9,976 to 10,000 of 10,000") {
		t.Errorf("Expected the last page, got %v", last)
	}
	for _, query := range []string{"S77.", "s77." + testZone, "10.0.0.77"} {
		if found, _ := names("/block/b1?search=" + query); len(found) == 0 || !slices.Contains(found, "s77") {
			t.Errorf("%s: expected s77 to be found, got %v", query, found)
		}
	}
	if found, page := names("/block/b1?search=nothing%3Cb%3E"); len(found) != 0 || !strings.Contains(page, "none with “nothing&lt;b&gt;”") {
		t.Errorf("Expected no service, got %v", found)
	}
	if code, page := get(t, address+"/block/b1?service=s1000."+testZone); code != http.StatusOK || !strings.Contains(page, "“timeout”") {
		t.Errorf("Expected the page of the service, got %d", code)
	}
	for _, query := range []string{"/block/b1?service=none." + testZone, "/block/b1?service=%3Cscript%3E", "/block/b2", "/block/"} {
		if code, page := get(t, address+query); code != http.StatusNotFound || strings.Contains(page, "<script>") {
			t.Errorf("%s: expected status 404, got %d", query, code)
		}
	}
}

// TestPageEscapesTextsOfServers puts texts that a server, a peer or a resolver may choose
// wherever the page shows them: they make no elements and do not print unescaped.
func TestPageEscapesTextsOfServers(t *testing.T) {
	now := time.Now()
	with := func(text string) string {
		v := busyDay(t, now)
		f := &v.Shown[0].Families[0]
		for i := range f.Rows {
			f.Rows[i].Reason, f.Rows[i].Why, f.Rows[i].Override = text, text, text
		}
		f.Answer.Note = text
		for i := range f.Switches {
			f.Switches[i].From, f.Switches[i].To = text, text
		}
		v.Registrations[1].Error, v.Registrations[1].DNSB = text, text
		v.Map.Error, v.Deputies[0].Error, v.Deputies[0].Node, v.Views[0].Node = text, text, text, text
		v.FailedViews = []peerview.FetchFailure{{Node: text, Error: text}}
		v.Refused = &peerview.Rejection{Node: text, Why: text, From: text}
		v.Unfollowed, v.Missing = []string{text, text}, []string{text}
		v.FromDNSBs = []overridefetch.State{{DNSB: text, Error: text}}
		v.Overrides = []OverrideState{{override.Stated{Text: text, Verb: text, Until: now.Add(time.Hour), Reason: text}, text, text}}
		page := string(look.Render("state", status.Part{ID: "b1", At: v.At, State: v}))
		e := f.Explanation
		e.Answer.Note, e.View, e.Nodes = text, text, []nodemap.Named{{Node: text, Layer: text}}
		e.Servers = slices.Clone(e.Servers)
		e.Servers[0].Reason, e.Servers[0].Server = text, text
		return page + string(look.Render("explanation", e))
	}
	want := pagetest.Shape(t, with("harmless"))
	for _, text := range pagetest.Hostile {
		page := with(text)
		if got := pagetest.Shape(t, page); !slices.Equal(got, want) {
			t.Errorf("%.40q: expected the elements %q, got %q", text, want, got)
		}
		pagetest.CheckClean(t, page, 120_000)
	}
}

// TestPageBesideRanking reads all pages while rounds are recorded, switches happen and
// snapshots change.
func TestPageBesideRanking(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	var readers []func()
	for _, query := range []url.Values{nil, {"service": {"www." + testZone}}, {"search": {"192.0.2"}}} {
		template := "view"
		if query == nil {
			template = "state"
		}
		readers = append(readers, func() {
			v, err := d.view(query)
			if err != nil {
				t.Errorf("Expected a view, got %v", err)
			}
			page := string(look.Render(template, status.Part{ID: "b1", At: time.Now(), State: v}))
			if !strings.Contains(page, "www."+testZone) || strings.Contains(page, "failed, see the log") {
				t.Errorf("Expected the service in the page, got %s", page)
			}
		})
	}
	besideRanking(d, 200, readers...)
}

// BenchmarkPage makes the main page of 10,000 services, and that of a node with four
// servers.
func BenchmarkPage(b *testing.B) {
	now := time.Now()
	many := tenThousandServices(b, now)
	busy := busyDay(b, now)
	for name, view := range map[string]func() any{
		"list":    func() any { v, _ := many.view(nil); return v },
		"service": func() any { return busy },
	} {
		b.Run(name, func(b *testing.B) {
			var n int
			for b.Loop() {
				n = len(look.Render("state", status.Part{ID: "b1", At: now, State: view()}))
			}
			b.ReportMetric(float64(n), "bytes")
		})
	}
}
