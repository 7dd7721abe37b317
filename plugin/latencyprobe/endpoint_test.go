package latencyprobe

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// node is a node with so many cuts at one address, of which a test decides how
// each is answered.
type node struct {
	watch   *Watch
	targets []Target
	answers []fake
}

func newNode(l *LatencyProbe, name string, cuts int) *node {
	n := &node{watch: l.Watch()}
	for i := range cuts {
		target := Target{Name: name, Addr: netip.MustParseAddr("192.0.2.1"), Check: Check{Port: 53, Name: fmt.Sprintf("c%d.example.org.", i), Type: dns.TypeSOA}}
		n.targets, n.answers = append(n.targets, target), append(n.answers, newFake(10*time.Millisecond))
	}
	n.ask()
	return n
}

// ask begins to ask for the cuts.
func (n *node) ask() {
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	n.watch.targets = make(map[Target]*measurement)
	for i, t := range n.targets {
		s := *n.watch.probe.probes[""]
		s.rtt = n.answers[i]
		n.watch.targets[t] = n.watch.hold(t, &s)
	}
}

// set decides how cuts are answered.
func (n *node) set(err error, cuts ...int) {
	for _, i := range cuts {
		n.answers[i].set(10*time.Millisecond, err)
	}
}

func (n *node) count(state State) int {
	found := 0
	for _, t := range n.targets {
		if n.watch.Status(t).State == state {
			found++
		}
	}
	return found
}

// await waits until so many cuts have a state, and returns how long that took.
func (n *node) await(t *testing.T, state State, cuts int) time.Duration {
	t.Helper()
	start, deadline := time.Now(), time.After(time.Hour)
	for n.count(state) != cuts {
		select {
		case <-n.watch.Changed():
		case <-deadline:
			t.Fatalf("Expected %d cuts to be %s, got %d", cuts, state, n.count(state))
		}
	}
	return time.Since(start)
}

func (n *node) all() []int {
	all := make([]int, len(n.targets))
	for i := range all {
		all[i] = i
	}
	return all
}

// probes returns when the node was asked, for whatever cut.
func (n *node) probes() []time.Time {
	var all []time.Time
	for _, f := range n.answers {
		all = append(all, f.times()...)
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

// TestDeathOfAddressIsFoundWithManyCuts checks that a node which dies is down
// within the ordinary time, however many cuts it has, comes up as soon, and is not
// probed more often for that.
func TestDeathOfAddressIsFoundWithManyCuts(t *testing.T) {
	for _, cuts := range []int{1, 2, 3, 5, 20, 100} {
		for _, tc := range []struct {
			err   error
			limit time.Duration
		}{
			{context.DeadlineExceeded, 12500 * time.Millisecond},
			{syscall.ECONNREFUSED, 8500 * time.Millisecond},
		} {
			t.Run(fmt.Sprintf("%d cuts, %v", cuts, tc.err), func(t *testing.T) {
				out := logtest.Capture(t)
				bubble(t, func(t *testing.T) {
					n := newNode(withProber(newFake(0)), "par1", cuts)
					defer n.watch.Close()
					n.await(t, Up, cuts)
					time.Sleep(time.Duration(cuts) * time.Second)
					for range 3 {
						n.set(tc.err, n.all()...)
						if took := n.await(t, Down, cuts); took > tc.limit || took < 3*time.Second {
							t.Errorf("Expected the node to be down within %s, took %s", tc.limit, took)
						}
						time.Sleep(time.Minute)
						if s := n.watch.Status(n.targets[cuts-1]); s.Reason == "" || s.Since.IsZero() {
							t.Errorf("Expected a reason, got %+v", s)
						}
						n.set(nil, n.all()...)
						if took := n.await(t, Up, cuts); took > 7*time.Second {
							t.Errorf("Expected the node to be up within 7 s, took %s", took)
						}
						if s := n.watch.Status(n.targets[cuts-1]); time.Since(s.Since) > 0 {
							t.Errorf("Expected the state to be new, got %+v", s)
						}
						time.Sleep(2 * flapWindow)
					}
					probes := n.probes()
					for i := 1; i < len(probes); i++ {
						if d := probes[i].Sub(probes[i-1]); d < addressPause {
							t.Fatalf("Expected a second between probes of an address, got %s", d)
						}
					}
				})
				down := slices.DeleteFunc(out.Lines(), func(line string) bool { return !strings.Contains(line, "is down after") })
				if len(down) != 3 {
					t.Errorf("Expected one line each time the node goes down, got %q", down)
				}
			})
		}
	}
}

// TestLameCutsCountByThemselves checks that cuts which are answered wrongly, or not
// at all, do not take the others with them.
func TestLameCutsCountByThemselves(t *testing.T) {
	for _, err := range []error{prober.AnswerError("DNS response code SERVFAIL"), context.DeadlineExceeded} {
		for _, tc := range []struct {
			cuts int
			lame []int
		}{
			{2, []int{0}}, {5, []int{0, 1, 2, 3}}, {20, []int{0, 5, 10, 15}},
		} {
			t.Run(fmt.Sprintf("%d of %d cuts, %v", len(tc.lame), tc.cuts, err), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					n := newNode(withProber(newFake(0)), "par1", tc.cuts)
					defer n.watch.Close()
					n.await(t, Up, tc.cuts)
					time.Sleep(time.Duration(tc.cuts) * time.Second)
					n.set(err, tc.lame...)
					for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
						if down := n.count(Down); down > len(tc.lame) {
							t.Fatalf("Expected no more than the lame cuts to be down, got %d", down)
						}
					}
					for _, i := range tc.lame {
						if s := n.watch.Status(n.targets[i]); s.State != Down || s.Reason == "" {
							t.Errorf("Expected lame cut %d to be down, got %+v", i, s)
						}
					}
					// All others die: the lame ones prove nothing either way.
					n.set(context.DeadlineExceeded, n.all()...)
					if took := n.await(t, Down, tc.cuts); took > time.Duration(len(tc.lame)+1)*12500*time.Millisecond {
						t.Errorf("Expected the node to be down soon, took %s", took)
					}
					n.set(nil, n.all()...)
					n.await(t, Up, tc.cuts)
				})
			})
		}
	}
}

// TestLameCutAmongManyIsConfirmed checks that a cut which is answered wrongly is
// down soon after the first such answer, and up soon after the first right one.
func TestLameCutAmongManyIsConfirmed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const cuts = 100
		n := newNode(withProber(newFake(0)), "par1", cuts)
		defer n.watch.Close()
		n.await(t, Up, cuts)
		time.Sleep(cuts * time.Second)
		n.set(prober.AnswerError("DNS response code REFUSED"), 7)
		const turn = (cuts + 6) * time.Second // of each cut, the interval included
		if took := n.await(t, Down, 1); took > turn+downAfter*addressPause {
			t.Errorf("Expected the cut to be down after its turn and %d probes, took %s", downAfter, took)
		}
		n.set(nil, 7)
		if took := n.await(t, Up, cuts); took > turn+upAfter*addressPause {
			t.Errorf("Expected the cut to be up after its turn and %d probes, took %s", upAfter, took)
		}
	})
}

// TestNewNodeThatIsSilent checks that a node with many cuts which never answered is
// found down as soon.
func TestNewNodeThatIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNode(withProber(newFake(0)), "par1", 100)
		defer n.watch.Close()
		n.set(context.DeadlineExceeded, n.all()...)
		if took := n.await(t, Down, 100); took > 12500*time.Millisecond {
			t.Errorf("Expected the node to be down within 12.5 s, took %s", took)
		}
	})
}

// TestNamesAtOneAddressAreApart checks that a node without an answer takes no other
// with it which has registered the same address.
func TestNamesAtOneAddressAreApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := withProber(newFake(0))
		good, stolen := newNode(l, "par1", 3), newNode(l, "evil", 3)
		defer good.watch.Close()
		defer stolen.watch.Close()
		good.await(t, Up, 3)
		stolen.set(context.DeadlineExceeded, stolen.all()...)
		stolen.await(t, Down, 3)
		time.Sleep(10 * time.Minute)
		if up := good.count(Up); up != 3 {
			t.Errorf("Expected the other node to be up, got %d cuts", up)
		}
	})
}

// TestStateOfAddressSurvivesRestart checks that after a restart a node is down for
// all of its cuts, and comes up for all at once.
func TestStateOfAddressSurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	bubble(t, func(t *testing.T) {
		const cuts = 100
		l := withState(t, newFake(0), path)
		n := newNode(l, "par1", cuts)
		n.await(t, Up, cuts)
		n.set(context.DeadlineExceeded, n.all()...)
		n.await(t, Down, cuts)
		end(l)
		if len(endpoints) != 0 {
			t.Errorf("Expected the endpoints to end with their measurements, got %d", len(endpoints))
		}

		l = withState(t, newFake(0), path)
		defer end(l)
		n.watch = l.Watch()
		n.ask()
		if down := n.count(Down); down != cuts {
			t.Errorf("Expected all cuts to be down after a restart, got %d", down)
		}
		n.set(nil, n.all()...)
		if took := n.await(t, Up, cuts); took > 7*time.Second {
			t.Errorf("Expected the node to be up within 7 s, took %s", took)
		}
	})
}
