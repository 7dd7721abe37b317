package dnslb

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/history"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// historyOf returns the history of the service www of a block.
func historyOf(t *testing.T, d *DNSLB) History {
	t.Helper()
	all, err := d.HistoryOf("WWW." + testZone)
	if err != nil || len(all) != 1 {
		t.Fatalf("Expected one history, got %d: %v", len(all), err)
	}
	return all[0]
}

// TestDayHasLatencyOfFirstServer runs a ranker for an hour: the past has one value of each
// round in slots of five minutes, by the server that was first then.
func TestDayHasLatencyOfFirstServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := runs(t, 2)
		f.say("a", 10)
		f.say("b", 20)
		f.changed.Set()
		time.Sleep(time.Hour)
		f.set(map[string]latencyprobe.Status{
			"a": {State: latencyprobe.Down, Probed: true, Reason: "refused"},
			"b": {State: latencyprobe.Up, Probed: true, Estimate: ranking.Estimate{Round: 9, RTT: 20, Value: 20}},
		})
		f.changed.Set()
		time.Sleep(time.Hour)
		down := latencyprobe.Status{State: latencyprobe.Down, Probed: true, Reason: "timeout"}
		f.set(map[string]latencyprobe.Status{"a": down, "b": down})
		f.changed.Set()
		time.Sleep(time.Hour)

		h := historyOf(t, d)
		if n := len(h.Day.Slots); n != 36 && n != 37 {
			t.Fatalf("Expected three hours of slots of five minutes, got %d", n)
		}
		const rounds = 5 * 60 / 5
		for i, want := range map[int]history.Slot{
			5: {Min: 10, Median: 10, Max: 10, All: rounds}, 18: {Min: 20, Median: 20, Max: 20, All: rounds}, 30: {Lost: rounds, All: rounds},
		} {
			got := h.Day.Slots[i]
			round := func(ms float64) float64 { return math.Round(ms*10) / 10 }
			got.Min, got.Median, got.Max = round(got.Min), round(got.Median), round(got.Max)
			if got != want {
				t.Errorf("Expected slot %d to be %+v, got %+v", i, want, got)
			}
		}
		if len(h.Switches) != 2 || h.Switches[0].Cause != string(AllDown) || h.Switches[1].Cause != string(ranking.Down) || !strings.Contains(h.Switches[1].From, "a 192.0.2.1 (down: refused)") {
			t.Errorf("Expected both switches, the newest first, got %+v", h.Switches)
		}

		time.Sleep(30 * time.Hour)
		h = historyOf(t, d)
		if len(h.Day.Slots) != 288 || len(h.Switches) != 0 {
			t.Errorf("Expected a day of slots without the switches before that, got %d and %v", len(h.Day.Slots), h.Switches)
		}
	})
}

// TestSwitchesAreBounded checks that the newest switches of a pool are remembered.
func TestSwitchesAreBounded(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	s := d.snapshot.Load()
	for i := range 3 * maxSwitches {
		s.observed.status[i%2].State, s.observed.status[1-i%2].State = latencyprobe.Down, latencyprobe.Up
		testRanker(d, s, s.observed).rankPools(s.pools)
	}
	h := historyOf(t, d)
	if n := len(h.Switches); n != maxSwitches {
		t.Fatalf("Expected %d switches, got %d", maxSwitches, n)
	}
	if !slices.IsSortedFunc(h.Switches, func(a, b Switch) int { return b.At.Compare(a.At) }) || !strings.HasPrefix(h.Switches[0].To, "a ") {
		t.Errorf("Expected the newest switches first, got %+v", h.Switches)
	}
}

// TestPastGoesOnOverReload loads a Corefile anew, in which the service has another
// server, a second service has the same servers, and a third one comes.
func TestPastGoesOnOverReload(t *testing.T) {
	old := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	s := old.snapshot.Load()
	old.state.setSnapshot(s, old)
	now := time.Now()
	testRanker(old, s, s.observed).recordRound(now)
	s.observed.status[0].State = latencyprobe.Down
	testRanker(old, s, s.observed).rankPools(s.pools)

	conf := old.config
	conf.inventory.services = slices.Clone(conf.inventory.services)
	conf.inventory.services[0].servers = labelsOf("b", "a")
	conf.inventory.services = append(conf.inventory.services, serviceConfig{name: "new." + testZone, servers: labelsOf("b"), options: options{answers: 1}})
	next := newDNSLB(conf, nil)
	next.state = old.state
	t2 := next.sources.snapshot()
	next.state.setSnapshot(t2, next)
	next.snapshot.Store(t2)
	r := testRanker(next, t2, observations{status: make([]latencyprobe.Status, len(t2.targets))})
	r.measure(1, t2.targets...)
	r.recordRound(now.Add(time.Second))

	h := historyOf(t, next)
	if len(h.Day.Slots) != 1 || h.Day.Slots[0].All != 2 || len(h.Switches) != 1 || h.Servers[0].Server != "b" {
		t.Errorf("Expected the past of before the reload, got %+v", h)
	}
	all, err := next.HistoryOf("new." + testZone)
	if err != nil || len(all) != 1 || len(all[0].Switches) != 0 || all[0].Day.Slots[0].All != 1 {
		t.Errorf("Expected a past of its own, got %+v: %v", all, err)
	}
	if _, err := next.HistoryOf("none." + testZone); err == nil {
		t.Error("Expected an error for a name that is no service")
	}

	// The reload fails in another plugin: the previous instance goes on.
	next.state.removeSnapshot(next)
	testRanker(old, s, s.observed).recordRound(now.Add(2 * time.Second))
	if h := historyOf(t, old); h.Day.Slots[0].All != 3 {
		t.Errorf("Expected the previous instance to go on with the past, got %+v", h.Day)
	}
}

// TestPoolsThatPartHaveCopiesOfThePast gives one of two services that share a pool
// another option.
func TestPoolsThatPartHaveCopiesOfThePast(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	d.inventory.services = append(d.inventory.services, d.inventory.services[0])
	d.inventory.services[1].name = "two." + testZone
	s := d.sources.snapshot()
	d.state.setSnapshot(s, d)
	status := slices.Clone(d.snapshot.Load().observed.status)
	now := time.Now()
	testRanker(d, s, observations{status: status}).recordRound(now)

	d.inventory.services[1].answers = 2
	next := d.sources.snapshot()
	d.state.setSnapshot(next, d)
	d.snapshot.Store(next)
	r := testRanker(d, next, observations{status: status})
	r.recordRound(now.Add(time.Second))
	r.recordRound(now.Add(2 * time.Second))
	if len(next.pools) != 2 {
		t.Fatalf("Expected two pools, got %d", len(next.pools))
	}
	for _, name := range []string{"www.", "two."} {
		all, err := d.HistoryOf(name + testZone)
		if err != nil || all[0].Day.Slots[0].All != 3 {
			t.Errorf("%s: expected three rounds, got %+v: %v", name, all, err)
		}
	}
}

// TestPastsAreBounded checks that the services that are configured first have a past, and
// what that costs for each.
func TestPastsAreBounded(t *testing.T) {
	const beyond = 5
	s := new(snapshot)
	d := newDNSLB(config{Zones: []string{testZone}}, nil)
	d.state = newBlockState()
	m := &member{addr: netip.MustParseAddr("192.0.2.1")}
	for range maxPasts + beyond {
		p := newPool(&options{answers: 1}, []*member{m}, 60)
		p.services = []string{"www." + testZone}
		p.recorded = len(s.pools) < maxPasts
		s.pools = append(s.pools, p)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	testRanker(d, s, observations{status: make([]latencyprobe.Status, 1)}).recordRound(time.Now())
	runtime.GC()
	runtime.ReadMemStats(&after)
	for i, p := range s.pools {
		if (p.past != nil) != (i < maxPasts) {
			t.Fatalf("Expected the first %d pools to have a past, got %v for the one at %d", maxPasts, p.past != nil, i)
		}
		p.past.addSwitch(&switchEvent{})
	}
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / maxPasts; each > 3<<10 {
		t.Errorf("Expected a past to take less than 3 KiB, got %d bytes", each)
	}
	runtime.KeepAlive(s)

	built := build(&config{Zones: []string{testZone}}, inventoryOf(maxPasts+beyond), nil, nil)
	n := 0
	for _, p := range built.pools {
		if p.recorded {
			n++
		}
	}
	if n != maxPasts || built.pools[0].services[0] != "s0."+testZone || !built.pools[0].recorded {
		t.Errorf("Expected %d recorded pools beginning with the first service, got %d, %s", maxPasts, n, built.pools[0].services[0])
	}
}

// inventoryOf returns an inventory of services that have one server each.
func inventoryOf(services int) inventory {
	i := inventory{servers: make(map[string]serverConfig)}
	addr := netip.MustParseAddr("10.0.0.0")
	for n := range services {
		label := fmt.Sprint("s", n)
		i.servers[label] = serverConfig{[]netip.Addr{addr}, plain}
		i.services = append(i.services, serviceConfig{name: label + "." + testZone, servers: labelsOf(label), options: options{answers: 1}})
		addr = addr.Next()
	}
	return i
}

// TestShareOfAnswersIsThatOfTheLastMinutes answers queries in an hour that goes by in a
// moment: only those of the last five to ten minutes count.
func TestShareOfAnswersIsThatOfTheLastMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := runs(t, 2)
		f.say("a", 10)
		f.say("b", 20)
		f.changed.Set()
		answers := func() (all []uint64, minutes float64) {
			h := historyOf(t, d)
			for _, s := range h.Servers {
				all = append(all, s.Answers)
			}
			return all, h.Counted / 60
		}
		if got, minutes := answers(); minutes != 0 || !slices.Equal(got, []uint64{0, 0}) {
			t.Errorf("Expected nothing to be counted before the first round, got %v in %v minutes", got, minutes)
		}
		for range 60 {
			time.Sleep(time.Minute)
			for range 10 {
				ask(t, d, "10.0.0.1")
			}
		}
		time.Sleep(time.Second)
		got, minutes := answers()
		if minutes < 5 || minutes > 10.1 || got[1] != 0 || math.Abs(float64(got[0])-10*minutes) > 10 {
			t.Errorf("Expected ten answers a minute for five to ten minutes, got %v in %v minutes", got, minutes)
		}
	})
}

// besideRanking calls each reader again and again in a goroutine of its own, while the
// two servers of service4 go down in turns: each round is recorded, and has another
// snapshot.
func besideRanking(d *DNSLB, rounds int, readers ...func()) {
	d.state.setSnapshot(d.snapshot.Load(), d)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for _, read := range readers {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				read()
			}
		})
	}
	now := time.Now()
	for i := range rounds {
		s := d.sources.snapshot()
		d.state.setSnapshot(s, d)
		r := testRanker(d, s, observations{status: make([]latencyprobe.Status, 2)})
		r.measure(uint64(i+1), s.targets...)
		r.observed.status[i%2].State = latencyprobe.Down
		r.rankPools(s.pools)
		now = now.Add(ranking.Round)
		r.recordRound(now)
		d.snapshot.Store(s)
	}
	close(stop)
	reading.Wait()
}

// TestHistoryBesideRanking reads histories while rounds are recorded and snapshots
// change, as JSON does.
func TestHistoryBesideRanking(t *testing.T) {
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	read := func() {
		all, err := d.HistoryOf("www." + testZone)
		if _, failed := json.Marshal(all); err != nil || failed != nil {
			t.Errorf("Expected a history, got %v, %v", err, failed)
		}
	}
	besideRanking(d, 500, read, read)
	if h := historyOf(t, d); len(h.Day.Slots) < 8 || len(h.Switches) != maxSwitches {
		t.Errorf("Expected what was recorded, got %d slots and %d switches", len(h.Day.Slots), len(h.Switches))
	}
}

// TestStateHasOverrides checks the fields of overrides in the JSON of the state.
func TestStateHasOverrides(t *testing.T) {
	overrides := lasting(t, "drain a", "down z")
	overrides[0].Action.DNSB = "192.0.2.1:53"
	d := service4(options{answers: 1}, make([]settings, 2), []float64{10, 20})
	d.snapshot.Store(build(&d.config, d.inventory, nil, overrides))
	text, err := json.Marshal(d.State())
	if err != nil {
		t.Fatal(err)
	}
	const until = `"until":"2100-01-01T00:00:00Z","reason":"new disk"`
	want := `"overrides":[{"text":"drain a` + later + `","verb":"drain","arguments":["a"],` + until + `,"dnsb":"192.0.2.1:53"},{"text":"down z` + later + `","verb":"down","arguments":["z"],` + until + `,"idle":"no service has such a server"}]`
	if !strings.Contains(string(text), want) {
		t.Errorf("Expected %s, got %s", want, text)
	}
}

// BenchmarkRecordRound records one round of 10,000 pools.
func BenchmarkRecordRound(b *testing.B) {
	d := newDNSLB(config{Zones: []string{testZone}}, nil)
	d.state = newBlockState()
	s := build(&config{Zones: []string{testZone}}, inventoryOf(maxPasts), nil, nil)
	r := testRanker(d, s, observations{status: make([]latencyprobe.Status, len(s.targets))})
	r.measure(1, s.targets...)
	now := time.Now()
	r.recordRound(now)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(ranking.Round)
		r.recordRound(now)
	}
}
