package widearea

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestOracleNoticesBrokenPromises gives the oracle one query, one reply of a
// DNS-B and the state of the world.
func TestOracleNoticesBrokenPromises(t *testing.T) {
	start := time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	type out struct {
		thing    string
		why      cause
		from, to int // to 0: it lasts
	}
	const now = 600
	servfail := result{rcode: dns.RcodeServerFailure, answered: true}
	for _, tc := range []struct {
		name    string
		outages []out
		result  result // of Madrid at now
		nodes   []string
		broken  int
	}{
		{"an answer", nil, result{answered: true, server: "Frankfurt"}, []string{"Paris", "Osaka"}, 0},
		{"SERVFAIL while all works", nil, servfail, []string{"Paris", "Osaka"}, 1},
		{"no address while all works", nil, result{answered: true}, []string{"Paris", "Osaka"}, 1},
		{"no reply", nil, result{}, []string{"Paris", "Osaka"}, 0},
		{"SERVFAIL while the deputy works", []out{{nodeIn("Paris"), gone, 595, 0}}, servfail, []string{"Paris", "Osaka"}, 1},
		{"SERVFAIL while no node works", []out{{nodeIn("Paris"), gone, 595, 0}, {nodeIn("Osaka"), gone, 599, 0}}, servfail, []string{"Paris", "Osaka"}, 0},
		{"SERVFAIL while the deputy loses packets", []out{{nodeIn("Paris"), gone, 595, 0}, {pathOf("Osaka", "Madrid"), lossy, 590, 0}}, servfail, []string{"Paris", "Osaka"}, 0},
		{"SERVFAIL soon after the node is back", []out{{nodeIn("Paris"), gone, 570, 590}}, servfail, []string{"Paris"}, 0},
		{"SERVFAIL long after the node is back", []out{{nodeIn("Paris"), gone, 400, 490}}, servfail, []string{"Paris"}, 1},
		{"SERVFAIL while one DNS-B works", []out{{dnsBIn("London"), gone, 590, 0}}, servfail, []string{"Paris", "Osaka"}, 1},
		{"SERVFAIL while no DNS-B works", []out{{dnsBIn("London"), gone, 590, 0}, {pathOf("NewYork", "Madrid"), gone, 590, 0}}, servfail, []string{"Osaka"}, 0},
		{"SERVFAIL while the resolver starves", []out{{resolverIn("Madrid"), starved, 598, 601}}, servfail, []string{"Paris", "Osaka"}, 0},
		{"SERVFAIL while the test starves", []out{{harness, starved, 594, 595}}, servfail, []string{"Paris", "Osaka"}, 0},
		{"a server that died just now", []out{{serverIn("Frankfurt"), gone, 590, 0}}, result{answered: true, server: "Frankfurt"}, []string{"Paris", "Osaka"}, 0},
		{
			"a dead server, by a node that goes on meanwhile", []out{{serverIn("Frankfurt"), gone, 570, 0}, {nodeIn("Osaka"), gone, 560, 601}},
			result{answered: true, server: "Frankfurt"}, []string{"Paris"}, 0,
		},
		{"a server that died long ago", []out{{serverIn("Frankfurt"), gone, 570, 0}}, result{answered: true, server: "Frankfurt"}, []string{"Paris", "Osaka"}, 1},
		{
			"a dead server, after a node started anew", []out{{serverIn("Frankfurt"), gone, 570, 0}, {nodeIn("Osaka"), gone, 570, 590}},
			result{answered: true, server: "Frankfurt"}, []string{"Paris", "Osaka"}, 0,
		},
		{
			"a dead server, while all are dead", []out{
				{serverIn("Frankfurt"), gone, 570, 0}, {serverIn("Washington"), gone, 570, 0}, {serverIn("Tokyo"), gone, 570, 0}, {serverIn("SaoPaulo"), gone, 570, 0},
			},
			result{answered: true, server: "Frankfurt"}, []string{"Paris", "Osaka"}, 0,
		},
		{"a referral to a node that died just now", []out{{nodeIn("Osaka"), gone, 595, 0}}, result{}, []string{"Paris", "Osaka"}, 0},
		{"a referral to a node that died long ago", []out{{nodeIn("Osaka"), gone, 580, 0}}, result{}, []string{"Paris", "Osaka"}, 1},
		{"a referral to a dead node by a DNS-B that started anew", []out{{nodeIn("Osaka"), gone, 560, 0}, {dnsBIn("London"), gone, 570, 589}}, result{}, []string{"Paris", "Osaka"}, 0},
		{"no referral", nil, result{}, nil, 1},
		{"no referral by a DNS-B that is dead", []out{{dnsBIn("London"), gone, 570, 599}}, result{}, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			for _, o := range tc.outages {
				if end := w.begin(o.thing, o.why, at(o.from)); o.to != 0 {
					end(at(o.to))
				}
			}
			r := tc.result
			r.city, r.brand, r.question, r.start, r.end = "Madrid", bind.name, questions[0], at(now), at(now+1)
			s := sighting{resolver: "Madrid", dnsB: "London", at: at(now), nodes: tc.nodes, rcode: dns.RcodeSuccess}
			o := &oracle{world: w, referralTTL: chaosReferralTTL, results: []result{r}, sightings: []sighting{s}}
			if v := o.judge(); len(v.broken) != tc.broken {
				t.Errorf("Expected %d broken promises, got %d: %q", tc.broken, len(v.broken), v.broken)
			}
		})
	}
}

// TestOracleCountsRepeatedFailureOnce has a resolver repeat a failure from its
// cache after the node is back.
func TestOracleCountsRepeatedFailureOnce(t *testing.T) {
	start := time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)
	w := newWorld()
	w.begin(nodeIn("Paris"), gone, start.Add(-time.Second))(start.Add(time.Second))
	o := &oracle{world: w, referralTTL: chaosReferralTTL}
	o.sightings = []sighting{{resolver: "Madrid", dnsB: "London", at: start.Add(-time.Minute), nodes: []string{"Paris"}}}
	for _, seconds := range []int{0, 58, 116, 130} {
		at := start.Add(time.Duration(seconds) * time.Second)
		o.results = append(o.results, result{
			city: "Madrid", brand: powerDNS.name, question: questions[0], start: at, end: at, answered: true, rcode: dns.RcodeServerFailure,
		})
	}
	if c := o.judge().brands[powerDNS.name]; c.broken != 2 || c.failures != 2 {
		t.Errorf("Expected 2 failures inside and 2 outside of the promise, got %d and %d", c.broken, c.failures)
	}
}

// TestOracleKnowsReferralsOfBothFamilies has the IPv6 address of a resolver get
// a referral of its own, whose only node is dead.
func TestOracleKnowsReferralsOfBothFamilies(t *testing.T) {
	now := time.Date(2026, 1, 30, 12, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{now.Add(-10 * time.Second), now.Add(-10 * time.Minute)} {
		w := newWorld()
		w.begin(nodeIn("Osaka"), gone, now.Add(-5*time.Second))
		o := &oracle{world: w, referralTTL: chaosReferralTTL}
		o.results = []result{{city: "Madrid", brand: bind.name, question: questions[0], start: now, end: now, answered: true, rcode: dns.RcodeServerFailure}}
		o.sightings = []sighting{
			{resolver: "Madrid", dnsB: "London", to: netip.MustParseAddr("2001:db8::1"), at: at, nodes: []string{"Osaka"}},
			{resolver: "Madrid", dnsB: "London", to: netip.MustParseAddr("192.0.2.1"), at: at.Add(time.Second), nodes: []string{"Paris"}},
		}
		if v := o.judge(); len(v.broken) != 0 {
			t.Errorf("Expected no broken promise, got %q", v.broken)
		}
	}
}

func TestPlanFollowsSeed(t *testing.T) {
	first := plan(1, time.Hour)
	if !reflect.DeepEqual(first, plan(1, time.Hour)) {
		t.Error("Expected the same faults from the same seed")
	}
	if reflect.DeepEqual(first, plan(2, time.Hour)) {
		t.Error("Expected other faults from another seed")
	}
	seen := make(map[string]bool)
	for _, f := range first {
		seen[f.kind] = true
		if f.target == f.other {
			t.Errorf("Expected a path between two cities, got %s", f)
		}
	}
	for _, k := range kinds {
		if !seen[k.name] {
			t.Errorf("Expected a fault of kind '%s' in an hour", k.name)
		}
	}
}
