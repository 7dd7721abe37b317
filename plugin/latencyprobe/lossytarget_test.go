package latencyprobe

import (
	"context"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

const day = 24 * time.Hour

// lossyTarget is a target with random loss that is probed at default settings, in
// virtual time.
type lossyTarget struct {
	rnd  *rand.Rand
	loss float64
	rtt  func(now time.Time) time.Duration

	health health
	next   time.Time
	downs  int // how often the target went down
	probes int
	lost   int
}

// probe takes the next probe and returns its latency, if it was not lost. It
// follows the schedule of measurement.nextPause.
func (h *lossyTarget) probe() (rtt time.Duration, ok bool) {
	const variation = defaultInterval * intervalVariation / 100
	before, began := h.health.state, h.next
	ok = h.rnd.Float64() >= h.loss
	h.probes++
	rtt = h.rtt(began)
	end := began.Add(rtt)
	if ok {
		h.health.success(end)
	} else {
		h.lost++
		end = began.Add(defaultTimeout)
		h.health.failure(end, "timeout", true, never)
	}
	if h.health.state == Down && before != Down {
		h.downs++
	}
	if h.health.unconfirmed() {
		h.next = end.Add(max(confirmPause, addressPause-end.Sub(began)))
	} else {
		h.next = began.Add(defaultInterval - variation + time.Duration(h.rnd.Int64N(int64(2*variation))))
	}
	return rtt, ok
}

// TestFalseDown counts how often healthy servers are down in 30 days.
func TestFalseDown(t *testing.T) {
	t.Parallel()
	const (
		days    = 30
		servers = 4
	)
	tests := []struct {
		loss  float64
		limit float64 // a day and server
	}{{0, 0}, {0.01, 0}, {0.05, 0.1}}
	for _, tc := range tests {
		downs, worst := 0, 0
		for seed := range uint64(servers) {
			h := &lossyTarget{rnd: rand.New(rand.NewPCG(seed, 1)), loss: tc.loss, next: start, rtt: func(time.Time) time.Duration { return 20 * time.Millisecond }}
			for h.next.Before(start.Add(days * day)) {
				h.probe()
			}
			if share := float64(h.lost) / float64(h.probes); math.Abs(share-tc.loss) > 0.005 {
				t.Fatalf("Expected a loss of %.2f, got %.4f", tc.loss, share)
			}
			downs += h.downs
			worst = max(worst, h.downs)
		}
		mean := float64(downs) / (days * servers)
		t.Logf("At %.0f %% loss %.4f times a day on average, %.4f at worst", 100*tc.loss, mean, float64(worst)/days)
		if float64(worst)/days > tc.limit {
			t.Errorf("At %.0f %% loss: Expected at most %.2f false downs a day, got %.3f", 100*tc.loss, tc.limit, float64(worst)/days)
		}
	}
}

// TestLossDoesNotChangeRanking ranks servers by the samples of 30 days, with
// loss and without. Both rankings must have servers of different latency in the
// same order, and first servers that are equally good.
func TestLossDoesNotChangeRanking(t *testing.T) {
	t.Parallel()
	const days = 30
	bases := []float64{48, 12, 19, 31, 12.3} // milliseconds
	// The route to a server changes by 15 ms for a part of each day.
	level := func(i int, now time.Time) float64 {
		if i == 2 && now.Sub(start)%day < 6*time.Hour {
			return bases[i] - 15
		}
		return bases[i]
	}
	type world struct {
		targets    []*lossyTarget
		estimators []ranking.Estimator
		ranker     ranking.Ranker
		switches   int
	}
	newWorld := func(loss float64) *world {
		w := &world{estimators: make([]ranking.Estimator, len(bases))}
		for i := range bases {
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			w.targets = append(w.targets, &lossyTarget{rnd: rnd, loss: loss, next: start, rtt: func(now time.Time) time.Duration {
				ms := level(i, now) + rnd.ExpFloat64()*0.5
				if rnd.Float64() < 0.01 {
					ms += 50 * rnd.Float64()
				}
				return time.Duration(ms * float64(time.Millisecond))
			}})
		}
		w.ranker, _ = ranking.NewRanker("", len(bases))
		return w
	}
	// step probes until a time and ranks all servers, whatever their state:
	// TestFalseDown counts states.
	all := []bool{true, true, true, true, true}
	step := func(w *world, now time.Time) []int {
		est := make([]ranking.Estimate, len(bases))
		for i, h := range w.targets {
			for h.next.Before(now) {
				at := h.next
				if rtt, ok := h.probe(); ok {
					w.estimators[i].Add(at.Add(rtt), rtt)
				}
			}
			est[i] = w.estimators[i].Estimate(now)
		}
		order, cause := w.ranker.Decide(est, all, all)
		if cause == ranking.Lower {
			w.switches++
		}
		return order
	}

	without, with := newWorld(0), newWorld(0.2)
	group := func(i int) int { // servers 1 and 4 are equally good
		if i == 4 {
			return 1
		}
		return i
	}
	rounds, firsts, orders, excess := 0, 0, 0, 0.0
	for now := start.Add(ranking.Round); now.Before(start.Add(days * day)); now = now.Add(ranking.Round) {
		a, b := step(without, now), step(with, now)
		rounds++
		if group(a[0]) != group(b[0]) {
			firsts++
		}
		if !slices.EqualFunc(a, b, func(x, y int) bool { return group(x) == group(y) }) {
			orders++
		}
		excess += level(b[0], now) - level(a[0], now)
	}
	share := func(n int) float64 { return 100 * float64(n) / float64(rounds) }
	t.Logf("Different first server in %.3f %% of %d rounds, different order in %.3f %%; %.4f ms more; %d switches, %d without loss",
		share(firsts), rounds, share(orders), excess/float64(rounds), with.switches, without.switches)
	if share(firsts) > 0.1 || share(orders) > 0.5 || excess/float64(rounds) > 0.02 {
		t.Error("Expected the ranking to be that without loss")
	}
	if without.switches < days || with.switches > without.switches+days/10 {
		t.Errorf("Expected as many switches as without loss, %d, got %d", without.switches, with.switches)
	}
}

// lossy is a prober that succeeds after 20 ms, apart from random loss.
type lossy struct {
	rnd  *rand.Rand
	loss float64
}

func (*lossy) Method() string { return "lossy" }

func (*lossy) ID() string { return "lossy" }

func (l *lossy) Probe(ctx context.Context, _, _ netip.Addr) (prober.Result, error) {
	if l.rnd.Float64() < l.loss {
		<-ctx.Done()
		return prober.Result{}, ctx.Err()
	}
	const rtt = 20 * time.Millisecond
	time.Sleep(rtt)
	return prober.Result{RTT: rtt}, nil
}

// TestScheduleOfMonth runs a measurement for 30 days, which lossyTarget shortens.
func TestScheduleOfMonth(t *testing.T) {
	const days = 30
	bubble(t, func(t *testing.T) {
		l := withProber(&lossy{rand.New(rand.NewPCG(3, 4)), 0.05})
		w := l.Watch()
		defer l.closeWatches()
		target := at("192.0.2.1")
		w.Set([]Target{target})
		downs, down := 0, false
		for end := time.Now().Add(days * day); time.Now().Before(end); {
			<-w.Changed()
			now := w.Status(target).State == Down
			if now && !down {
				downs++
			}
			down = now
		}
		s := w.Status(target)
		if n := float64(s.Samples) / days; n < 17000 || n > 19000 {
			t.Errorf("Expected 17,280 probes a day and some that confirm, got %.0f", n)
		}
		if share := float64(s.Lost) / float64(s.Samples); share < 0.048 || share > 0.052 {
			t.Errorf("Expected 5 %% loss, got %.4f", share)
		}
		t.Logf("Down %d times in %d days", downs, days)
		if float64(downs)/days > 0.1 {
			t.Errorf("Expected at most 0.1 false downs a day, got %d in %d days", downs, days)
		}
	})
}
