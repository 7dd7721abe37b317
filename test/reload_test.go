//go:build unix

package test

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestReloadUnderLoad reloads the example 50 times under 1,000 queries a
// second. All queries must be answered correctly, and no state may be lost.
func TestReloadUnderLoad(t *testing.T) {
	e := newExample(t)
	e.addNear()
	after, asked := reloadUnderLoad(t, e, 50)
	for _, server := range []string{"dns://127.0.0.2:1053", "dns://127.0.0.3:1053"} {
		answered := after[`coredns_fastpath_queries_total{result="answered",server="`+server+`"}`]
		if answered < float64(asked)/10 || after[`coredns_fastpath_enabled{server="`+server+`"}`] != 1 {
			t.Errorf("Expected the fast path of %s to be on and to answer many of the queries, got %v", server, answered)
		}
	}
}

// TestReloadOfChainUnderLoad is the same without the fast path, and shorter.
func TestReloadOfChainUnderLoad(t *testing.T) {
	e := newExample(t)
	e.addNear()
	e.write(blockOfTier.ReplaceAllString(e.text, "$0\n        fast-path off"))
	after, _ := reloadUnderLoad(t, e, 10)
	for name := range after {
		if strings.HasPrefix(name, "coredns_fastpath_") {
			t.Errorf("Expected no fast path, got the metric %s", name)
		}
	}
}

var blockOfTier = regexp.MustCompile(`(?m)^ +(dnsb|dnslb) \{$`)

// reloadUnderLoad reloads an example so often, and returns the metrics after that, and
// how many queries there were.
func reloadUnderLoad(t *testing.T, e *example, reloads int64) (after map[string]float64, asked int64) {
	t.Helper()
	s := start(t, "-conf", e.path)
	wait(t, 15*time.Second, "referrals to the nearest nodes", func() bool {
		return referredTo(t, "127.0.1.10") == "127.0.0.3" && referredTo(t, "127.0.2.10") == "127.0.0.4" && answerTo(t, "127.0.1.10", "127.0.0.3") == "127.0.0.11"
	})
	previous := scrape(t, metricsURL)

	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	load := newLoad(t)
	load.run(ctx)

	begin := time.Now()
	for i := range reloads {
		time.Sleep(200 * time.Millisecond) // about 200 queries between two reloads
		reloaded := strings.Count(s.out.String(), "Reloading complete")
		if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		wait(t, 15*time.Second, fmt.Sprintf("reload %d", i+1), func() bool { return strings.Count(s.out.String(), "Reloading complete") > reloaded })
		if i%10 != 9 {
			continue
		}
		after = scrape(t, metricsURL)
		for name, v := range previous {
			if strings.HasPrefix(name, "coredns_latencyprobe_") && strings.Contains(name, "_total") && after[name] < v {
				t.Errorf("Expected no counter to fall, %s fell from %v to %v", name, v, after[name])
			}
		}
		previous = after
	}
	cancel()
	asked, failed := load.result()
	rate := float64(asked) / time.Since(begin).Seconds()
	t.Logf("%d queries, %.0f a second, during %d reloads, %d without a correct answer", asked, rate, reloads, failed)
	if failed > 0 || asked < 10*reloads { // a busy machine asks less than 1,000 a second
		t.Errorf("Expected correct answers during all reloads, got %d failures of %d queries: %s", failed, asked, load.failure.Load())
	}
	if out := s.out.String(); strings.Contains(out, "withdr") {
		t.Error("Expected no withdrawal by a reload")
	}
	return scrape(t, metricsURL), asked
}

// load sends 1,000 queries a second, half of them to DNS-B and half to par1,
// and checks the first address in each reply.
type load struct {
	t             *testing.T
	wg            sync.WaitGroup
	asked, failed atomic.Int64
	failure       atomic.Value // text of one failure
}

func newLoad(t *testing.T) *load {
	t.Helper()
	l := &load{t: t}
	l.failure.Store("")
	return l
}

func (l *load) run(ctx context.Context) {
	for worker := range 10 {
		l.wg.Go(func() { l.worker(ctx, worker%2 == 0) })
	}
}

// worker sends 100 queries a second from its own socket.
func (l *load) worker(ctx context.Context, referral bool) {
	to, want := "127.0.0.3:1053", "127.0.0.11"
	if referral {
		to, want = "127.0.0.2:1053", "127.0.0.3"
	}
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 1, 10)}}
	conn, err := dialer.Dial("udp", to)
	if err != nil {
		l.t.Error(err)
		return
	}
	c := &dns.Conn{Conn: conn}
	defer c.Close()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		m := new(dns.Msg).SetQuestion(www, dns.TypeA)
		l.asked.Add(1)
		if got, err := exchange(c, m); err != nil || got != want {
			l.failed.Add(1)
			l.failure.Store(fmt.Sprintf("%s: got %q, %v", to, got, err))
		}
	}
}

// exchange sends a query once, so that a lost one fails, and returns the first
// address in the reply.
func exchange(c *dns.Conn, m *dns.Msg) (string, error) {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if err := c.WriteMsg(m); err != nil {
		return "", err
	}
	for {
		r, err := c.ReadMsg()
		if err != nil {
			return "", err
		}
		if r.Id != m.Id {
			continue // reply to a query that timed out
		}
		for _, rr := range append(r.Answer, r.Extra...) {
			if a, ok := rr.(*dns.A); ok {
				return a.A.String(), nil
			}
		}
		return "", fmt.Errorf("no address: %s", dns.RcodeToString[r.Rcode])
	}
}

// result waits for the workers.
func (l *load) result() (asked, failed int64) {
	l.wg.Wait()
	return l.asked.Load(), l.failed.Load()
}
