package dnsb

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap/prefixmaptest"
)

// shown writes down all of a snapshot that does not depend on how it was made.
func (s *snapshot) shown() string {
	var b strings.Builder
	for id, n := range s.nodes {
		if n == nil {
			continue
		}
		fmt.Fprintf(&b, "node %d %s: %p %p, %s %q %v, %v %v %v, drained %v, negates %v, %d parts, deputies %v %v, %d\n", id, n.Node, n.Registration, n.record,
			n.state, n.reason, n.cuts, n.at, n.families, n.fqdn, n.drained, n.negates, len(n.parts), n.deputies, n.subnetDeputies, n.hash)
	}
	fmt.Fprintf(&b, "order %v, names %v, defaults %v, serial %d\n", s.order, s.names, s.defaults, s.serial)
	for _, name := range s.cutNames() {
		c := s.cuts[name]
		fmt.Fprintf(&b, "cut %s %s: %v %v, located %v %v, %d alive, %d with subnets, ds %v:", name, c.name, c.nodes, c.hashes, c.located, c.points, c.alive, c.withSubnets, c.ds)
		for id := range s.nodes {
			fmt.Fprintf(&b, " %d", c.state(nodeID(id)))
		}
		b.WriteString("\n")
	}
	for _, name := range slices.Sorted(maps.Keys(s.owners)) {
		o := s.owners[name]
		fmt.Fprintf(&b, "owner %s: %v %v %v", name, o.apex, o.addresses, o.isNode)
		if n := s.nodeOf(o); n != nil {
			fmt.Fprintf(&b, " %s", n.Node)
		}
		if o.part != nil {
			fmt.Fprintf(&b, " %s %d", o.part.name, len(o.part.prefixes))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestChangesMakeWhatAllMakes checks that a snapshot which is made from the previous
// one is that which is made of everything.
func TestChangesMakeWhatAllMakes(t *testing.T) {
	const nodes = 6
	seed := uint64(time.Now().UnixNano())
	t.Logf("Seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1)) // #nosec G404 -- a test
	var lines strings.Builder
	for i := range nodes {
		fmt.Fprintf(&lines, "accept k1 n%d any ds\n", i)
	}
	lines.WriteString("node s1 192.0.2.101 deputy n1 n2\nnode s2 2001:db8::2 location 10 20 client-subnets\ncut static.deep.gslb.example.org s1 n0\ncut later n5\ndefault s2 n3\nprefix 10.0.0.0/8 !n2 n1")
	p := newFakeProber()
	d := started(t, lines.String(), func() prober { return p })
	some := func(of ...string) (list []string) {
		for _, s := range of {
			if r.IntN(2) == 0 {
				list = append(list, s)
			}
		}
		return list
	}
	large := prefixmaptest.Prefixes(20_000, 1)
	kinds := make(map[string]int)
	for step := range 600 {
		name := fmt.Sprintf("n%d", r.IntN(nodes))
		reg := nodeAt(name, "192.0.2."+name[1:])
		lease := time.Hour
		kind := []string{"register", "register", "register", "refresh", "withdraw", "stale", "drain", "probe", "map", "parts"}[r.IntN(10)]
		switch kind {
		case "drain":
			d.mu.Lock()
			d.active = nil
			for _, node := range some("n0", "n1", "s1") {
				d.active = append(d.active, nodeOverride{Verb: verbDrain, Action: nodeAction{nodes: []string{node}}})
			}
			d.mu.Unlock()
			d.refresh()
		case "probe":
			p.say("192.0.2."+name[1:], probeResult(r.IntN(3)))
			p.say("192.0.2."+name[1:]+" svc."+testZone, probeResult(r.IntN(3)))
			d.refresh()
		case "map":
			m, err := newResolverMap(d.conf, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range d.registry.State().Records {
				m.register(rec.Node, rec.Registration, nil)
			}
			d.mu.Lock()
			d.resolvers = m
			d.mu.Unlock()
			d.refresh()
		case "withdraw":
			reg.Addresses, reg.Cuts = nil, nil
			registers(t, d, reg)
		case "refresh":
			if rec := d.registry.State().Records[name]; rec != nil {
				*reg = *rec.Registration
				registers(t, d, reg)
			}
		default:
			reg.Cuts = nil
			for _, cut := range some("svc", "a.b", "c.b", "x.y.z") {
				reg.Cuts = append(reg.Cuts, cut+"."+testZone)
			}
			slices.Sort(reg.Cuts)
			reg.Deputies, reg.ClientSubnets = some("n0", "n1", "s1", "s2", "unknown"), r.IntN(2) == 0
			if r.IntN(2) == 0 {
				reg.Addresses = append(reg.Addresses, netip.MustParseAddr("2001:db8::"+name[1:]))
				reg.Location = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m"
			}
			for _, cut := range reg.Cuts {
				if r.IntN(3) == 0 {
					reg.DS = append(reg.DS, registration.DS{Cut: cut, KeyTag: uint16(r.IntN(3)), Algorithm: 13, DigestType: 2, Digest: strings.Repeat("ab", 32)})
				}
			}
			if kind == "parts" {
				for _, prefix := range large[:r.IntN(len(large))] {
					reg.Prefixes = append(reg.Prefixes, registration.Prefix{Prefix: prefix})
				}
			}
			if kind == "stale" {
				lease = 0
			}
			if _, _, err := d.registry.Apply(reg, lease); err != nil {
				t.Fatal(err)
			}
			d.catchUp()
		}
		kinds[kind]++

		d.mu.Lock()
		got := d.snapshot.Load()
		records, serial := d.registry.Records()
		want, _ := build(d.conf, nil, input{d.resolvers, records, d.permitted, serial, inForce(d.active, d.resolvers), d.coldUntil(), d.health, d.sites(), nil})
		d.mu.Unlock()
		if got, want := got.shown(), want.shown(); got != want {
			t.Fatalf("Step %d, %s %s: expected\n%s\ngot\n%s", step, kind, name, want, got)
		}
	}
	if len(kinds) != 8 {
		t.Errorf("Expected all kinds of changes, got %v", kinds)
	}
}

// TestRefreshSharesSnapshot checks that a refresh makes nothing anew but the node.
func TestRefreshSharesSnapshot(t *testing.T) {
	d := started(t, fourNodes, nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
	registers(t, d, nodeAt("nyc1", "192.0.2.2", "10.1.0.0/16"))
	before := d.snapshot.Load()
	registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
	after := d.snapshot.Load()
	par, nyc := before.named("par1.lb."+testZone), before.named("nyc1.lb."+testZone)
	switch again := after.named(par.fqdn); {
	case again == par || again.record == par.record || after.serial == before.serial:
		t.Error("Expected the new lease and serial")
	case after.named(nyc.fqdn) != nyc || after.cuts["svc."+testZone] != before.cuts["svc."+testZone] || after.prefixes != before.prefixes:
		t.Error("Expected other nodes, cuts and prefixes to be the same")
	}
}
