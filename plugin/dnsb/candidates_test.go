package dnsb

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// fakeProber says what the test says.
type fakeProber struct {
	mu      sync.Mutex
	said    map[string]probeResult
	asked   []probeTarget
	changes chan struct{}
}

func newFakeProber() *fakeProber {
	return &fakeProber{said: make(map[string]probeResult), changes: make(chan struct{}, 1)}
}

func (p *fakeProber) say(addr string, a probeResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said[addr] = a
}

func (p *fakeProber) replace(removed, added []probeTarget) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = slices.DeleteFunc(p.asked, func(w probeTarget) bool { return slices.Contains(removed, w) })
	p.asked = append(p.asked, added...)
}

// changedNodes returns all nodes: the results of each may have changed.
func (p *fakeProber) changedNodes() (nodes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.asked {
		nodes = append(nodes, w.node)
	}
	return nodes
}

func (p *fakeProber) result(w probeTarget) (probeResult, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.said[w.addr.String()+" "+w.cut]; ok { // for one cut
		return a, "REFUSED"
	}
	return p.said[w.addr.String()], "timeout"
}

func (p *fakeProber) changed() <-chan struct{} { return p.changes }
func (p *fakeProber) close()                   {}

const fourNodes = `
	accept k1 par1 any
	accept k1 nyc1 any
	accept k1 sin1 any
	node   st1 192.0.2.4
	cut    svc st1
`

func TestFirstEligibleCandidate(t *testing.T) {
	const (
		par, nyc, sin, st = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"
	)
	hashed := map[string]string{} // 100 resolvers, of any node
	tests := []struct {
		name  string
		lines string
		par   []string // prefixes
		nyc   []string
		dead  []string
		want  map[string]string
	}{
		{
			name: "longest prefix", par: []string{"10.0.0.0/8", "2001:db8::/32"}, nyc: []string{"10.1.0.0/16", "2001:db8:1::/48"},
			want: map[string]string{
				"10.0.0.1": "par1", "10.1.0.1": "nyc1", "2001:db8::1": "par1", "2001:db8:1::1": "nyc1", "::ffff:10.1.0.1": "nyc1", "64:ff9b::10.1.0.1": "nyc1",
			},
		},
		{
			name: "dead, next shorter prefix", par: []string{"10.0.0.0/8"}, nyc: []string{"10.1.0.0/16"}, dead: []string{nyc},
			want: map[string]string{"10.1.0.1": "par1"},
		},
		{
			name: "same prefix, by name", par: []string{"10.0.0.0/8"}, nyc: []string{"10.0.0.0/8"},
			want: map[string]string{"10.1.0.1": "nyc1"},
		},
		{
			name: "same prefix, dead", par: []string{"10.0.0.0/8"}, nyc: []string{"10.0.0.0/8"}, dead: []string{nyc},
			want: map[string]string{"10.1.0.1": "par1"},
		},
		{
			name: "operator wins at the same prefix", lines: "prefix 10.0.0.0/8 st1 par1", nyc: []string{"10.0.0.0/8", "10.1.0.0/16"},
			want: map[string]string{"10.0.0.1": "st1", "10.1.0.1": "nyc1"},
		},
		{
			name: "operator's nodes in order", lines: "prefix 10.0.0.0/8 st1 par1", nyc: []string{"10.0.0.0/8"}, dead: []string{st},
			want: map[string]string{"10.0.0.1": "par1"},
		},
		{
			name: "operator's nodes dead", lines: "prefix 10.0.0.0/8 st1 par1", nyc: []string{"10.0.0.0/8"}, dead: []string{st, par},
			want: map[string]string{"10.0.0.1": "nyc1"},
		},
		{
			name: "negated", lines: "default sin1", par: []string{"10.0.0.0/8", "!10.1.0.0/16", "10.1.2.0/24"},
			want: map[string]string{"10.0.0.1": "par1", "10.1.0.1": "sin1", "10.1.2.1": "par1"},
		},
		{
			name: "negated by one of two nodes", lines: "default sin1", par: []string{"10.0.0.0/8", "!10.1.0.0/16"}, nyc: []string{"10.0.0.0/12"},
			want: map[string]string{"10.1.0.1": "nyc1", "10.200.0.1": "par1"},
		},
		{
			name: "negated by the default node", lines: "default par1 sin1", par: []string{"!10.1.0.0/16"},
			want: map[string]string{"10.1.0.1": "sin1", "10.2.0.1": "par1"},
		},
		{
			name: "negated against the operator's shorter line", lines: "prefix 10.0.0.0/8 par1\ndefault sin1", par: []string{"!10.1.0.0/16"},
			want: map[string]string{"10.1.0.1": "sin1", "10.2.0.1": "par1"},
		},
		{
			name: "negated against the operator's same line", lines: "prefix 10.1.0.0/16 par1\ndefault sin1", par: []string{"!10.1.0.0/16"},
			want: map[string]string{"10.1.0.1": "par1"},
		},
		{
			name: "default", lines: "default st1 par1", nyc: []string{"10.0.0.0/8"},
			want: map[string]string{"172.16.0.1": "st1"},
		},
		{
			name: "default dead", lines: "default st1 par1", nyc: []string{"10.0.0.0/8"}, dead: []string{st},
			want: map[string]string{"172.16.0.1": "par1"},
		},
		{
			name: "hash", nyc: []string{"10.0.0.0/8"},
			want: hashed,
		},
		{
			name: "all dead, as if all were live", lines: "default sin1", par: []string{"10.0.0.0/8"}, nyc: []string{"10.1.0.0/16"},
			dead: []string{par, nyc, sin, st},
			want: map[string]string{"10.1.0.1": "nyc1 par1", "10.0.0.1": "par1 sin1", "172.16.0.1": "sin1 par1"},
		},
		{
			name: "all dead, all negated", par: []string{"!10.0.0.0/8"}, nyc: []string{"!10.0.0.0/8"}, dead: []string{par, nyc, sin, st}, lines: "default par1",
			want: map[string]string{"11.0.0.1": "par1 nyc1"},
		},
	}
	for i := range 100 {
		hashed[fmt.Sprintf("172.16.%d.1", i)] = ""
	}
	for _, tc := range tests {
		p := newFakeProber()
		for _, addr := range tc.dead {
			p.say(addr, silent)
		}
		d := started(t, fourNodes+tc.lines, func() prober { return p })
		registers(t, d, nodeAt("par1", par, tc.par...))
		registers(t, d, nodeAt("nyc1", nyc, tc.nyc...))
		registers(t, d, nodeAt("sin1", sin))
		spread := map[string]int{}
		for from, want := range tc.want {
			got := namesReferred(t, d, from)
			spread[got]++
			if want != "" && got != want {
				t.Errorf("%s: Expected %s to be referred to %s, got %s", tc.name, from, want, got)
			}
		}
		if tc.name == "hash" {
			for _, node := range []string{"par1", "nyc1", "sin1", "st1"} {
				if n := spread[node]; n < 10 || n > 45 {
					t.Errorf("Expected the hash to spread 100 resolvers evenly, got %v", spread)
				}
			}
		}
	}
}

// TestHashMovesOnlyResolversOfDeadNode checks rendezvous hashing.
func TestHashMovesOnlyResolversOfDeadNode(t *testing.T) {
	p := newFakeProber()
	d := started(t, fourNodes, func() prober { return p })
	for i, name := range []string{"par1", "nyc1", "sin1"} {
		registers(t, d, nodeAt(name, fmt.Sprintf("192.0.2.%d", i+1)))
	}
	before := map[string]string{}
	for i := range 200 {
		from := fmt.Sprintf("172.16.%d.1", i)
		before[from] = referredTo(t, d, from)
		if same := referredTo(t, d, fmt.Sprintf("172.16.%d.200", i)); same != before[from] {
			t.Errorf("Expected one node for a /24, got %s and %s", before[from], same)
		}
	}
	p.say("192.0.2.2", silent)
	d.refresh()
	for from, node := range before {
		if now := referredTo(t, d, from); (now != node) != (node == "nyc1") {
			t.Errorf("Expected %s to move only if its node died: %s to %s", from, node, now)
		}
	}
}

func TestNodeIsEligibleOnlyForItsCuts(t *testing.T) {
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\ndefault par1", nil)
	par, nyc := nodeAt("par1", "192.0.2.1", "10.0.0.0/8"), nodeAt("nyc1", "192.0.2.2")
	nyc.Cuts = []string{"other." + testZone}
	registers(t, d, par)
	registers(t, d, nyc)
	for _, from := range []string{"10.0.0.1", "11.0.0.1"} {
		if got := namesReferred(t, d, from); got != "par1" {
			t.Errorf("Expected %s to be referred to par1, got %s", from, got)
		}
		m := ask(t, d, from, "other."+testZone, 1)
		if len(m.Ns) != 1 || m.Ns[0].String() != "other."+testZone+"\t30\tIN\tNS\tnyc1.lb."+testZone {
			t.Errorf("Expected a referral to nyc1, got %v", m.Ns)
		}
	}
	nyc.Cuts = []string{"svc." + testZone}
	registers(t, d, nyc)
	if m := ask(t, d, "10.0.0.1", "other."+testZone, 1); m.Rcode != 3 {
		t.Errorf("Expected NXDOMAIN for a cut that was given up, got %v", m)
	}
}
