package dnsb

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"pgregory.net/rapid"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

var (
	modelKeys      = []string{"k1.", "k2.", "k3."}
	modelNodes     = []string{"a", "b", "c", "d"}
	modelPrefixes  = []string{"10.1.0.0/16", "10.2.0.0/16", "11.0.0.0/8", "11.3.0.0/16"}
	modelCuts      = []string{"svc", "other", "deep.other", "deep.svc"}
	modelResolvers = []string{"10.1.0.1", "10.2.0.1", "11.3.0.1", "192.0.2.200"}
)

// staticNode has the cut svc in all configurations.
var staticNode = nodeAt("nyc1", "192.0.2.54")

// modelConfig is what the operator wrote, as lines and once more for the model.
type modelConfig struct {
	lines    string
	accepts  map[string]modelRule // by key and node
	operator map[string][]string  // nodes by prefix, best first
}

// modelRule is what a key may register of a node.
type modelRule struct{ prefixes, cuts []string }

// modelConfigs are those between which reloads change. Nobody may have deep.svc,
// below a cut of the block.
var modelConfigs = []modelConfig{
	{
		`accept k1 a 10.0.0.0/8 for svc
		accept k1 b any for svc other
		accept k2 b 11.0.0.0/8 for other
		accept k2 c any
		prefix 10.1.0.0/16 nyc1`,
		map[string]modelRule{
			"k1. a": {modelPrefixes[:2], modelCuts[:1]},
			"k1. b": {modelPrefixes, modelCuts[:2]},
			"k2. b": {modelPrefixes[2:], modelCuts[1:2]},
			"k2. c": {modelPrefixes, modelCuts[:3]},
		},
		map[string][]string{"10.1.0.0/16": {"nyc1"}},
	},
	{
		`accept k1 a 10.1.0.0/16 for svc other
		accept k2 b 11.0.0.0/8 for other
		accept k2 c any
		accept k1 d any for other
		prefix 10.2.0.0/16 b nyc1
		prefix 11.0.0.0/8 c`,
		map[string]modelRule{
			"k1. a": {modelPrefixes[:1], modelCuts[:2]},
			"k2. b": {modelPrefixes[2:], modelCuts[1:2]},
			"k2. c": {modelPrefixes, modelCuts[:3]},
			"k1. d": {modelPrefixes, modelCuts[1:2]},
		},
		map[string][]string{"10.2.0.0/16": {"b", "nyc1"}, "11.0.0.0/8": {"c"}},
	},
}

// permits reports whether a key may register reg; key may be "", for any of them.
func (c modelConfig) permits(key string, reg *registration.Registration) bool {
	var prefixes, cuts []string
	found := false
	for id, rule := range c.accepts {
		if k, node, _ := strings.Cut(id, " "); node == reg.Node && (key == "" || key == k) {
			found, prefixes, cuts = true, append(prefixes, rule.prefixes...), append(cuts, rule.cuts...)
		}
	}
	return found &&
		!slices.ContainsFunc(reg.Prefixes, func(p registration.Prefix) bool { return !slices.Contains(prefixes, p.Prefix.String()) }) &&
		!slices.ContainsFunc(reg.Cuts, func(cut string) bool { return !slices.Contains(cuts, strings.TrimSuffix(cut, "."+testZone)) })
}

// storeUnderTest is where the servers of the model store registrations.
type storeUnderTest interface {
	servers() int
	// location returns where a server stores registrations that starts now; nil:
	// in memory only.
	location(server int) registry.Location
	// crash leaves what is stored when the process of a server ends now.
	crash(server int)
	// reachable reports whether all servers reach it.
	reachable() bool
	// settle makes all servers reach it, and know all that is stored.
	settle(*rapid.T, *model)
	// actions returns those that only this store has.
	actions(*model) map[string]func(*rapid.T)
	// close removes what is stored, once all servers have ended.
	close()
}

// model is some servers, under random registrations, and what they must hold.
type model struct {
	t       *testing.T
	store   storeUnderTest
	servers []*modelServer
	config  modelConfig
	now     time.Time                // by a clock that is right
	skew    map[string]time.Duration // of the clock of each node

	states map[string][]nodeVersion // of each node, oldest first; there is one at least
	ended  map[string]bool          // nodes whose lease may have ended in a shared store
	sent   []*modelMessage
	parts  uint64 // highest serial of those in parts
}

// nodeVersion is what was registered of a node after an UPDATE.
type nodeVersion struct {
	reg  *registration.Registration // nil: nothing
	sure bool                       // the UPDATE was acknowledged
}

// modelServer is one DNS-B.
type modelServer struct {
	*host
	number   int
	ahead    time.Duration // of its clock
	d        *DNSB
	z        *zone
	prober   *fakeProber
	location registry.Location

	seen     map[string]int       // version of each node that it has seen at least
	last     map[string]uint64    // last serials
	leaseEnd map[string]time.Time // unless the store ends leases
	graceEnd time.Time            // of a shared store: no lease ends earlier
	cold     bool                 // it has not seen its store
}

func newModel(t *testing.T, store storeUnderTest) *model {
	t.Helper()
	o := &model{
		t: t, store: store, config: modelConfigs[0],
		now:   time.Date(2000, 1, 1, 6, 0, 0, 0, time.UTC), // some hours after the clocks of bubbles begin
		skew:  make(map[string]time.Duration),
		ended: make(map[string]bool),
	}
	o.forget()
	for i := range store.servers() {
		s := &modelServer{number: i}
		o.servers = append(o.servers, s)
		o.start(s)
	}
	return o
}

// forget makes the model that of servers without any registration.
func (o *model) forget() {
	o.states, o.sent = make(map[string][]nodeVersion), nil
	for _, node := range modelNodes {
		o.states[node] = []nodeVersion{{sure: true}}
	}
}

// state returns what is registered of a node, and whether that is certain.
func (o *model) state(node string) (*registration.Registration, bool) {
	v := o.states[node][len(o.states[node])-1]
	return v.reg, v.sure
}

// certain returns the number of the last version of a node that was acknowledged.
func (o *model) certain(node string) int {
	all := o.states[node]
	for i := len(all) - 1; ; i-- {
		if all[i].sure {
			return i
		}
	}
}

func (o *model) clock(s *modelServer) time.Time { return o.now.Add(s.ahead) }

// start starts a server on a new host.
func (o *model) start(s *modelServer) {
	s.host = newHost(o.t)
	s.advance(o.clock(s))
	s.seen, s.leaseEnd, s.cold = make(map[string]int), make(map[string]time.Time), false
	s.graceEnd = o.clock(s).Add(2 * time.Hour)
	for _, node := range modelNodes {
		s.seen[node], s.leaseEnd[node] = o.certain(node), s.graceEnd
	}
	s.location = o.store.location(s.number)
	if s.last == nil || s.location == nil {
		s.last = make(map[string]uint64)
	}
	s.do(func() {
		s.z, s.prober = newZone(testZone), newFakeProber()
		if err := s.z.registry.SetStore(s.location, 2*time.Hour); err != nil {
			panic(err)
		}
		s.cold = s.awaits()
	})
	o.load(s)
}

// warm notes when a server has read its store: no lease ends soon after that.
func (o *model) warm(s *modelServer) {
	s.do(func() {
		if s.cold && !s.awaits() {
			s.cold, s.graceEnd = false, o.clock(s).Add(2*time.Hour)
		}
	})
}

// awaits reports whether a server has not read its store yet.
func (s *modelServer) awaits() bool { return time.Until(s.z.registry.ColdUntil(0)) > 0 }

// shared reports whether other servers write to its store, too.
func (s *modelServer) shared() bool {
	_, ok := s.location.(registry.Shared)
	return ok
}

// load starts an instance with the current configuration.
func (o *model) load(s *modelServer) {
	s.do(func() {
		d, err := parse(controller("dnsb {\nns b1 192.0.2.1\nnode nyc1 192.0.2.54\ncut svc nyc1\n" + o.config.lines + "\n}"))
		if err != nil {
			panic(err)
		}
		d.probe = func() prober { return s.prober }
		d.start(s.z)
		s.d = d
	})
}

// end ends the process of a server.
func (s *modelServer) end() {
	s.do(func() {
		s.d.close()
		s.z.registry.Close()
	})
	s.close()
}

// view is what a server holds and answers at one moment.
type view struct {
	records map[string]*registry.Record
	answers map[string]string // by resolver and cut
}

// viewOf looks at a server. Queries are answered by a copy without a registry: if
// one asked it, that would be a fault and not only slow.
func (s *modelServer) view() (v view) {
	v.records, v.answers = s.z.registry.State().Records, make(map[string]string)
	query := &DNSB{conf: s.d.conf}
	query.snapshot.Store(s.d.snapshot.Load())
	for _, from := range modelResolvers {
		for _, cut := range modelCuts[:3] {
			v.answers[from+" "+cut] = textOf(ask(panicking{}, query, from, cut+"."+testZone, dns.TypeA))
		}
	}
	return v
}

// textOf describes a referral; "" if m is none.
func textOf(m *dns.Msg) (text string) {
	for _, rr := range m.Ns {
		if ns, ok := rr.(*dns.NS); ok {
			text += ns.Hdr.Name + " " + ns.Ns + "; "
		}
	}
	for _, rr := range m.Extra {
		if a, ok := rr.(*dns.A); ok {
			text += a.Hdr.Name + " " + a.A.String() + "; "
		}
	}
	return text
}

// referralText describes a referral as textOf does.
func referralText(cut string, nodes map[string]*registration.Registration, named []string) (text string) {
	for _, node := range named {
		text += cut + " " + registration.NodeName(node, testZone) + "; "
	}
	for _, node := range named {
		text += registration.NodeName(node, testZone) + " " + nodes[node].Addresses[0].String() + "; "
	}
	return text
}

// panicking lets a helper of tests fail on a host. Nothing else of TB is called.
type panicking struct{ testing.TB }

func (panicking) Helper()                           {}
func (panicking) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// check compares all servers with the model.
func (o *model) check(t *rapid.T) {
	for _, s := range o.servers {
		var v view
		s.advance(o.clock(s))
		o.warm(s)
		s.do(func() { v = s.view() })
		o.checkRecords(t, s, v.records)
		o.checkAnswers(t, s, v)
	}
}

// checkRecords compares what a server holds with the versions of the nodes that it
// may have seen, in their order.
func (o *model) checkRecords(t *rapid.T, s *modelServer, records map[string]*registry.Record) {
	if s.cold {
		if len(records) > 0 {
			t.Fatalf("Server %d has not read its store, and holds %v", s.number, records)
		}
		return
	}
	for node, rec := range records {
		if !slices.Contains(modelNodes, node) {
			t.Fatalf("Server %d has the unknown node %s", s.number, node)
		}
		if stale := !o.clock(s).Before(s.leaseEnd[node]); !s.shared() && rec.Stale != stale {
			t.Fatalf("Expected %s to be stale: %v, got %+v", node, stale, rec)
		}
		if s.shared() && rec.Stale && (!o.ended[node] || o.clock(s).Before(s.graceEnd)) {
			t.Fatalf("Server %d has %s stale, whose lease has not ended", s.number, node)
		}
	}
	for _, node := range modelNodes {
		i := s.seen[node]
		for i < len(o.states[node]) && !o.holds(records[node], o.states[node][i].reg) {
			i++
		}
		if i == len(o.states[node]) {
			t.Fatalf("Server %d has %s with %+v, expected one of %s", s.number, node, records[node], o.history(node, s.seen[node]))
		}
		s.seen[node] = i
		last := s.z.registry.LastSerial(node)
		if last < s.last[node] {
			t.Fatalf("Server %d: the last serial of %s went back from %d to %d", s.number, node, s.last[node], last)
		}
		s.last[node] = last
	}
}

func (o *model) holds(rec *registry.Record, reg *registration.Registration) bool {
	if rec == nil || reg == nil {
		return (rec == nil) == (reg == nil)
	}
	return registry.SameContent(rec.Registration, reg)
}

func (o *model) history(node string, from int) string {
	var b strings.Builder
	for _, v := range o.states[node][from:] {
		fmt.Fprintf(&b, "[%+v sure %v] ", v.reg, v.sure)
	}
	return b.String()
}

// checkAnswers compares each referral with the one that follows from what the
// server holds.
func (o *model) checkAnswers(t *rapid.T, s *modelServer, v view) {
	for question, got := range v.answers {
		from, cut, _ := strings.Cut(question, " ")
		want := o.referrals(s, v.records, netip.MustParseAddr(from), cut+"."+testZone)
		if len(want) == 0 && got != "" || len(want) > 0 && !slices.Contains(want, got) {
			t.Fatalf("Server %d refers %s to %q, expected one of %q", s.number, question, got, want)
		}
	}
}

// referrals returns those of which a resolver gets one; none if no node has the
// cut. Live nodes come before others, the longest prefix before shorter ones and
// those before none, and the operator's nodes before those that registered. For
// nodes of a prefix that are not live, their deputies answer.
func (o *model) referrals(s *modelServer, records map[string]*registry.Record, from netip.Addr, name string) []string {
	nodes := map[string]*registration.Registration{staticNode.Node: staticNode}
	for node, rec := range records {
		if o.config.permits("", rec.Registration) {
			nodes[node] = rec.Registration
		}
	}
	cut := ""
	for _, reg := range nodes {
		for _, c := range reg.Cuts {
			if dns.IsSubDomain(c, name) && len(c) > len(cut) {
				cut = c
			}
		}
	}
	names := slices.Sorted(maps.Keys(nodes))
	names = slices.DeleteFunc(names, func(node string) bool { return !slices.Contains(nodes[node].Cuts, cut) })
	live := slices.DeleteFunc(slices.Clone(names), func(node string) bool {
		result := s.prober.said[nodes[node].Addresses[0].String()]
		rec := records[node]
		return result == silent || rec != nil && rec.Stale && result != answering
	})

	claims := func(bits int) (operator, registered []string) {
		prefix := netip.PrefixFrom(from, bits).Masked()
		for _, node := range slices.Sorted(maps.Keys(nodes)) {
			if slices.Contains(nodes[node].Prefixes, registration.Prefix{Prefix: prefix}) {
				registered = append(registered, node)
			}
		}
		return o.config.operator[prefix.String()], registered
	}
	if len(live) == 0 {
		var known []string
		for bits := 32; bits > 0; bits-- {
			for _, node := range slices.Concat(claims(bits)) {
				if slices.Contains(names, node) {
					known = append(known, node)
				}
			}
		}
		return lastKnown(cut, nodes, known, names)
	}

	// referral names a node and the first deputy that is live and that may be
	// beside it, of the principal whose deputy that node is, if any.
	referral := func(node, principal string) string {
		all := []string{node}
		named := nodes[cmp.Or(principal, node)]
		for _, deputy := range deputiesOf(named, nodes) {
			if deputy != named.Node && deputy != node && slices.Contains(live, deputy) && (nodes[deputy].ClientSubnets || !nodes[node].ClientSubnets) {
				all = append(all, deputy)
				break
			}
		}
		return referralText(cut, nodes, all)
	}
	for bits := 32; bits > 0; bits-- {
		operator, registered := claims(bits)
		for _, node := range slices.Concat(operator, registered) {
			if slices.Contains(live, node) {
				return []string{referral(node, "")}
			}
		}
		for _, principal := range registered {
			if !slices.Contains(nodes[principal].Cuts, cut) {
				continue
			}
			for _, deputy := range deputiesOf(nodes[principal], nodes) {
				if slices.Contains(live, deputy) {
					return []string{referral(deputy, principal)}
				}
			}
		}
	}
	all := make([]string, len(live))
	for i, node := range live {
		all[i] = referral(node, "")
	}
	return all
}

// lastKnown returns the referrals of which a resolver gets one while no node of a cut
// is live: to the first two nodes of its prefixes, and any others after them. Both
// have client subnets, or neither has.
func lastKnown(cut string, nodes map[string]*registration.Registration, ofPrefixes, all []string) (referrals []string) {
	firstOr := func(some, others []string) []string {
		if len(some) > 0 {
			return some[:1]
		}
		return others
	}
	for _, first := range firstOr(ofPrefixes, all) {
		unlike := func(node string) bool {
			return node == first || nodes[node].ClientSubnets != nodes[first].ClientSubnets
		}
		seconds := firstOr(slices.DeleteFunc(slices.Clone(ofPrefixes), unlike), slices.DeleteFunc(slices.Clone(all), unlike))
		if len(seconds) == 0 {
			referrals = append(referrals, referralText(cut, nodes, []string{first}))
		}
		for _, second := range seconds {
			referrals = append(referrals, referralText(cut, nodes, []string{first, second}))
		}
	}
	return referrals
}

// deputiesOf returns the deputies of a node, best first: with client subnets those
// that have them, too.
func deputiesOf(n *registration.Registration, nodes map[string]*registration.Registration) []string {
	if !n.ClientSubnets {
		return n.Deputies
	}
	without := func(node string) bool { return nodes[node] == nil || !nodes[node].ClientSubnets }
	with := slices.DeleteFunc(slices.Clone(n.Deputies), without)
	return append(with, slices.DeleteFunc(slices.Clone(n.Deputies), func(node string) bool { return !without(node) })...)
}

// quiet makes all servers know all that is stored, and compares them with the
// model and with each other.
func (o *model) quiet(t *rapid.T) {
	o.store.settle(t, o)
	for _, node := range modelNodes {
		for _, s := range o.servers {
			s.seen[node] = max(s.seen[node], o.certain(node))
		}
	}
	o.check(t)
	first := o.servers[0]
	for _, node := range modelNodes {
		for _, s := range o.servers[1:] {
			if !slices.EqualFunc(o.states[node][s.seen[node]:][:1], o.states[node][first.seen[node]:][:1], func(a, b nodeVersion) bool { return sameState(a.reg, b.reg) }) {
				t.Fatalf("Server %d has %s with %+v, server 0 with %+v", s.number, node, o.states[node][s.seen[node]].reg, o.states[node][first.seen[node]].reg)
			}
		}
		o.states[node] = []nodeVersion{{o.states[node][first.seen[node]].reg, true}}
	}
	for _, s := range o.servers {
		clear(s.seen)
		for _, node := range modelNodes {
			if s.last[node] != first.last[node] {
				t.Fatalf("Server %d has the last serial %d of %s, server 0 has %d", s.number, s.last[node], node, first.last[node])
			}
		}
	}
	o.checkAlike(t)
}

// quietIfReachable is the begin of an action that must not end an outage.
func (o *model) quietIfReachable(t *rapid.T) {
	if !o.store.reachable() {
		t.Skip()
	}
	o.quiet(t)
}

// checkAlike compares the answers of servers that hold the same and see the same.
func (o *model) checkAlike(t *rapid.T) {
	var views []view
	for _, s := range o.servers {
		s.do(func() { views = append(views, s.view()) })
	}
	for i, s := range o.servers[1:] {
		alike := maps.Equal(s.prober.said, o.servers[0].prober.said)
		for node, rec := range views[i+1].records {
			alike = alike && views[0].records[node].Stale == rec.Stale
		}
		if alike && !maps.Equal(views[0].answers, views[i+1].answers) {
			t.Fatalf("Server %d answers %v, server 0 %v", s.number, views[i+1].answers, views[0].answers)
		}
	}
}

func sameState(a, b *registration.Registration) bool {
	return (a == nil) == (b == nil) && (a == nil || registry.SameContent(a, b))
}

// TestRegistrationsAgainstModel compares random sequences with a model: nothing is
// served that no registration or line gives, no key changes what its line does not
// name, what was acknowledged survives, a withdrawn node is never named, a stale
// one only while it answers probes, no replay changes anything, no node without
// client subnets is named beside one with them, servers that share a store come to
// the same answers, and no query asks the registry. 'make model' runs more
// sequences.
func TestRegistrationsAgainstModel(t *testing.T) {
	logtest.Capture(t)
	t.Run("memory", func(t *testing.T) {
		sequences(t, 100, 1)
		checkModel(t, func(*rapid.T) storeUnderTest { return memoryUnderTest{} })
	})
	t.Run("bolt", func(t *testing.T) {
		sequences(t, 100, 1)
		checkModel(t, func(*rapid.T) storeUnderTest { return &boltUnderTest{dir: t.TempDir()} })
	})
	t.Run("etcd", func(t *testing.T) {
		lanes := 8 // at once, also on one core: those without etcd only wait
		if !sequences(t, 20, 10*lanes) {
			lanes = 1
		}
		etcd := newModelEtcd(t)
		var all sync.WaitGroup
		for n := range lanes {
			all.Go(func() {
				t.Run(fmt.Sprint(n), func(t *testing.T) { checkModel(t, newEtcdLane(t, etcd, n).open) })
			})
		}
		all.Wait()
	})
	t.Run("etcd that is killed", func(t *testing.T) {
		sequences(t, 4, 1000)
		checkModel(t, newEtcdLane(t, newModelEtcd(t), 0).openToKill)
	})
}

// sequences makes this test check so many sequences, the same ones each time, or,
// with -rapid.checks, others, one for each share of those, and reports which.
func sequences(t *testing.T, n, share int) (asked bool) {
	t.Helper()
	checks, seed := flag.Lookup("rapid.checks"), flag.Lookup("rapid.seed")
	all, seeded := checks.Value.String(), seed.Value.String()
	asked = all != checks.DefValue
	if asked {
		sum, err := strconv.Atoi(all)
		if err != nil {
			t.Fatal(err)
		}
		n = max(sum/share, 1)
	}
	if err := checks.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	if !asked && seeded == seed.DefValue {
		_ = seed.Value.Set("1")
	}
	t.Cleanup(func() { _, _ = checks.Value.Set(all), seed.Value.Set(seeded) })
	return asked
}

// checkModel runs sequences, each over a store of its own.
func checkModel(t *testing.T, open func(*rapid.T) storeUnderTest) {
	t.Helper()
	rapid.Check(t, func(check *rapid.T) {
		o := newModel(t, open(check))
		defer func() {
			for _, s := range o.servers {
				s.end()
			}
			o.store.close()
		}()
		check.Repeat(o.actions())
		o.quiet(check)
	})
}
