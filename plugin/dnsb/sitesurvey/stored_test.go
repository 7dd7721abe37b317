package sitesurvey

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// disk is a store.
type disk map[string][]byte

func (d disk) write(values map[string][]byte) error {
	maps.Copy(d, values)
	maps.DeleteFunc(d, func(_ string, value []byte) bool { return value == nil })
	return nil
}

func (w *world) save(d disk) {
	w.t.Helper()
	if err := w.s.Save(d.write); err != nil {
		w.t.Fatal(err)
	}
}

// restart goes on with a Survey that knows what is stored.
func (w *world) restart(d disk) {
	w.s = New()
	w.s.Configure(surveymsg.Options{Budget: DefaultBudget})
	w.s.Moved(false)
	w.s.Take(d)
}

func TestRestartMeasuresNothingTwice(t *testing.T) {
	for _, nodes := range []int{3, 12} {
		w, d := newWorld(t, nodes), make(disk)
		w.pass(5 * time.Minute)
		for i := range 10 {
			w.at[resolverAt(i, 1)] = float64(i) / 3
			w.sees(resolverAt(i, 1))
		}
		w.sees(resolverAt(10, 1)) // is silent
		w.pass(5 * time.Minute)
		w.save(d)
		var before []string
		for i := range 10 {
			before = append(before, fmt.Sprint(w.order(resolverAt(i, 1))))
		}
		packets := w.packets
		if stored := fmt.Sprint(slices.Sorted(maps.Keys(d))); len(d) != 11+nodes || !strings.Contains(stored, "198.18.3.0/24") || !strings.Contains(stored, "n2") {
			t.Errorf("Expected each site and each node to be stored, got %s", stored)
		}

		w.restart(d)
		for i := range 10 {
			if got := fmt.Sprint(w.order(resolverAt(i, 1))); got != before[i] || got == "[]" {
				t.Errorf("Expected %s right after the restart, got %s", before[i], got)
			}
		}
		all := w.nodes
		w.nodes = all[:2] // not all nodes come back at once
		w.pass(time.Minute)
		w.nodes = all
		for i := range 11 {
			w.sees(resolverAt(i, 1))
		}
		w.pass(time.Hour)
		if w.packets != packets {
			t.Errorf("%d nodes: Expected nothing to be measured again, got %d packets more", nodes, w.packets-packets)
		}
		written := 0
		if err := w.s.Save(func(values map[string][]byte) error { written += len(values); return nil }); err != nil || written > 0 {
			t.Errorf("Expected nothing to write after a restart, got %d values, %v", written, err)
		}
		if status := w.s.Status(); status.Sites[StateMeasured] != 10 || status.Sites[StateSilent] != 1 {
			t.Errorf("Expected the states of the sites, got %+v", status.Sites)
		}
	}
}

func TestFailedWriteIsRepeated(t *testing.T) {
	w, d := newWorld(t, 3), make(disk)
	addr := resolverAt(1, 1)
	w.at[addr] = 1
	w.sees(addr)
	w.pass(2 * time.Minute)
	full := errors.New("no space left on device")
	if err := w.s.Save(func(map[string][]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("Expected the error, got %v", err)
	}
	w.save(d)
	if len(d) != 4 {
		t.Errorf("Expected a site and three nodes, got %s", d)
	}
	w.pass(40 * daily) // the site is forgotten
	w.save(d)
	if len(d) != 3 {
		t.Errorf("Expected the site to be removed, got %s", d)
	}
}

// TestServersShareMeasurements has two servers with one store, each with answers that
// the other one lacks.
func TestServersShareMeasurements(t *testing.T) {
	w, d := newWorld(t, 3), make(disk)
	addr := resolverAt(1, 1)
	w.at[addr] = 1
	w.gone["n2"] = true
	w.pass(3 * time.Minute)
	w.sees(addr)
	w.pass(2 * time.Minute)
	w.save(d)
	one := w.s
	w.restart(make(disk))
	w.gone["n2"], w.gone["n1"] = false, true
	w.pass(3 * time.Minute)
	w.sees(addr)
	w.pass(2 * time.Minute)
	other := w.s
	other.Take(d)
	w.save(d)
	one.Take(d)
	for _, s := range []*Survey{one, other} {
		w.s = s
		if got := w.order(addr); !slices.Equal(got, []string{"n1", "n2", "n0"}) && !slices.Equal(got, []string{"n1", "n0", "n2"}) {
			t.Errorf("Expected the answers of both servers, got %v", got)
		}
	}
	for range 3 { // they do not write in turns for ever
		for _, s := range []*Survey{one, other} {
			written := make(disk)
			if err := s.Save(written.write); err != nil {
				t.Fatal(err)
			}
			one.Take(written)
			other.Take(written)
		}
	}
	for _, s := range []*Survey{one, other} {
		if values, _ := s.unsaved(); len(values) > 0 {
			t.Errorf("Expected both to agree, got %s", values)
		}
	}
}

func TestTakeIgnoresDamage(t *testing.T) {
	s := New()
	values := map[string][]byte{
		"198.18.1.0/24": []byte("1 198.18.1.7 - icmp 490000 0 n1=5.000,icmp,1769770000"),
		"198.18.2.0/24": []byte("2 198.18.2.7 - icmp 490000 0 n1=5.000,icmp,1769770000"),
		"198.18.3.0/24": []byte("1 198.18.2.7 - icmp 490000 0 n1=5.000,icmp,1769770000"),
		"198.18.4.0/24": []byte("1 198.18.4.7 198.18.5.7 icmp 490000 0"),
		"198.18.5.0/24": []byte("1 198.18.5.7 - icmp 490000 0 n1=NaN,icmp,1769770000"),
		"198.18.6.0/24": []byte("1 198.18.6.7 - icmp 490000 0 n1=1.0,icmp,1769770000 n1=2.0,icmp,1769770000"),
		"198.18.7.0/24": []byte("1 198.18.7.7"),
		"198.18.8.0/24": nil,
		"198.18.9.0/24": []byte("1 198.18.9.7 - - 490000 0 n1=silent,router/NaN/9/198.19.1.0,1769770000"),
		"198.19.0.0/24": []byte("1 198.19.0.7 - - 490000 0 n1=silent,router/5.000/256/198.19.1.0,1769770000"),
		"198.19.1.0/24": []byte("1 198.19.1.7 - - 490000 0 n1=silent,router/5.000/9,1769770000"),
		"198.19.2.0/24": []byte("1 198.19.2.7 - - 490000 0 n1=silent,router/5.000/9/::ffff:198.19.1.0,1769770000"),
		"198.19.3.0/24": []byte("1 198.19.3.7 - - 490000 0 n1=silent,router/5.000/9/100.64.1.0,1769770000"), // many routers have it
		"198.19.4.0/24": []byte("1 198.19.4.7 - - 490000 0 n1=silent,router/5.000/9/fd00::,1769770000"),
		"n1":            []byte("1 n2=5.0,icmp,x"),
		"n2":            []byte("1 n1=silent,router/5.000/9/198.19.1.0,1769770000"), // nodes are no silent sites
	}
	for key, value := range values {
		if err := Check(key, value); (err == nil) != (key == "198.18.1.0/24") {
			t.Errorf("%s: Expected one value to be sound, got %v", key, err)
		}
	}
	s.Take(values)
	if got := s.Table().Size(); got != 1 || s.sites[resolver.SiteOf(resolverAt(1, 7))] == nil || len(s.sites) != 1 {
		t.Errorf("Expected the one sound site, got %d", got)
	}
}

// TestCheckIsNoSurvey checks that values are checked one by one: that they contradict
// each other is nothing that a command tells.
func TestCheckIsNoSurvey(t *testing.T) {
	out := logtest.Capture(t)
	values := map[string][]byte{
		"n1": []byte("1 n2=100.000,icmp,1769770000 n3=100.000,icmp,1769770000 n4=100.000,icmp,1769770000"),
		"n2": []byte("1 n3=10.000,icmp,1769770000 n4=10.000,icmp,1769770000"),
		"n3": []byte("1 n4=10.000,icmp,1769770000"),
		"198.18.1.0/24": []byte("1 198.18.1.7 - icmp 490000 0 n1=0.100,icmp,1769770000 n2=5.000,icmp,1769770000 " +
			"n3=5.000,icmp,1769770000 n4=5.000,icmp,1769770000"),
	}
	for key, value := range values {
		if err := Check(key, value); err != nil {
			t.Errorf("%s: Expected no error, got %v", key, err)
		}
	}
	out.Expect(t)
	New().Take(values)
	out.Expect(t, `Ignored implausible latency from node "n1"`)
}

// FuzzTake checks that a stored value is refused, or stored again as it means.
func FuzzTake(f *testing.F) {
	f.Add("198.18.1.0/24", "1 198.18.1.7 198.18.1.8 icmp 490000 1769770000 n1=5.000,icmp,1769770000 n2=silent,-,1769770001")
	f.Add("2001:db8:1::/48", "1 2001:db8:1::7 - - 1 0 n1=declined,-,7")
	f.Add("198.18.2.0/24", "1 198.18.2.7 - - 490000 1769770000 n1=silent,router/5.000/9/198.19.1.0,1769770000 n2=silent,router/7.000/12/198.19.1.0,1769770001 n3=silent,router,7")
	f.Add("n1", "1 n2=5.250,tcp,1769770000")
	f.Fuzz(func(t *testing.T, key, value string) {
		s := New()
		s.Take(map[string][]byte{key: []byte(value)})
		s.Moved(false)
		stored := make(disk)
		if err := s.Save(stored.write); err != nil {
			t.Fatal(err)
		}
		again := New()
		again.Take(stored)
		if again.Table().Size() != s.Table().Size() || pairs(again) != pairs(s) {
			t.Fatalf("Expected the same from %s", stored)
		}
		for prefix, site := range s.Table().All() {
			if other := again.Table().Get(prefix); other == nil || len(other.Measured) != len(site.Measured) {
				t.Fatalf("Expected the same site %s, got %v", prefix, other)
			}
		}
	})
}

// A site that asks right after the start, while one node is back, is measured by the
// others as soon as they are, and what is stored is not measured again.
func TestNewSiteRightAfterRestart(t *testing.T) {
	w, d := newWorld(t, 5), make(disk)
	stored, fresh := resolverAt(1, 1), resolverAt(2, 1)
	w.at[stored], w.at[fresh] = 3.1, 3.1
	w.sees(stored)
	w.pass(5 * time.Minute)
	w.save(d)
	asked := w.asked[stored]

	w.restart(d)
	all := w.nodes
	w.nodes = all[:1]
	w.pass(20 * time.Second)
	w.sees(fresh)
	w.pass(20 * time.Second)
	w.nodes = all
	w.pass(time.Minute)
	if got := fmt.Sprint(w.order(fresh)); got != "[n3 n4 n2 n1 n0]" {
		t.Errorf("Expected all nodes to measure the site within a minute, got %s", got)
	}
	if w.asked[stored] != asked {
		t.Errorf("Expected nothing to be measured again, got %d measurements", w.asked[stored]-asked)
	}
}
