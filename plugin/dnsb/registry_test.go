package dnsb

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

func TestSerials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		defer r.close()
		now := uint64(time.Now().UnixMilli())
		apply := func(step string, reg *registration.Registration, want outcome, text string) {
			t.Helper()
			got, err := r.apply(reg, time.Hour)
			if got != want || (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: Expected %s, %q, got %s, %v", step, want, text, got, err)
			}
		}
		at := func(serial uint64, prefixes ...string) *registration.Registration {
			reg := nodeAt("par1", "192.0.2.1", prefixes...)
			reg.Serial = serial
			return reg
		}
		gone := func(serial uint64) *registration.Registration {
			return &registration.Registration{Zone: testZone, Node: "par1", Serial: serial}
		}
		apply("ahead", at(now+300_001), late, "ahead of the clock")
		apply("first", at(now, "10.0.0.0/8"), added, "")
		apply("sent again", at(now, "10.0.0.0/8"), refreshed, "")
		apply("same serial, other content", at(now, "11.0.0.0/8"), late, "other content")
		apply("refresh", at(now+5, "10.0.0.0/8"), refreshed, "")
		apply("older", at(now+4, "11.0.0.0/8"), late, "older than")
		apply("change", at(now+6, "11.0.0.0/8"), changed, "")
		apply("older withdrawal", gone(now+5), late, "older than")
		if r.records["par1"] == nil || r.records["par1"].Prefixes[0].String() != "11.0.0.0/8" {
			t.Fatalf("Expected the registration to stay, got %+v", r.records["par1"])
		}
		apply("withdrawal", gone(now+7), withdrawn, "")
		apply("withdrawal again", gone(now+7), withdrawn, "")
		apply("replay after withdrawal", at(now+6, "11.0.0.0/8"), late, "older than")
		if len(r.records) != 0 {
			t.Fatalf("Expected nothing, got %+v", r.records)
		}
		apply("back", at(now+300_000), added, "")
		apply("by hand", at(0, "12.0.0.0/8"), changed, "")
		apply("by hand, older", at(now+299_999), late, "older than")
		apply("withdrawal by hand", gone(0), withdrawn, "")
		time.Sleep(time.Hour)
		apply("back by clock", at(uint64(time.Now().UnixMilli())), added, "")
	})
}

func TestConflicts(t *testing.T) {
	r := newRegistry()
	d := startedWith(t, r, "accept k1 a any\naccept k1 b any", nil)
	a, b := nodeAt("a", "192.0.2.1"), nodeAt("b", "192.0.2.2")
	registers(t, d, a)
	for cuts, ok := range map[string]bool{
		"svc.gslb.example.org.": true, "x.svc.gslb.example.org.": false, "x.gslb.example.org.": true, "a.x.gslb.example.org. x.gslb.example.org.": false,
	} {
		b.Cuts = strings.Fields(cuts)
		if err := d.snapshot.Load().conflict(b); (err == nil) != ok {
			t.Errorf("%s: Expected ok %v, got %v", cuts, ok, err)
		}
	}
	a.Cuts = []string{"y.svc.gslb.example.org."}
	if err := d.snapshot.Load().conflict(a); err != nil {
		t.Errorf("Expected a node to move its own cuts, got: %v", err)
	}

	// What the configuration no longer accepts is in nobody's way.
	d = startedWith(t, r, "accept k1 b any", nil)
	b.Cuts = []string{"x.svc.gslb.example.org."}
	if err := d.snapshot.Load().conflict(b); err != nil {
		t.Errorf("Expected no conflict with a node that is not accepted, got: %v", err)
	}
}

func TestSerialOfZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		defer r.close()
		last := r.state().serial
		for range 100 {
			if _, err := r.apply(nodeAt("a", "192.0.2.1"), time.Hour); err != nil {
				t.Fatal(err)
			}
			if now := r.state().serial; now <= last {
				t.Fatalf("Expected a serial after %d, got %d", last, now)
			} else {
				last = now
			}
		}
		time.Sleep(time.Hour)
		again := newRegistry()
		defer again.close()
		if now := again.state().serial; now <= last {
			t.Errorf("Expected a later process to go on from %d, got %d", last, now)
		}
	})
}

// A node whose lease ends is stale, and is used while it answers.
func TestStale(t *testing.T) {
	for _, tc := range []struct {
		name    string
		probe   bool
		said    answer
		want    string
		metrics nodeState
	}{
		{"not probed", false, answersMaybe, "nyc1", nodeDead},
		{"answers", true, answersYes, "par1", nodeStale},
		{"not known", true, answersMaybe, "nyc1", nodeDead},
		{"does not answer", true, answersNo, "nyc1", nodeDead},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newFakeProber()
			p.said["192.0.2.1"] = tc.said
			var probe func() prober
			if tc.probe {
				probe = func() prober { return p }
			}
			d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\nlease 1s 2h", probe)
			par, nyc := nodeAt("par1", "192.0.2.1", "10.0.0.0/8"), nodeAt("nyc1", "192.0.2.2")
			par.Lease, nyc.Lease = 10*time.Minute, time.Hour
			registers(t, d, par)
			registers(t, d, nyc)

			time.Sleep(10*time.Minute - time.Second)
			synctest.Wait()
			want := "par1"
			if tc.said == answersNo {
				want = "nyc1"
			}
			if got := referredTo(t, d, "10.0.0.1"); got != want {
				t.Errorf("%s: Expected %s during the lease, got %s", tc.name, want, got)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := referredTo(t, d, "10.0.0.1"); got != tc.want {
				t.Errorf("%s: Expected %s after the lease, got %s", tc.name, tc.want, got)
			}
			if n := gaugeValues(nodeCount, d.registry)[string(tc.metrics)]; n != 1 {
				t.Errorf("%s: Expected one %s node, got %v", tc.name, tc.metrics, n)
			}

			// All leases over and nobody answers: the last known ones.
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := referredTo(t, d, "10.0.0.1"); got != "par1" {
				t.Errorf("%s: Expected par1 as the last known one, got %s", tc.name, got)
			}
			registers(t, d, nodeAt("nyc1", "192.0.2.2"))
			if tc.want != "par1" {
				if got := referredTo(t, d, "10.0.0.1"); got != "nyc1" {
					t.Errorf("%s: Expected the renewed one, got %s", tc.name, got)
				}
			}
		})
	}
}

// A change of health is seen without a query or a registration.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProber()
		d := started(t, "accept k1 par1 any\naccept k1 nyc1 any", func() prober { return p })
		par := nodeAt("par1", "192.0.2.1", "10.0.0.0/8")
		par.Addresses = append(par.Addresses, par.Addresses[0].Next())
		registers(t, d, par)
		registers(t, d, nodeAt("nyc1", "192.0.2.9"))
		synctest.Wait()
		if len(p.asked) != 3 || p.asked[0].cut != "svc."+testZone {
			t.Errorf("Expected three addresses to be probed for svc, got %v", p.asked)
		}
		for _, step := range []struct {
			one, two answer
			want     string
		}{
			{answersYes, answersYes, "par1"},
			{answersNo, answersYes, "par1"},
			{answersNo, answersMaybe, "par1"},
			{answersNo, answersNo, "nyc1"},
			{answersNo, answersYes, "par1"},
		} {
			p.say("192.0.2.1", step.one)
			p.say("192.0.2.2", step.two)
			p.changes <- struct{}{}
			synctest.Wait()
			if got := referredTo(t, d, "10.0.0.1"); got != step.want {
				t.Errorf("%v, %v: Expected %s, got %s", step.one, step.two, step.want, got)
			}
		}
		m := ask(t, d, "10.0.0.1", "svc."+testZone, 1)
		if len(m.Extra) != 2 {
			t.Errorf("Expected all addresses of a node in a referral, got %v", m.Extra)
		}
	})
}

// What a new configuration no longer accepts is not used, though it is kept.
func TestReloadFilters(t *testing.T) {
	r := newRegistry()
	d := startedWith(t, r, "accept k1 par1 any\naccept k1 nyc1 any", nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
	registers(t, d, nodeAt("nyc1", "192.0.2.2"))
	for lines, want := range map[string]string{
		"accept k2 par1 any\naccept k1 nyc1 any":                         "par1",
		"accept k1 nyc1 any":                                             "nyc1",
		"accept k1 par1 11.0.0.0/8\naccept k1 nyc1 any":                  "nyc1",
		"accept k1 par1 any for x.gslb.example.org\naccept k1 nyc1 any":  "nyc1",
		"accept k1 par1 10.0.0.0/8 for svc\naccept k1 nyc1 any\nttl 60s": "par1",
	} {
		if got := referredTo(t, startedWith(t, r, lines, nil), "10.0.0.1"); got != want {
			t.Errorf("%s: Expected %s, got %s", lines, want, got)
		}
	}
}
