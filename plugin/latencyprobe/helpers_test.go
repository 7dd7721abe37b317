package latencyprobe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// testProbe returns the LatencyProbe of c, as setup makes it.
func testProbe(t *testing.T, c *caddy.Controller) *LatencyProbe {
	t.Helper()
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	return ForServerBlock(c)
}

// fake is a prober whose outcome a test decides.
type fake struct {
	*fakeState
}

type fakeState struct {
	mu       sync.Mutex
	rtt      time.Duration
	err      error // context.DeadlineExceeded: after the timeout
	starts   []time.Time
	inFlight atomic.Int32
}

func (fake) Method() string { return "fake" }

func (f fake) ID() string { return fmt.Sprintf("fake%p", f.fakeState) }

func (f fake) Probe(ctx context.Context, _, _ netip.Addr) (prober.Result, error) {
	f.inFlight.Add(1)
	defer f.inFlight.Add(-1)
	f.mu.Lock()
	rtt, err := f.rtt, f.err
	f.starts = append(f.starts, time.Now())
	f.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		<-ctx.Done()
		return prober.Result{}, err
	}
	time.Sleep(rtt)
	return prober.Result{RTT: rtt}, err
}

func (f fake) set(rtt time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rtt, f.err = rtt, err
}

func (f fake) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.starts...)
}

func newFake(rtt time.Duration) fake { return fake{&fakeState{rtt: rtt}} }

// withProber returns a LatencyProbe that measures by p.
func withProber(p prober.Prober) *LatencyProbe {
	return &LatencyProbe{probes: map[string]*settings{"": {rtt: p, interval: defaultInterval, timeout: defaultTimeout}}}
}

func at(addr string) Target { return Target{Name: addr, Addr: netip.MustParseAddr(addr)} }

// bubble runs f in fake time, which begins again in each test: the turns of
// earlier tests would be in its future.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	addressLimiter.reset()
	alarms.restart()
	defer alarms.restart()
	synctest.Test(t, func(t *testing.T) {
		f(t)
		time.Sleep(time.Minute) // probes in flight end
	})
}

// restart starts another timer: one of another bubble does not run.
func (c *alarmClock) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = time.Time{}
	c.arm()
}
