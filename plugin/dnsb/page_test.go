package dnsb

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status/pagetest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// pageOf returns the part of the status page with a state.
func pageOf(s State) string { return string(look.Render("state", status.Part{ID: "b1", State: s})) }

// rowOf returns the texts of the cells of the row with a header.
func rowOf(t *testing.T, page, header string) []string {
	t.Helper()
	for _, tr := range pagetest.Elements(t, page) {
		var cells []string
		found := false
		for c := range tr.ChildNodes() {
			if c.Data == "th" || c.Data == "td" {
				cells = append(cells, pagetest.Text(c))
				found = found || c.Data == "th" && pagetest.Text(c) == header
			}
		}
		if tr.Data == "tr" && found {
			return cells
		}
	}
	t.Errorf("Expected a row of %q", header)
	return make([]string, 20)
}

// TestPage checks what the page says of a zone in which something is going on.
func TestPage(t *testing.T) {
	admin := filepath.Join(t.TempDir(), "admin")
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if err := os.WriteFile(admin, []byte("drain sin1 until "+until+" reason disk <b>full</b>\npin 203.0.113.0/24 par1 until "+until+" reason test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newFakeProber()
	d := started(t, fourNodes+"prefix 172.16.0.0/12 nyc1\ndefault par1\nadmin "+admin, func() prober { return p })
	locations := map[string]string{"par1": "48 51 36.000 N 2 21 0.000 E 0m", "nyc1": "40 42 36.000 N 74 0 36.000 W 0m", "sin1": "1 21 0.000 N 103 48 0.000 E 0m"}
	for i, name := range []string{"par1", "nyc1", "sin1"} {
		r := nodeAt(name, fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("10.%d.0.0/16", i))
		r.Location = locations[name]
		if name == "nyc1" {
			r.Deputies = []string{"par1"}
		}
		registers(t, d, r)
	}
	for _, addr := range []string{"192.0.2.1", "192.0.2.3"} {
		p.say(addr, answering)
	}
	p.say("192.0.2.2", silent)
	d.refresh()
	for _, from := range []string{"10.0.0.1", "10.0.0.2", "198.51.100.7"} {
		referredTo(t, d, from)
	}
	d.zone.updates.note(updateKind{node: "par1", key: "k2.", outcome: outOfScope}, "the key k2. may not register node par1")
	d.zone.updates.count(outOfScope)

	state := d.State()
	if at := state.Nodes[slices.IndexFunc(state.Nodes, func(n NodeStatus) bool { return n.Node == "nyc1" })].Location; at == nil || *at != (Location{40.71, -74.01}) {
		t.Errorf("Expected the location of nyc1, got %v", at)
	}
	page := pageOf(state)
	for header, want := range map[string][]string{
		"nyc1":            {"nyc1", "✕ dead timeout", "0 %", "in 30 min", "192.0.2.2", "1", "par1"},
		"sin1":            {"sin1", "■ drained disk <b>full</b>, until " + until, "0 %", "in 30 min", "192.0.2.3", "1"},
		"par1":            {"par1", "● live", "100 %", "in 30 min", "192.0.2.1", "1"},
		"pin":             {"pin", admin, "1", "0 % 0"},
		"operator":        {"operator", "Corefile", "1", "0 % 0"},
		"registration":    {"registration", "registrations", "3", "67 % 2"},
		"default":         {"default", "Corefile", "1", "33 % 1"},
		"198.51.100.0/24": {"198.51.100.0/24", "1", "par1", "default", "0 s ago"},
	} {
		got := rowOf(t, page, header)
		for i, cell := range want {
			if i >= len(got) || got[i] != cell {
				t.Errorf("Expected a row %q, got %q", want, got)
				break
			}
		}
	}
	if events := pagetest.Texts(t, page, "td", "free"); !slices.Contains(events, "the key k2. may not register node par1") {
		t.Errorf("Expected the refusal, got %q", events)
	}
	if got := pagetest.Texts(t, page, "li", "free"); len(got) != 2 || !strings.Contains(got[0], "drain sin1") {
		t.Errorf("Expected both overrides, got %q", got)
	}
	for class, want := range map[string]int{"mark live": 1, "mark drained": 1, "mark dead": 1, "mark stale": 0, "deputy used": 1, "deputy": 0} {
		got := 0
		for _, n := range pagetest.Elements(t, page) {
			if c := pagetest.Attribute(n, "class"); c == class || c == class+" wide" {
				got++
			}
		}
		if got != want {
			t.Errorf("Expected %d of %q on the map, got %d", want, class, got)
		}
	}
	if got := pagetest.Texts(t, page, "text", ""); !slices.Equal(got, []string{"par1", "nyc1 dead", "sin1 drained"}) {
		t.Errorf("Expected labels with states, got %q", got)
	}

	e, err := d.Explain("www.svc."+testZone, netip.MustParseAddr("10.1.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	page = string(look.Render("explanation", e))
	if got := rowOf(t, page, "par1 deputy of nyc1"); got[1] != "● live" || got[2] != "registration" || got[4] != "chosen" {
		t.Errorf("Expected the deputy of a dead node to be chosen, got %q", got)
	}
}

// TestPageTellsWhatIsWrong checks that what needs attention comes first.
func TestPageTellsWhatIsWrong(t *testing.T) {
	if got := pagetest.Texts(t, pageOf(State{}), "p", "note bad"); len(got) != 0 {
		t.Errorf("Expected no complaint, got %q", got)
	}
	for _, n := range []NodeStatus{{Node: "par1"}, {Node: "par1", OverridesFetched: time.Now()}, {Node: "par1", OverridesCurrent: true}, {Node: "par1", Static: true}} {
		n.State = "live"
		late := !n.Static && !n.OverridesCurrent
		if got := rowOf(t, pageOf(State{Nodes: []NodeStatus{n}}), "par1")[1]; strings.Contains(got, "▲ earlier overrides of servers") != late {
			t.Errorf("Expected a warning %v for a node without the overrides in force, got %q", late, got)
		}
	}
	soon := time.Now().Add(time.Minute)
	page := pageOf(State{
		Store: &Store{Location: "etcd http://192.0.2.1:2379"}, ColdUntil: &soon,
		Files: []status.File{{Source: "map", Loaded: time.Now()}, {Source: "admin", InForce: true}},
	})
	got := append(pagetest.Texts(t, page, "p", "note bad"), pagetest.Texts(t, page, "p", "note warn")...)
	for i, want := range []string{"The store does not work", "The shared store could not be read since the start", "The map files have an error", "nodes may be missing that have not registered again"} {
		if len(got) != 4 || !strings.Contains(got[i], want) {
			t.Fatalf("Expected %q, got %q", want, got)
		}
	}
}

// TestStateOfStore checks what the state says of a store.
func TestStateOfStore(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		if s := started(t, "accept k1 par1 any", nil).State(); s.Store != nil {
			t.Errorf("Expected no store, got %+v", s.Store)
		}
	})
	path := filepath.Join(t.TempDir(), "db")
	serve(t, "store db "+path)
	if s := runningZone(testZone).youngest.Load().State(); s.Store == nil || *s.Store != (Store{"db " + path, true, true}) {
		t.Errorf("Expected a store that works, got %+v", s.Store)
	}
	testStore := registry.StoreUp.WithLabelValues(testZone)
	testStore.Set(0)
	if s := runningZone(testZone).youngest.Load().State(); s.Store.Up {
		t.Error("Expected a store that does not work")
	}
}

// hostileState has a text wherever a peer, a file or a sender may have put one.
func hostileState(text string) State {
	n := NodeStatus{
		Node: text, State: "dead", Why: text, Lease: time.Now(), Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Deputies: []string{text, text},
		DeadCuts: []DeadCut{{text, text}}, Location: &Location{}, Cuts: []string{text},
	}
	unlocated := n
	unlocated.Location = nil
	return State{
		Cuts: []string{text}, Nodes: []NodeStatus{n, unlocated}, Overrides: []string{text}, OverlapCount: 1,
		Overlaps: []prefixmap.Overlap{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Nodes: []string{text}}},
		Unmapped: Unmapped{Prefixes: []UnmappedPrefix{{
			Prefix: netip.MustParsePrefix("192.0.2.0/24"), Node: text, Layer: "hash", Survey: &sitesurvey.SiteSummary{State: sitesurvey.StateMeasured, Nearest: text},
		}}},
		Survey:      &sitesurvey.Status{Nodes: []sitesurvey.NodeStatus{{Node: text, Implausible: 1}}},
		Servers:     &Servers{time.Now(), []registry.Server{{Name: text, Host: text, Version: text}}},
		Secondaries: &Secondaries{Notified: time.Now(), NotifyErrors: []string{text}, Transfers: []ZoneServed{{Address: netip.MustParseAddr("192.0.2.1")}}},
		Updates:     Updates{Outcomes: []UpdateCount{{"scope", 1}}, Events: []UpdateEvent{{Result: "scope", Node: text, Key: text, Text: text}}},
		Store:       &Store{Location: text},
		Referrals:   Referrals{Layers: []LayerState{{Layer: "operator", Entries: 1, Sources: []string{text}}}},
	}
}

func TestPageEscapesTexts(t *testing.T) {
	explanation := func(text string) Explanation {
		return Explanation{
			Cut: "svc", Reason: text, Source: text, Layer: "hash", Overlaps: []string{text, text}, Without: []string{text},
			Candidates: []Candidate{{Node: text, State: "live", Why: text, Of: text}}, Referral: []Referred{{Node: text}},
		}
	}
	render := func(text string) map[string]string {
		return map[string]string{"state": pageOf(hostileState(text)), "explanation": string(look.Render("explanation", explanation(text)))}
	}
	want := render("harmless")
	for _, text := range pagetest.Hostile {
		for name, page := range render(text) {
			got, want := pagetest.Shape(t, page), pagetest.Shape(t, want[name])
			// A label that is too long is left out.
			got = slices.DeleteFunc(got, func(e string) bool { return strings.HasPrefix(e, "text ") })
			want = slices.DeleteFunc(want, func(e string) bool { return strings.HasPrefix(e, "text ") })
			if !slices.Equal(got, want) {
				t.Errorf("%.40q: Expected the elements of %s to be %q, got %q", text, name, want, got)
			}
			pagetest.CheckClean(t, page, 60_000)
		}
	}
}

// TestPageIsBounded checks the size for more of everything than anybody reads.
func TestPageIsBounded(t *testing.T) {
	var s State
	for i := range 10_000 {
		one := hostileState(fmt.Sprintf("node%d", i))
		one.Nodes[0].Location = &Location{float64(i%160 - 80), float64(i % 360)}
		s.Nodes = append(s.Nodes, one.Nodes...)
		s.Overrides = append(s.Overrides, one.Overrides...)
		s.Overlaps = append(s.Overlaps, one.Overlaps...)
		s.Unmapped.Prefixes = append(s.Unmapped.Prefixes, one.Unmapped.Prefixes...)
		s.Updates.Events = append(s.Updates.Events, one.Updates.Events...)
		if i == 0 {
			s.Survey, s.Servers, s.Secondaries = one.Survey, one.Servers, one.Secondaries
			continue
		}
		s.Survey.Nodes = append(s.Survey.Nodes, one.Survey.Nodes...)
		s.Servers.Others = append(s.Servers.Others, one.Servers.Others...)
		s.Secondaries.NotifyErrors = append(s.Secondaries.NotifyErrors, one.Secondaries.NotifyErrors...)
		s.Secondaries.Transfers = append(s.Secondaries.Transfers, one.Secondaries.Transfers...)
	}
	page := pageOf(s)
	pagetest.CheckClean(t, page, 400_000)
	if got := len(pagetest.Texts(t, page, "tr", "")); got > 400 {
		t.Errorf("Expected fewer rows, got %d", got)
	}
}

// TestPageDuringChanges reads the page while nodes register and are referred to.
func TestPageDuringChanges(t *testing.T) {
	d := started(t, fourNodes, nil)
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			for j := range 20 {
				switch i {
				case 0:
					registers(t, d, nodeAt("par1", fmt.Sprintf("192.0.2.%d", j+1), "10.0.0.0/8"))
				case 1:
					referredTo(t, d, "10.0.0.1")
					d.zone.updates.note(updateKind{key: fmt.Sprint(j)}, "text")
					d.zone.referrals.sample(testZone)
				default:
					if page := pageOf(d.State()); !strings.Contains(page, "Registrations and refusals") {
						t.Error("Expected a whole page")
					}
				}
			}
		})
	}
	running.Wait()
}
