//go:build unix

package test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	metricsURL = "http://127.0.0.1:9153/metrics"
	www        = "www.svc.gslb.example.org."
	cut        = "svc.gslb.example.org."
)

// ask sends one query from an address, as dig -b does.
func ask(t *testing.T, from, to, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = false
	client := dns.Client{
		Dialer:  &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}},
		Timeout: 2 * time.Second,
	}
	r, _, err := client.Exchange(m, net.JoinHostPort(to, "1053"))
	if err != nil {
		t.Logf("%s asks %s for %s: %v", from, to, name, err)
		return new(dns.Msg)
	}
	return r
}

// referredTo returns the address of the node that DNS-B refers a resolver to. A
// deputy may stand behind it.
func referredTo(t *testing.T, resolver string) string {
	t.Helper()
	r := ask(t, resolver, "127.0.0.2", www, dns.TypeA)
	if r.Authoritative || len(r.Answer) > 0 || len(r.Ns) == 0 || r.Ns[0].Header().Rrtype != dns.TypeNS || r.Ns[0].Header().Name != cut {
		return ""
	}
	for _, rr := range r.Extra {
		if a, ok := rr.(*dns.A); ok && a.Hdr.Name == r.Ns[0].(*dns.NS).Ns {
			return a.A.String()
		}
	}
	return ""
}

// answerOf returns the address with which a node answers.
func answerOf(t *testing.T, node string) string {
	t.Helper()
	r := ask(t, "127.0.0.1", node, www, dns.TypeA)
	if len(r.Answer) != 1 || len(r.Ns) != 0 {
		return ""
	}
	return r.Answer[0].(*dns.A).A.String()
}

// example is corefile.example in a file of the test's own, so that it can be
// changed.
type example struct {
	t    *testing.T
	path string
	text string
}

func newExample(t *testing.T) *example {
	t.Helper()
	// Two servers may share a port (SO_REUSEPORT), and then each gets some of the
	// queries.
	if conn, err := net.Dial("tcp", "127.0.0.2:1053"); err == nil {
		conn.Close()
		t.Fatal("Another server listens on 127.0.0.2:1053, where the example wants to: end it first")
	}
	text, err := os.ReadFile(filepath.Join(root, "corefile.example"))
	if err != nil {
		t.Fatal(err)
	}
	e := &example{t: t, path: filepath.Join(t.TempDir(), "Corefile")}
	e.write(string(text))
	return e
}

func (e *example) write(text string) {
	e.t.Helper()
	e.text = text
	if err := os.WriteFile(e.path, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

func (e *example) replace(old, text string) {
	e.t.Helper()
	if strings.Count(e.text, old) != 1 {
		e.t.Fatalf("Expected %q once in the example", old)
	}
	e.write(strings.Replace(e.text, old, text, 1))
}

// section cuts the text between two headings out.
func (e *example) without(from, to string) {
	e.t.Helper()
	i, j := strings.Index(e.text, from), strings.Index(e.text, to)
	if i < 0 || j < i {
		e.t.Fatalf("Expected sections %q and %q in the example", from, to)
	}
	e.write(e.text[:i] + e.text[j:])
}

// TestExample does what the head of corefile.example says.
func TestExample(t *testing.T) {
	e := newExample(t)
	s := start(t, "-conf", e.path)

	t.Logf("Referrals after %s", wait(t, 15*time.Second, "referrals to the nearest nodes", func() bool {
		return referredTo(t, "127.0.1.10") == "127.0.0.3" && referredTo(t, "127.0.2.10") == "127.0.0.4"
	}))
	if got := answerOf(t, "127.0.0.3"); got != "127.0.0.11" {
		t.Errorf("Expected par1 to answer fra, got %q", got)
	}
	if got := answerOf(t, "127.0.0.4"); got != "127.0.0.12" {
		t.Errorf("Expected nyc1 to answer iad, got %q", got)
	}
	t.Logf("The deputy has the view after %s", wait(t, 15*time.Second, "the deputy of par1 to answer as par1 does", func() bool {
		r := ask(t, "127.0.1.10", "127.0.0.4", www, dns.TypeA)
		return len(r.Answer) == 1 && r.Answer[0].(*dns.A).A.String() == "127.0.0.11"
	}))
	if r := ask(t, "127.0.1.10", "127.0.0.2", www, dns.TypeA); len(r.Ns) != 2 || r.Ns[1].(*dns.NS).Ns != "nyc1.lb.gslb.example.org." {
		t.Errorf("Expected a referral to par1 and its deputy, got %v", r)
	}
	for _, tc := range []struct{ at, name, want string }{
		{"127.0.0.2", "_explain.svc.gslb.example.org.", "par1"}, {"127.0.0.4", "_explain.www.svc.gslb.example.org.", "par1"},
	} {
		client := dns.Client{Net: "tcp", Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 10)}}}
		r, _, err := client.Exchange(new(dns.Msg).SetQuestion(tc.name, dns.TypeTXT), tc.at+":1053")
		if err != nil || !strings.Contains(fmt.Sprint(r.Answer), tc.want) {
			t.Errorf("Expected %s to explain itself, got %v, %v", tc.at, r, err)
		}
	}
	if r := ask(t, "127.0.0.1", "127.0.0.1", "www.example.org.", dns.TypeA); len(r.Answer) == 0 || r.Answer[0].(*dns.CNAME).Target != www {
		t.Errorf("Expected DNS-A to answer the CNAME, got %v", r)
	}
	if r := ask(t, "127.0.0.1", "127.0.0.1", www, dns.TypeA); len(r.Ns) != 1 || r.Ns[0].Header().Name != "gslb.example.org." {
		t.Errorf("Expected DNS-A to refer to DNS-B, got %v", r)
	}
	if r := ask(t, "127.0.0.1", "127.0.0.2", "par1.lb.gslb.example.org.", dns.TypeAPL); len(r.Answer) != 1 || !strings.Contains(r.Answer[0].String(), "1:127.0.1.0/24") {
		t.Errorf("Expected what par1 registered, got %v", r)
	}

	const near = "delay 1 15ms\n" // how par1 finds fra

	// The stand-in moves away: another one is faster by measurement.
	e.replace(near, "delay 1 300ms\n")
	t.Logf("A longer way: followed after %s", wait(t, 75*time.Second, "par1 to leave the slow server", func() bool { return answerOf(t, "127.0.0.3") == "127.0.0.12" }))
	e.replace("delay 1 300ms\n", near)
	t.Logf("The old way: followed after %s", wait(t, 75*time.Second, "par1 to return to the fast server", func() bool { return answerOf(t, "127.0.0.3") == "127.0.0.11" }))

	// It dies.
	e.replace(near, "drop 1\n")
	t.Logf("A dead server: left after %s", wait(t, 30*time.Second, "par1 to leave the dead server", func() bool { return answerOf(t, "127.0.0.3") == "127.0.0.12" }))
	e.replace("drop 1\n", near)
	t.Logf("It lives: taken after %s", wait(t, 60*time.Second, "par1 to take the server again", func() bool { return answerOf(t, "127.0.0.3") == "127.0.0.11" }))

	// par1 goes.
	e.without("# ---- 3.", "# ---- 4.")
	t.Logf("A node that goes: left after %s", wait(t, 15*time.Second, "DNS-B to refer elsewhere", func() bool { return referredTo(t, "127.0.1.10") == "127.0.0.4" }))

	if took := s.stop(); took > 10*time.Second {
		t.Errorf("Expected a quick end, took %s", took)
	}
	if out := s.out.String(); !strings.Contains(out, "withdrew") {
		t.Errorf("Expected a withdrawal at the end, got:\n%s", out)
	}
}

// TestReloadUnderLoad reloads 50 times under 1,000 queries a second: each must
// be answered, and nothing forgotten.
func TestReloadUnderLoad(t *testing.T) {
	e := newExample(t)
	s := start(t, "-conf", e.path)
	wait(t, 15*time.Second, "referrals to the nearest nodes", func() bool {
		return referredTo(t, "127.0.1.10") == "127.0.0.3" && referredTo(t, "127.0.2.10") == "127.0.0.4" && answerOf(t, "127.0.0.3") == "127.0.0.11"
	})
	before := scrape(t, metricsURL)

	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	load := newLoad(t)
	load.run(ctx)

	begin := time.Now()
	for i := range 50 {
		time.Sleep(200 * time.Millisecond) // some 200 queries between two reloads
		reloaded := strings.Count(s.out.String(), "Reloading complete")
		if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		wait(t, 15*time.Second, fmt.Sprintf("reload %d", i+1), func() bool { return strings.Count(s.out.String(), "Reloading complete") > reloaded })
		if i%10 != 9 {
			continue
		}
		after := scrape(t, metricsURL)
		for name, v := range before {
			if strings.HasPrefix(name, "coredns_latencyprobe_") && strings.Contains(name, "_total") && after[name] < v {
				t.Errorf("Expected counters never to fall, %s fell from %v to %v", name, v, after[name])
			}
		}
		before = after
	}
	cancel()
	asked, failed := load.result()
	rate := float64(asked) / time.Since(begin).Seconds()
	t.Logf("%d queries, %.0f a second, during 50 reloads, %d without the right answer", asked, rate, failed)
	if failed > 0 || rate < 500 {
		t.Errorf("Expected every one of 1,000 queries a second to be answered, got %d failures of %d, %.0f a second: %s", failed, asked, rate, load.example.Load())
	}
	if out := s.out.String(); strings.Contains(out, "withdr") {
		t.Error("Expected no withdrawal by a reload")
	}
}

// load asks 1,000 queries a second in all: referrals by DNS-B and answers by a
// node, whose only right content is known.
type load struct {
	t             *testing.T
	wg            sync.WaitGroup
	asked, failed atomic.Int64
	example       atomic.Value // of a failure
}

func newLoad(t *testing.T) *load {
	l := &load{t: t}
	l.example.Store("")
	return l
}

func (l *load) run(ctx context.Context) {
	for worker := range 10 {
		l.wg.Go(func() { l.worker(ctx, worker%2 == 0) })
	}
}

// worker asks 100 queries a second on a socket of its own.
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
			l.example.Store(fmt.Sprintf("%s: got %q, %v", to, got, err))
		}
	}
}

// exchange returns the first address in the reply. It sends once: a query that
// is lost must show.
func exchange(c *dns.Conn, m *dns.Msg) (string, error) {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
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
			continue // of a query that was given up
		}
		for _, rr := range append(r.Answer, r.Extra...) {
			if a, ok := rr.(*dns.A); ok {
				return a.A.String(), nil
			}
		}
		return "", fmt.Errorf("no address: %s", dns.RcodeToString[r.Rcode])
	}
}

func (l *load) result() (asked, failed int64) {
	l.wg.Wait()
	return l.asked.Load(), l.failed.Load()
}
