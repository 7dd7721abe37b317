package dnsb

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
)

// mortal is a node that can fall silent, or refuse, and come back.
type mortal struct {
	name, addr string
	silent     atomic.Bool
	answered   atomic.Int32
	conn       net.PacketConn
}

func (m *mortal) start(t *testing.T) {
	t.Helper()
	var err error
	if m.conn, err = net.ListenPacket("udp", m.addr); err != nil {
		t.Skipf("%s is not an address of this machine: %v", m.addr, err)
	}
	go func(conn net.PacketConn) {
		buf := make([]byte, dns.MinMsgSize)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q, r := new(dns.Msg), new(dns.Msg)
			if m.silent.Load() || q.Unpack(buf[:n]) != nil {
				continue
			}
			r.SetReply(q)
			r.Authoritative = true
			wire, err := r.Pack()
			if err != nil {
				continue
			}
			m.answered.Add(1)
			_, _ = conn.WriteTo(wire, from)
		}
	}(m.conn)
}

// At the default settings, a node that falls silent is left out of referrals
// within 13 s, one that refuses within 9 s, and both are back after two answers.
func TestDeathOfNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute until nodes are dead and back")
	}
	const lines = `
		node quiet 127.0.0.3
		node closed 127.0.0.4
		node good 127.0.0.5
		cut quiet quiet good
		cut closed closed good
		prefix 127.0.0.0/8 quiet closed good
	}
	latencyprobe {`
	_, port := serve(t, lines)
	quiet, closed, good := &mortal{name: "quiet"}, &mortal{name: "closed"}, &mortal{name: "good"}
	for i, m := range []*mortal{quiet, closed, good} {
		m.addr = fmt.Sprintf("127.0.0.%d:%d", i+3, port)
		m.start(t)
	}
	t.Cleanup(func() {
		for _, m := range []*mortal{quiet, closed, good} {
			_ = m.conn.Close()
		}
	})
	referredTo := func(cut string) string {
		for _, rr := range query(t, port, "udp", "www."+cut+".gslb.example.org.", dns.TypeA).Ns {
			if ns, ok := rr.(*dns.NS); ok {
				return strings.SplitN(ns.Ns, ".", 2)[0]
			}
		}
		return ""
	}
	watch := testwatch.Start(t)
	wait := func(m *mortal, want string, limit time.Duration) {
		t.Helper()
		for end := watch.Elapsed() + limit; referredTo(m.name) != want; time.Sleep(20 * time.Millisecond) {
			if watch.Elapsed() > end {
				t.Fatalf("Expected resolvers of %s to be referred to %s within %s, got %s", m.name, want, limit, referredTo(m.name))
			}
		}
	}

	for end := time.Now().Add(patience); quiet.answered.Load() == 0 || closed.answered.Load() == 0 || good.answered.Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Expected all nodes to be probed")
		}
	}
	wait(quiet, "quiet", time.Second)
	wait(closed, "closed", time.Second)

	died := watch.Elapsed()
	quiet.silent.Store(true)
	_ = closed.conn.Close()
	wait(closed, "good", 9*time.Second)
	t.Logf("The one that refuses was left out after %s", watch.Elapsed()-died)
	wait(quiet, "good", 13*time.Second-(watch.Elapsed()-died))
	t.Logf("The silent one was left out after %s", watch.Elapsed()-died)

	back := watch.Elapsed()
	for _, m := range []*mortal{quiet, closed} {
		m.answered.Store(0)
	}
	closed.start(t)
	quiet.silent.Store(false)
	for _, m := range []*mortal{quiet, closed} {
		wait(m, m.name, 10*time.Second)
		if n := m.answered.Load(); n < 2 {
			t.Errorf("Expected %s to be back after 2 answers, got %d", m.name, n)
		}
	}
	t.Logf("Both were back after %s", watch.Elapsed()-back)
}

// A node whose lease ends is stale, and is named in referrals while it answers.
func TestStaleNodeServesWhileItAnswers(t *testing.T) {
	for _, tc := range []struct {
		name    string
		probe   bool
		said    probeResult
		want    string
		metrics nodeState
	}{
		{"not probed", false, notProbed, "nyc1", nodeDead},
		{"answers", true, answering, "par1", nodeStale},
		{"not known", true, notProbed, "nyc1", nodeDead},
		{"does not answer", true, silent, "nyc1", nodeDead},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newFakeProber()
			p.said["192.0.2.1"] = tc.said
			var probe func() prober
			if tc.probe {
				probe = func() prober { return p }
			}
			d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\nlease 1s 2h", probe)
			par, nyc := nodeAt("par1", "192.0.2.1", "10.0.0.0/8"), nodeAt("nyc1", "192.0.2.2")
			par.Lease, nyc.Lease = 10*time.Minute, time.Hour
			registers(t, d, par)
			registers(t, d, nyc)

			time.Sleep(10*time.Minute - time.Second)
			synctest.Wait()
			want := "par1"
			if tc.said == silent {
				want = "nyc1"
			}
			if got := referredTo(t, d, "10.0.0.1"); got != want {
				t.Errorf("%s: Expected %s during the lease, got %s", tc.name, want, got)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := referredTo(t, d, "10.0.0.1"); got != tc.want {
				t.Errorf("%s: Expected %s after the lease, got %s", tc.name, tc.want, got)
			}
			if n := gaugeValues(nodeCount, d.zone)[string(tc.metrics)]; n != 1 {
				t.Errorf("%s: Expected one %s node, got %v", tc.name, tc.metrics, n)
			}

			// All leases have ended: the last known ones, unless one answers.
			time.Sleep(time.Hour)
			synctest.Wait()
			want = "par1 nyc1"
			if tc.said == answering {
				want = "par1"
			}
			if got := namesReferred(t, d, "10.0.0.1"); got != want {
				t.Errorf("%s: Expected %s in the end, got %s", tc.name, want, got)
			}
			registers(t, d, nodeAt("nyc1", "192.0.2.2"))
			if tc.want != "par1" {
				if got := referredTo(t, d, "10.0.0.1"); got != "nyc1" {
					t.Errorf("%s: Expected the node that renewed its lease, got %s", tc.name, got)
				}
			}
		})
	}
}

// A change of health needs no query and no registration to take effect.
func TestReferralFollowsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProber()
		d := started(t, "accept k1 par1 any\naccept k1 nyc1 any", func() prober { return p })
		par := nodeAt("par1", "192.0.2.1", "10.0.0.0/8")
		par.Addresses = append(par.Addresses, par.Addresses[0].Next())
		registers(t, d, par)
		registers(t, d, nodeAt("nyc1", "192.0.2.9"))
		synctest.Wait()
		if len(p.asked) != 3 || p.asked[0].cut != "svc."+testZone {
			t.Errorf("Expected three addresses to be probed for svc, got %v", p.asked)
		}
		for _, step := range []struct {
			one, two probeResult
			want     string
		}{
			{answering, answering, "par1"},
			{silent, answering, "par1"},
			{silent, notProbed, "par1"},
			{silent, silent, "nyc1"},
			{silent, held, "nyc1"},
			{silent, answering, "par1"},
			{held, answering, "par1"},
		} {
			p.say("192.0.2.1", step.one)
			p.say("192.0.2.2", step.two)
			p.changes <- struct{}{}
			synctest.Wait()
			if got := referredTo(t, d, "10.0.0.1"); got != step.want {
				t.Errorf("%v, %v: Expected %s, got %s", step.one, step.two, step.want, got)
			}
		}
		// A node that answers again, but is held down, is better than a dead one.
		for _, step := range []struct {
			par, nyc probeResult
			want     string
		}{
			{silent, silent, "par1 nyc1"},
			{silent, held, "nyc1"},
			{held, held, "par1"},
			{held, notProbed, "nyc1"},
			{silent, silent, "par1 nyc1"},
		} {
			p.say("192.0.2.1", step.par)
			p.say("192.0.2.2", silent)
			p.say("192.0.2.9", step.nyc)
			p.changes <- struct{}{}
			synctest.Wait()
			if got := namesReferred(t, d, "10.0.0.1"); got != step.want {
				t.Errorf("par1 %v, nyc1 %v: Expected %s, got %s", step.par, step.nyc, step.want, got)
			}
		}
		m := ask(t, d, "10.0.0.1", "svc."+testZone, 1)
		if len(m.Extra) != 3 {
			t.Errorf("Expected all addresses of the nodes in a referral, got %v", m.Extra)
		}
	})
}

// nodeOf returns a node that serves cuts.
func nodeOf(name, addr string, cuts ...string) *registration.Registration {
	r := nodeAt(name, addr, "10.0.0.0/8")
	r.Cuts = nil
	for _, cut := range cuts {
		r.Cuts = append(r.Cuts, cut+"."+testZone)
	}
	return r
}

// A node that serves only some of its cuts is named in referrals of these.
func TestEachCutOfNodeIsJudgedByItself(t *testing.T) {
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProber()
		d := started(t, "accept k1 par1 any\nnode st1 192.0.2.9\ncut a st1\ncut b st1\ncut c st1 par1\nexplain 0.0.0.0/0", func() prober { return p })
		par := nodeOf("par1", "192.0.2.1", "a", "b")
		par.Addresses = append(par.Addresses, netip.MustParseAddr("192.0.2.2"))
		registers(t, d, par)
		asked := make(map[probeTarget]bool)
		for _, target := range p.asked {
			asked[target] = true
		}
		if len(p.asked) != 9 || len(asked) != 9 || !asked[probeTarget{"par1", par.Addresses[1], "c." + testZone}] {
			t.Errorf("Expected each cut to be probed at each address, also those of 'cut' lines, got %v", p.asked)
		}
		expect := func(step string, want map[string]string, live float64) {
			t.Helper()
			for cut, node := range want {
				e, err := d.Explain("www."+cut+"."+testZone, netip.MustParseAddr("10.0.0.1"))
				if err != nil || e.Referral[0].Node != node {
					t.Errorf("%s: Expected %s for %s, got %+v: %v", step, node, cut, e.Referral, err)
				}
				if got := gaugeValues(nodeCount, d.zone)[string(nodeLive)]; got != live {
					t.Errorf("%s: Expected %v live nodes, got %v", step, live, got)
				}
			}
		}
		say := func(cut string, one, two probeResult) {
			p.say("192.0.2.1 "+cut+"."+testZone, one)
			p.say("192.0.2.2 "+cut+"."+testZone, two)
			p.changes <- struct{}{}
			synctest.Wait()
		}
		log.Lines()
		expect("nothing known", map[string]string{"a": "par1", "b": "par1"}, 2)
		say("a", answering, answering)
		say("b", silent, answering)
		expect("one address", map[string]string{"a": "par1", "b": "par1"}, 2)
		log.Expect(t)
		say("b", silent, silent)
		expect("b is not served", map[string]string{"a": "par1", "b": "st1"}, 2)
		log.Expect(t, `Node "par1" does not answer for "b.`+testZone+`", leaving it out of the referrals: REFUSED`)
		e, err := d.Explain("b."+testZone, netip.MustParseAddr("10.0.0.1"))
		if err != nil || e.Candidates[0].Node != "par1" || e.Candidates[0].State != "dead" || e.Candidates[0].Why != "REFUSED" {
			t.Errorf("Expected the explanation to have the state of the cut, got %+v: %v", e.Candidates, err)
		}
		if n := d.Nodes()[0]; n.State != "live" || len(n.DeadCuts) != 1 || n.DeadCuts[0] != (DeadCut{"b." + testZone, "REFUSED"}) {
			t.Errorf("Expected a live node with one dead cut, got %+v", n)
		}
		if lines := d.nodeLines(); !strings.Contains(lines[0], ", dead for b."+testZone+" (REFUSED), ") {
			t.Errorf("Expected the dead cut in the list of nodes, got %q", lines)
		}
		say("a", silent, silent)
		say("c", silent, silent)
		expect("no cut is served", map[string]string{"a": "st1", "b": "st1"}, 1)
		log.Expect(t, `Node "par1" does not answer for "a.`, `Node "par1" is down, leaving it out of referrals: REFUSED`)
		say("b", answering, silent)
		expect("b is served", map[string]string{"a": "st1", "b": "par1"}, 2)
		log.Expect(t, `Node "par1" is up again`)
		say("a", answering, silent)
		expect("all are served", map[string]string{"a": "par1", "b": "par1"}, 2)
		log.Expect(t, `Node "par1" answers for "a.`)
	})
}

func TestTargetsOfManyCutsAreBounded(t *testing.T) {
	conf := newConfig(testZone)
	conf.rules["par1"] = []*acceptRule{{node: "par1"}}
	cuts := make([]string, 1000)
	for i := range cuts {
		cuts[i] = fmt.Sprintf("c%03d", i)
	}
	many := nodeOf("par1", "192.0.2.1", cuts...)
	many.Addresses = append(many.Addresses, many.Addresses[0].Next())
	p := newFakeProber()
	h := newHealth(p, conf)
	for _, n := range []*registration.Registration{many, nodeOf("nyc1", "192.0.2.9", "a", "b")} {
		h.probe(n, conf.cutsOf(n))
	}
	if len(p.asked) != maxNodeTargets+2 {
		t.Errorf("Expected %d targets, got %d", maxNodeTargets+2, len(p.asked))
	}
	p.say("192.0.2.1", silent)
	p.say("192.0.2.2", silent)
	if got := h.of(many, conf.cutsOf(many)); len(got) != 1000 || got[999].result != silent || got[999].reason != "timeout" {
		t.Errorf("Expected a cut that is not probed to be dead with the others, got %v", got[999])
	}
	p.say("192.0.2.2 "+many.Cuts[100], answering)
	if got := h.of(many, conf.cutsOf(many)); got[999].result != answering || got[100].result != answering || got[99].result != silent {
		t.Errorf("Expected a cut that is not probed to be live with one other, got %v", got[999])
	}

	// What one node registers changes nothing for the others.
	nodes := []*registration.Registration{many}
	for i := range maxTargets / 20 {
		name := fmt.Sprintf("n%d", i)
		conf.rules[name] = []*acceptRule{{node: name}}
		nodes = append(nodes, nodeOf(name, "192.0.2.1", cuts[:i%19+1]...))
	}
	others := func(nodes ...*registration.Registration) map[string]int {
		t.Helper()
		p := newFakeProber()
		h := newHealth(p, conf)
		for _, n := range nodes {
			h.probe(n, conf.cutsOf(n))
		}
		if len(p.asked) > maxTargets {
			t.Errorf("Expected at most %d targets, got %d", maxTargets, len(p.asked))
		}
		probed := make(map[string]int)
		for _, target := range p.asked {
			if target.node != many.Node {
				probed[target.node]++
			}
		}
		return probed
	}
	with, without := others(nodes...), others(nodes[1:]...)
	if !maps.Equal(with, without) || len(with) != len(nodes)-1 {
		t.Errorf("Expected the other nodes to be probed as without a node of many cuts, got %v and %v", with, without)
	}
	for i, n := range nodes[1:] {
		if with[n.Node] != i%19+1 {
			t.Fatalf("Expected all %d cuts of node %s to be probed, got %d", i%19+1, n.Node, with[n.Node])
		}
	}
}
