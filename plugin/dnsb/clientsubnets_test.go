package dnsb

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

// tailoring returns r of a node with client subnets.
func tailoring(r *registration.Registration) *registration.Registration {
	c := *r
	c.ClientSubnets = true
	return &c
}

// namesReferred returns the nodes that a resolver is referred to, in order.
func namesReferred(t testing.TB, d *DNSB, from string) string {
	t.Helper()
	var nodes []string
	for _, rr := range ask(t, d, from, "www.svc."+testZone, dns.TypeA).Ns {
		if ns, ok := rr.(*dns.NS); ok {
			nodes = append(nodes, strings.TrimSuffix(ns.Ns, ".lb."+testZone))
		}
	}
	return strings.Join(nodes, " ")
}

// TestDeputyOfNodeWithClientSubnetsHasThem has three nodes, par1 with the deputies
// lon1 and fra1. The letters are the nodes with client subnets, and those that are
// dead.
func TestDeputyOfNodeWithClientSubnetsHasThem(t *testing.T) {
	addresses := map[string]string{"par1": "192.0.2.1", "lon1": "192.0.2.2", "fra1": "192.0.2.3"}
	for _, tc := range []struct {
		name, with, dead string
		want             string
		reason           string // end of it
	}{
		{"none", "", "", "par1 lon1", "; lon1 is its first eligible deputy"},
		{"all", "par1 lon1 fra1", "", "par1 lon1", "; lon1 is its first eligible deputy"},
		{"not the first deputy", "par1 fra1", "", "par1 fra1", "; fra1 is its first eligible deputy with client-subnets"},
		{"only the node", "par1", "", "par1", "; par1 has client-subnets, so no deputy without it is named beside it"},
		{"the deputy that has them is dead", "par1 fra1", "fra1", "par1", "; par1 has client-subnets, so no deputy without it is named beside it"},
		{"only a deputy", "lon1", "", "par1 lon1", "; lon1 is its first eligible deputy"},
		{"only the other deputy", "fra1", "", "par1 lon1", "; lon1 is its first eligible deputy"},
		{"all, node dead", "par1 lon1 fra1", "par1", "lon1 fra1", "; fra1 is the next eligible deputy"},
		{"none, node dead", "", "par1", "lon1 fra1", "; fra1 is the next eligible deputy"},
		{"node dead, its deputy with them first", "par1 fra1", "par1", "fra1", "; fra1 has client-subnets, so no deputy without it is named beside it"},
		{"node dead and without them", "fra1", "par1", "lon1 fra1", "; fra1 is the next eligible deputy"},
		{"node dead and without them, unlike its first deputy", "lon1", "par1", "lon1", "; lon1 has client-subnets, so no deputy without it is named beside it"},
		{"node dead, no deputy with them", "par1", "par1", "lon1 fra1", "; fra1 is the next eligible deputy"},
		{"node and first deputy dead", "par1 lon1", "par1 lon1", "fra1", "and fra1 is its first eligible deputy"},
		{"all dead", "par1", "par1 lon1 fra1", "par1", "; no node of the cut answers, so this is the last known one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newFakeProber()
			d := started(t, "accept k1 par1 any\naccept k1 lon1 any\naccept k1 fra1 any", func() prober { return p })
			for name, addr := range addresses {
				r := nodeAt(name, addr)
				if name == "par1" {
					r = nodeAt(name, addr, "10.0.0.0/8")
					r.Deputies = []string{"nobody", "lon1", "fra1"}
				}
				r.ClientSubnets = strings.Contains(tc.with, name)
				registers(t, d, r)
				if strings.Contains(tc.dead, name) {
					p.say(addr, silent)
				}
			}
			d.refresh()
			if got := namesReferred(t, d, "10.0.0.1"); got != tc.want {
				t.Errorf("Expected a referral to %s, got %s", tc.want, got)
			}
			e := explained(t, d, "10.0.0.1")
			if named(e) != tc.want || !strings.HasSuffix(e.Reason, tc.reason) {
				t.Errorf("Expected %s because of %q, got %s because of %q", tc.want, tc.reason, named(e), e.Reason)
			}
		})
	}
}

// TestClientSubnetsOfStaticNodes takes them from the Corefile.
func TestClientSubnetsOfStaticNodes(t *testing.T) {
	logtest.Capture(t)
	d := started(t, `
		node par1 192.0.2.1 location 48.86 2.35 deputy lon1 fra1 client-subnets
		node lon1 192.0.2.2
		node fra1 192.0.2.3 client-subnets
		cut svc par1 lon1 fra1
		prefix 10.0.0.0/8 par1
		prefix 11.0.0.0/8 lon1`, nil)
	for from, want := range map[string]string{"10.0.0.1": "par1 fra1", "11.0.0.1": "lon1"} {
		if got := namesReferred(t, d, from); got != want {
			t.Errorf("Expected %s to be referred to %s, got %s", from, want, got)
		}
	}
	if err := d.conf.checkClientSubnets(); err == nil || !strings.Contains(err.Error(), "Testfile:1 - Error") ||
		!strings.Contains(err.Error(), "cut 'svc.gslb.example.org.' has nodes with 'client-subnets' (par1 fra1) and without (lon1)") {
		t.Errorf("Expected an error that names the nodes, got %v", err)
	}
	lines := strings.Join(d.nodeLines(), "\n")
	for _, want := range []string{"fra1 live, static, client-subnets, 0 prefixes", "lon1 live, static, 0 prefixes"} {
		if !strings.Contains(lines, want) {
			t.Errorf("Expected the line %q, got:\n%s", want, lines)
		}
	}
	for _, lines := range []string{
		"node par1 192.0.2.1 client-subnets\nnode lon1 192.0.2.2 client-subnets\ncut svc par1 lon1",
		"node par1 192.0.2.1\nnode lon1 192.0.2.2\ncut svc par1 lon1",
		"node par1 192.0.2.1 client-subnets\nnode lon1 192.0.2.2\ncut svc par1\ncut other lon1",
		"node par1 192.0.2.1 client-subnets\naccept k1 lon1 any\ncut svc par1 lon1",
	} {
		if err := started(t, lines, nil).conf.checkClientSubnets(); err != nil {
			t.Errorf("%s: Expected no error, got %v", lines, err)
		}
	}
}

// TestNodesThatDifferInClientSubnetsAreReported follows a cut whose nodes get client
// subnets one after the other: in the log, in the metrics and in explanations.
func TestNodesThatDifferInClientSubnetsAreReported(t *testing.T) {
	const svc = "svc." + testZone
	synctest.Test(t, func(t *testing.T) {
		l := logtest.Capture(t)
		z, p := newZone(testZone), newFakeProber()
		lines := "accept k1 par1 any\naccept k1 lon1 any\naccept k1 fra1 any\nlease 2h 2h"
		d := startedWith(t, z, lines, func() prober { return p })
		par, lon, fra := nodeAt("par1", "192.0.2.1"), nodeAt("lon1", "192.0.2.2"), nodeAt("fra1", "192.0.2.3")
		par.Deputies = []string{"lon1"}
		fra.Cuts = []string{"other." + testZone}
		const found = `Found nodes of "svc.gslb.example.org." with client-subnets (par1) and without (lon1), the former get no deputy among the latter`
		const recovered = `Recovered: the nodes of "svc.gslb.example.org." agree on client-subnets`
		register := func(r *registration.Registration) func() { return func() { registers(t, d, r) } }
		say := func(addr string, answer probeResult) func() { return func() { p.say(addr, answer); d.refresh() } }
		for _, step := range []struct {
			name    string
			do      func()
			log     []string
			without string // nodes in explanations
		}{
			{"first node", register(par), nil, ""},
			{"second node", register(lon), nil, ""},
			{"node of another cut has them", register(tailoring(fra)), nil, ""},
			{"first one has them", register(tailoring(par)), []string{found}, "lon1"},
			{"refresh", register(tailoring(par)), nil, "lon1"},
			{"a reload", func() { d = startedWith(t, z, lines, func() prober { return p }) }, nil, "lon1"},
			{"after some minutes", func() { time.Sleep(reminder.Interval); d.refresh() }, []string{found}, "lon1"},
			{"the other one is dead", say("192.0.2.2", silent), []string{`Node "lon1" is down`, recovered}, ""},
			{"and answers again", say("192.0.2.2", answering), []string{`Node "lon1" is up again`, found}, "lon1"},
			{"all have them", register(tailoring(lon)), []string{recovered}, ""},
			{"back", register(lon), []string{found}, "lon1"},
			{"withdrawal", func() { register(&registration.Registration{Zone: testZone, Node: "lon1"})() }, []string{recovered}, ""},
		} {
			step.do()
			mixed := 0.0
			if step.without != "" {
				mixed = 1
			}
			l.Expect(t, step.log...)
			if got := gaugeValues(mixedCount, z)[""]; got != mixed {
				t.Errorf("%s: Expected %v mixed cuts, got %v", step.name, mixed, got)
			}
			e := explained(t, d, "203.0.113.1")
			if got := strings.Join(e.Without, " "); got != step.without {
				t.Errorf("%s: Expected %q without client subnets, got %q", step.name, step.without, got)
			}
			text := strings.Join(d.explainLines(svc, e.Address), "\n")
			if line := "without client-subnets, which other nodes of the cut have: " + step.without; strings.Contains(text, "client-subnets, which") != (mixed > 0) || mixed > 0 && !strings.Contains(text, line) {
				t.Errorf("%s: Expected %q in the explanation: %v, got:\n%s", step.name, line, mixed > 0, text)
			}
			if t.Failed() {
				t.Fatalf("Expected no failure at step %q", step.name)
			}
		}
		status, err := json.Marshal(d.Nodes())
		if err != nil || strings.Count(string(status), `"client_subnets":true`) != 2 {
			t.Errorf("Expected two nodes with client subnets, got %s, %v", status, err)
		}
	})
}

// TestManyNodesAreNamedInPart bounds the warning.
func TestManyNodesAreNamedInPart(t *testing.T) {
	if got := someNames(strings.Fields("a b c d e f g")); got != "a b c d e and 2 more" {
		t.Errorf("Expected the first names and a number, got %q", got)
	}
}
