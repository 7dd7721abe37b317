package dnsb

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// A change of a registration is one line, a refresh none, and a refusal one, with
// its reason, however often it is repeated.
func TestLogOfRegistrations(t *testing.T) {
	l := logtest.Capture(t)
	_, port := serve(t, "")
	l.Lines()
	par := nodeAt("par1", "192.0.2.53", "127.0.0.0/8")
	far := nodeAt("par1", "192.0.2.53", "127.0.0.0/8", "203.0.113.0/24")
	two := nodeAt("par1", "192.0.2.53", "127.0.0.0/8", "10.0.0.0/8")
	later := func() *dns.Msg {
		m := sent(t, two)
		for _, rr := range m.Ns {
			if txt, ok := rr.(*dns.TXT); ok {
				txt.Txt[0] = strings.Replace(txt.Txt[0], "v=1", "v=2", 1)
			}
		}
		return m
	}
	message := func(r *registration.Registration) func() *dns.Msg { return func() *dns.Msg { return sent(t, r) } }
	for _, step := range []struct {
		name string
		m    func() *dns.Msg
		want []string
	}{
		{"new", message(par), []string{`Registered node "par1" by key "par1.key.": 1 address, 1 prefix, cuts svc.gslb.example.org., lease 30m0s`}},
		{"refresh", message(par), nil},
		{"outside", message(far), []string{`Refused registration of node "par1" by key "par1.key.", keeping the previous one: node par1 may not claim the prefix 203.0.113.0/24`}},
		{"outside again", message(far), nil},
		{"later version", later, []string{`Refused an update signed with key "par1.key.": unknown version 'v=2' of the TXT record of node par1, expected v=1: update DNS-B or the node`}},
		{"change", message(two), []string{`Registered node "par1" by key "par1.key.": 1 address, 2 prefixes`}},
		{"withdrawal", par.Withdrawal, []string{`Node "par1" withdrew`}},
	} {
		send(t, port, step.m(), parKey, parSecret)
		t.Run(step.name, func(t *testing.T) { l.Expect(t, step.want...) })
	}
	withdrawal := par.Withdrawal()
	send(t, port, withdrawal, nycKey, nycSecret)
	t.Run("withdrawal by another key", func(t *testing.T) {
		l.Expect(t, `Refused withdrawal of node "par1" by key "nyc1.key.", keeping the registration: the key nyc1.key. may not register node par1`)
	})
	unverified = reminder.Keyed{}
	for _, tc := range []struct{ name, key, secret, want string }{
		{"unsigned", "", "", "Refused an update from 127.0.0.1: it is not signed"},
		{"unsigned again", "", "", ""},
		{"other secret", parKey, nycSecret, `Refused an update from 127.0.0.1, signed with key "par1.key.": other secret (BADSIG)`},
		{"unknown key", "other.key.", parSecret, `Refused an update from 127.0.0.1, signed with key "other.key.": unknown key (BADKEY)`},
		{"another unknown key", "more.key.", parSecret, ""},
	} {
		before := testutil.ToFloat64(registrationCount.WithLabelValues(testZone, string(unsigned)))
		send(t, port, sent(t, par), tc.key, tc.secret)
		t.Run(tc.name, func(t *testing.T) {
			if tc.want == "" {
				l.Expect(t)
			} else {
				l.Expect(t, tc.want)
			}
			if got := testutil.ToFloat64(registrationCount.WithLabelValues(testZone, string(unsigned))) - before; got != 1 {
				t.Errorf("Expected one unsigned update to be counted, got %v", got)
			}
		})
	}

	var events []string
	for _, e := range runningZone(testZone).updates.lastHour().Events {
		events = append(events, fmt.Sprintf("%s %s %s %d %s", e.Result, e.Node, e.Key, e.Count, e.Text))
	}
	slices.Sort(events)
	expectStarts(t, events,
		"change par1 par1.key. 1 1 address, 2 prefixes",
		"malformed  par1.key. 1 unknown version 'v=2'",
		"new par1 par1.key. 1 1 address, 1 prefix, cuts svc.gslb.example.org., lease 30m0s",
		"scope par1 nyc1.key. 1 the key nyc1.key. may not register node par1",
		"scope par1 par1.key. 2 node par1 may not claim the prefix 203.0.113.0/24",
		`unsigned   1 from 127.0.0.1, signed with key "par1.key.": other secret (BADSIG)`,
		`unsigned   2 from 127.0.0.1, signed with key "more.key.": unknown key (BADKEY)`,
		"unsigned   2 from 127.0.0.1: it is not signed",
		"withdrawal par1 par1.key. 1 ",
	)
}

// expectStarts checks that texts begin with others.
func expectStarts(t *testing.T, texts []string, starts ...string) {
	t.Helper()
	if len(texts) != len(starts) {
		t.Fatalf("Expected %d texts, got %q", len(starts), texts)
	}
	for i, start := range starts {
		if !strings.HasPrefix(texts[i], start) {
			t.Errorf("Expected %q, got %q", start, texts[i])
		}
	}
}

func TestLogOfHealth(t *testing.T) {
	const par, nyc = "192.0.2.1", "192.0.2.2"
	l := logtest.Capture(t)
	p := newFakeProber()
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any", func() prober { return p })
	registers(t, d, nodeAt("par1", par))
	registers(t, d, nodeAt("nyc1", nyc))
	l.Lines()
	for _, step := range []struct {
		addr string
		say  probeResult
		want []string
	}{
		{par, answering, nil},
		{par, silent, []string{"Node \"par1\" is down, leaving it out of referrals: timeout"}},
		{par, silent, nil},
		{nyc, silent, []string{"Node \"nyc1\" is down, leaving it out of referrals: timeout", "All nodes of \"svc.gslb.example.org.\" are down, referring resolvers to the last known ones"}},
		{nyc, silent, nil},
		{par, answering, []string{"Node \"par1\" is up again"}},
		{par, silent, []string{"Node \"par1\"", "All nodes of \"svc.gslb.example.org.\" are down"}},
	} {
		p.say(step.addr, step.say)
		d.refresh()
		l.Expect(t, step.want...)
	}
}

func TestConflictingCuts(t *testing.T) {
	z := newZone(testZone)
	d := startedWith(t, z, "accept k1 a any\naccept k1 b any", nil)
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

	// A node that is not accepted any more conflicts with nothing.
	d = startedWith(t, z, "accept k1 b any", nil)
	b.Cuts = []string{"x.svc.gslb.example.org."}
	if err := d.snapshot.Load().conflict(b); err != nil {
		t.Errorf("Expected no conflict with a node that is not accepted, got: %v", err)
	}
}

// signedNow returns the signature of a message that has just been signed.
func signedNow(key string) signature { return signature{key: key, time: time.Now()} }

// countingProber counts the snapshots that are built: each asks for changes.
type countingProber struct {
	*fakeProber
	builds atomic.Int32
}

func (p *countingProber) changedNodes() []string {
	p.builds.Add(1)
	return p.fakeProber.changedNodes()
}

// What an UPDATE changes is visible when it is acknowledged, in one snapshot.
func TestOneSnapshotForEachUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &countingProber{fakeProber: newFakeProber()}
		d := started(t, "accept k1 par1 10.0.0.0/8", func() prober { return p })
		message := func(part, parts int, addr string, prefixes ...string) *dns.Msg {
			r := nodeAt("par1", addr, prefixes...)
			if part > 0 {
				r.Addresses, r.Cuts = nil, nil
			}
			if r.Part, r.Parts = part, parts; parts > 0 {
				r.Serial = uint64(time.Now().Add(time.Minute).UnixMilli())
			}
			return sent(t, r)
		}
		withdrawal := nodeAt("par1", "192.0.2.1").Withdrawal
		for _, step := range []struct {
			name   string
			m      *dns.Msg
			want   registry.Outcome
			builds int32
			addr   string // of the node; "" none
		}{
			{"new", message(0, 0, "192.0.2.1"), registry.Added, 1, "192.0.2.1"},
			{"refresh", message(0, 0, "192.0.2.1"), registry.Refreshed, 1, "192.0.2.1"},
			{"change", message(0, 0, "192.0.2.2", "10.1.0.0/16"), registry.Changed, 1, "192.0.2.2"},
			{"refused", message(0, 0, "192.0.2.3", "11.0.0.0/8"), outOfScope, 0, "192.0.2.2"},
			{"withdrawal", withdrawal(), registry.Withdrawn, 1, ""},
			{"withdrawal again", withdrawal(), registry.Withdrawn, 0, ""},
			{"part 0", message(0, 2, "192.0.2.4", "10.2.0.0/16"), partial, 0, ""},
			{"part 1", message(1, 2, "192.0.2.4", "10.3.0.0/16"), registry.Added, 1, "192.0.2.4"},
		} {
			synctest.Wait()
			before := p.builds.Load()
			_, got, err := d.register(step.m, signedNow("k1."))
			if got != step.want || (err != nil) != (got == outOfScope) {
				t.Errorf("%s: Expected %s, got %s, %v", step.name, step.want, got, err)
			}
			addr := ""
			if m := ask(t, d, "10.0.0.1", "par1.lb."+testZone, dns.TypeA); len(m.Answer) == 1 {
				addr = m.Answer[0].(*dns.A).A.String()
			}
			if addr != step.addr {
				t.Errorf("%s: Expected the node at %q, got %q", step.name, step.addr, addr)
			}
			synctest.Wait()
			if n := p.builds.Load() - before; n != step.builds {
				t.Errorf("%s: Expected %d snapshots, got %d", step.name, step.builds, n)
			}
		}
	})
}
