package dnsb

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"pgregory.net/rapid"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// modelMessage is an UPDATE that was sent.
type modelMessage struct {
	m       *dns.Msg
	sig     signature
	reg     *registration.Registration // whole; without addresses: a withdrawal
	part    uint64                     // serial of the registration of which it is a part; 0: it is whole
	applied bool
}

// modelResult is what a server made of an UPDATE.
type modelResult struct {
	lease   time.Duration
	outcome registry.Outcome
	err     error
}

// register is to be called on the host of the server.
func (s *modelServer) register(msg *modelMessage) (r modelResult) {
	r.lease, r.outcome, r.err = s.d.register(msg.m, msg.sig)
	return r
}

// send sends an UPDATE to a server, and takes what it changed into the model.
func (o *model) send(t *rapid.T, s *modelServer, msg *modelMessage) registry.Outcome {
	var r modelResult
	s.do(func() {
		r = s.register(msg)
		synctest.Wait()
	})
	o.took(t, s, msg, r)
	return r.outcome
}

// took takes into the model what became of an UPDATE.
func (o *model) took(t *rapid.T, s *modelServer, msg *modelMessage, r modelResult) {
	node, reg := msg.reg.Node, msg.reg
	previous, sure := o.state(node)
	if msg.part != 0 && msg.part == s.z.registry.LastSerial(node) && r.outcome == registry.Refreshed && !sameState(previous, reg) {
		// Another registration had the same serial and the content of this part, which
		// no sender does. It is renewed.
		s.leaseEnd[node] = o.clock(s).Add(r.lease)
		return
	}
	switch r.outcome {
	case registry.Added, registry.Changed, registry.Refreshed:
		s.leaseEnd[node] = o.clock(s).Add(r.lease)
	case registry.Withdrawn:
		reg = nil
	case partial:
		return
	case registry.StoreFailed:
		if r.err == nil || !s.shared() {
			t.Fatalf("The store failed: %v", r.err)
		}
		if reg.Addresses == nil {
			reg = nil
		}
		o.states[node] = append(o.states[node], nodeVersion{reg, false})
		return
	default:
		if r.err == nil {
			t.Fatalf("Expected an error for %s", r.outcome)
		}
		return
	}
	if r.err != nil {
		t.Fatalf("Expected no error for %s, got: %v", r.outcome, r.err)
	}
	if !o.config.permits(msg.sig.key, msg.reg) {
		t.Fatalf("%s changed %s to %+v", msg.sig.key, node, msg.reg)
	}
	if msg.applied && sure && !sameState(previous, reg) {
		t.Fatalf("A replay changed %s from %+v to %+v", node, previous, reg)
	}
	msg.applied = true
	o.states[node] = append(o.states[node], nodeVersion{reg, true})
	s.seen[node] = len(o.states[node]) - 1 // visible where it was acknowledged
}

func nestedNames(a, b string) bool {
	return a != b && (dns.IsSubDomain(a, b) || dns.IsSubDomain(b, a))
}

// conflicts reports whether a cut of r is below or above another one.
func (o *model) conflicts(r *registration.Registration) bool {
	cuts := slices.Clone(r.Cuts)
	for _, node := range modelNodes {
		if reg, _ := o.state(node); reg != nil && node != r.Node && o.config.permits("", reg) {
			cuts = append(cuts, reg.Cuts...)
		}
	}
	return slices.ContainsFunc(r.Cuts, func(cut string) bool {
		return slices.ContainsFunc(cuts, func(other string) bool { return nestedNames(cut, other) })
	})
}

// message returns a registration with a serial, or one by the time of its
// signature if serial is 0.
func (o *model) message(key string, r *registration.Registration, serial uint64) *modelMessage {
	r.Serial = serial
	m := r.Withdrawal()
	if len(r.Addresses) > 0 {
		m = pack(r)
	}
	return o.signed(key, r, m)
}

func pack(r *registration.Registration) *dns.Msg {
	m, err := r.Message()
	if err != nil {
		panic(err)
	}
	return m
}

func (o *model) signed(key string, r *registration.Registration, m *dns.Msg) *modelMessage {
	whole := *r
	whole.Serial, whole.Part, whole.Parts = 0, 0, 0
	msg := &modelMessage{m: m, reg: &whole}
	msg.sig = signature{key: key, time: o.now.Add(o.skew[r.Node]).Truncate(time.Second), mac: strconv.Itoa(len(o.sent))}
	o.sent = append(o.sent, msg)
	return msg
}

func millis(t time.Time) uint64 { return uint64(t.UnixMilli()) } // #nosec G115 -- positive since 1970

var skews = []time.Duration{0, -200 * time.Second, 200 * time.Second, 290 * time.Second, time.Hour}

func drawKey(t *rapid.T) string  { return rapid.SampledFrom(modelKeys).Draw(t, "key") }
func drawNode(t *rapid.T) string { return rapid.SampledFrom(modelNodes).Draw(t, "node") }
func drawAddress(t *rapid.T) string {
	return fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 3).Draw(t, "address"))
}

func (o *model) drawServer(t *rapid.T) *modelServer {
	return rapid.SampledFrom(o.servers).Draw(t, "server")
}

// String names a server in the log of a failure.
func (s *modelServer) GoString() string { return fmt.Sprintf("server %d", s.number) }

// drawRegistration returns a registration and a key that signs it, which may in
// most cases.
func (o *model) drawRegistration(t *rapid.T) (key string, r *registration.Registration) {
	accepts := o.config.accepts
	if rapid.IntRange(0, 3).Draw(t, "any") == 3 {
		accepts = map[string]modelRule{drawKey(t) + " " + drawNode(t): {modelPrefixes, modelCuts}}
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(accepts))).Draw(t, "accept")
	key, node, _ := strings.Cut(id, " ")
	rule := accepts[id]
	r = nodeAt(node, drawAddress(t))
	subset := func(name string, all []string) []string {
		bits := rapid.IntRange(0, 1<<len(all)-1).Draw(t, name)
		var some []string
		for i, s := range all {
			if bits>>i&1 != 0 {
				some = append(some, s)
			}
		}
		return some
	}
	r.Prefixes = nodeAt("x", "192.0.2.1", subset("prefixes", rule.prefixes)...).Prefixes
	r.Deputies = subset("deputies", modelNodes)
	r.ClientSubnets = rapid.Bool().Draw(t, "client subnets")
	r.Cuts = nil
	for _, cut := range subset("cuts", rule.cuts) {
		r.Cuts = append(r.Cuts, cut+"."+testZone)
	}
	r.Lease = rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "lease")
	return key, r
}

// drawChange returns a registration or a withdrawal, and a key that signs it.
func (o *model) drawChange(t *rapid.T) (key string, r *registration.Registration) {
	if rapid.IntRange(0, 3).Draw(t, "withdraw") == 3 {
		return drawKey(t), &registration.Registration{Zone: testZone, Node: drawNode(t)}
	}
	return o.drawRegistration(t)
}

func (o *model) drawSerial(t *rapid.T, s *modelServer, node string) uint64 {
	switch rapid.IntRange(0, 4).Draw(t, "serial") {
	case 0:
		return 0
	case 1:
		return max(s.last[node], 2) - 1
	case 2:
		return s.last[node]
	default:
		return millis(o.now.Add(o.skew[node]))
	}
}

// highest returns the last serial of a node, of all servers.
func (o *model) highest(node string) (serial uint64) {
	for _, s := range o.servers {
		serial = max(serial, s.last[node])
	}
	return serial
}

func (o *model) actions() map[string]func(*rapid.T) {
	all := map[string]func(*rapid.T){
		"":      o.check,
		"quiet": o.quiet,
		"register": func(t *rapid.T) {
			s := o.drawServer(t)
			key, r := o.drawRegistration(t)
			o.send(t, s, o.message(key, r, o.drawSerial(t, s, r.Node)))
		},
		// A node whose clock is right and who may register, does.
		"must register": func(t *rapid.T) {
			o.quietIfReachable(t)
			s := o.drawServer(t)
			key, r := o.drawRegistration(t)
			serial := max(s.last[r.Node]+1, millis(o.clock(s)))
			msg := o.message(key, r, serial)
			msg.sig.time = o.clock(s)
			conflict := o.conflicts(r)
			outcome := o.send(t, s, msg)
			accepted := outcome == registry.Added || outcome == registry.Changed || outcome == registry.Refreshed
			ahead := serial > millis(o.clock(s).Add(5*time.Minute))
			if want := o.config.permits(msg.sig.key, msg.reg) && !conflict && !ahead; accepted != want && outcome != tooOften && outcome != registry.StoreFailed {
				t.Fatalf("Expected %+v by %s to be accepted: %v, got %s", msg.reg, msg.sig.key, want, outcome)
			}
		},
		"refresh": func(t *rapid.T) {
			s, node := o.drawServer(t), drawNode(t)
			reg, _ := o.state(node)
			if reg == nil {
				t.Skip()
			}
			r := *reg
			o.send(t, s, o.message(drawKey(t), &r, o.drawSerial(t, s, node)))
		},
		"withdraw": func(t *rapid.T) {
			s, node := o.drawServer(t), drawNode(t)
			r := &registration.Registration{Zone: testZone, Node: node}
			o.send(t, s, o.message(drawKey(t), r, o.drawSerial(t, s, node)))
		},
		"parts": o.sendParts,
		"replay": func(t *rapid.T) {
			if len(o.sent) == 0 {
				t.Skip()
			}
			o.send(t, o.drawServer(t), o.sent[rapid.IntRange(0, len(o.sent)-1).Draw(t, "message")])
		},
		"at once": o.sendAtOnce,
		"pass time": func(t *rapid.T) {
			o.now = o.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, 31 * time.Minute, 3 * time.Hour}).Draw(t, "time"))
		},
		"step clock of node": func(t *rapid.T) {
			o.skew[drawNode(t)] = rapid.SampledFrom(skews).Draw(t, "skew")
		},
		"step clock of server": func(t *rapid.T) {
			// The clock of a process goes forward only.
			o.drawServer(t).ahead += rapid.SampledFrom([]time.Duration{time.Second, 100 * time.Second, 290 * time.Second}).Draw(t, "step")
		},
		"probe": func(t *rapid.T) {
			address, result := drawAddress(t), rapid.SampledFrom([]probeResult{notProbed, answering, silent}).Draw(t, "result")
			for _, s := range o.servers {
				if rapid.IntRange(0, 9).Draw(t, "missed") == 9 {
					continue
				}
				s.do(func() {
					s.prober.say(address, result)
					s.d.refresh()
				})
			}
		},
		"forget": o.operatorForgets,
		"reload": func(t *rapid.T) {
			o.config = modelConfigs[rapid.IntRange(0, len(modelConfigs)-1).Draw(t, "config")]
			for _, s := range o.servers {
				previous := s.d
				o.load(s)
				s.do(previous.close)
			}
		},
		"restart": func(t *rapid.T) { o.restart(t, o.drawServer(t), false) },
		"crash":   func(t *rapid.T) { o.restart(t, o.drawServer(t), true) },
	}
	maps.Copy(all, o.store.actions(o))
	return all
}

// sendParts sends a registration in two parts, or one of them only, to one server
// or to different ones.
func (o *model) sendParts(t *rapid.T) {
	key, r := o.drawRegistration(t)
	r.Serial = max(o.highest(r.Node), o.parts) + 1 // a sender has one registration with a serial
	o.parts = r.Serial
	half := len(r.Prefixes) / 2
	first, second := *r, registration.Registration{Zone: testZone, Node: r.Node, Serial: r.Serial, Prefixes: r.Prefixes[half:], Part: 1, Parts: 2}
	first.Prefixes, first.Parts = r.Prefixes[:half], 2
	parts := []*modelMessage{o.signed(key, r, pack(&first)), o.signed(key, r, pack(&second))}
	for _, part := range parts {
		part.part = r.Serial
	}
	if rapid.Bool().Draw(t, "reverse") {
		slices.Reverse(parts)
	}
	s := o.drawServer(t)
	for _, part := range parts[:rapid.IntRange(1, 2).Draw(t, "parts")] {
		if rapid.IntRange(0, 4).Draw(t, "other server") == 4 {
			s = o.drawServer(t)
		}
		o.send(t, s, part)
	}
}

// sendAtOnce sends UPDATEs to all servers at the same time, two to each. Those of
// a node are in order by their serials.
func (o *model) sendAtOnce(t *rapid.T) {
	type sent struct {
		s   *modelServer
		msg *modelMessage
		r   modelResult
	}
	var all []*sent
	for i := range 2 * len(o.servers) {
		key, r := o.drawChange(t)
		serial := max(o.highest(r.Node), millis(o.now)) + rapid.Uint64Range(0, 3).Draw(t, "later")
		all = append(all, &sent{s: o.servers[i%len(o.servers)], msg: o.message(key, r, serial)})
	}
	var servers sync.WaitGroup
	for _, s := range o.servers {
		servers.Go(func() {
			s.do(func() {
				var updates sync.WaitGroup
				for _, u := range all {
					if u.s == s {
						updates.Go(func() { u.r = s.register(u.msg) })
					}
				}
				updates.Wait()
				synctest.Wait()
			})
		})
	}
	servers.Wait()
	serialOf := func(u *sent) uint64 { return registrationSerial(u.msg.m) }
	slices.SortStableFunc(all, func(a, b *sent) int { return int(serialOf(a)) - int(serialOf(b)) }) // #nosec G115 -- milliseconds
	for _, u := range all {
		o.took(t, u.s, u.msg, u.r)
	}
}

func registrationSerial(m *dns.Msg) uint64 {
	r, err := registration.Parse(m)
	if err != nil {
		panic(err)
	}
	return r.Serial
}

// operatorForgets has the operator of one server forget a node: its last serial
// is that of now if it was ahead, and it is removed if it is dead.
func (o *model) operatorForgets(t *rapid.T) {
	o.quietIfReachable(t)
	s, node := o.drawServer(t), drawNode(t)
	reg, _ := o.state(node)
	dead := false
	s.do(func() {
		if n := s.d.snapshot.Load().named(registration.NodeName(node, testZone)); n != nil {
			dead = n.state == nodeDead
		}
		set := func(active []nodeOverride) {
			s.d.mu.Lock()
			s.d.active = active
			s.d.mu.Unlock()
			s.d.refresh()
			synctest.Wait()
		}
		set([]nodeOverride{{Verb: verbForget, Action: nodeAction{nodes: []string{node}}}})
		set(nil)
	})
	if dead {
		reg = nil
	}
	o.states[node] = append(o.states[node], nodeVersion{reg, !s.shared()}) // a shared store may fail
	if now := millis(o.clock(s)); s.last[node] > now {
		for _, other := range o.servers {
			other.last[node] = min(other.last[node], now)
		}
		for _, msg := range o.sent {
			msg.applied = msg.applied && msg.reg.Node != node // serials that were lower are not any more
		}
	}
	o.quiet(t)
}

// restart ends a server, with a crash or not, and starts it again, with another
// clock.
func (o *model) restart(t *rapid.T, s *modelServer, crash bool) {
	if crash {
		s.do(func() { o.store.crash(s.number) })
	}
	s.end()
	if s.location == nil {
		o.forget() // and with it what was sent earlier
	}
	s.ahead = rapid.SampledFrom(skews).Draw(t, "ahead")
	o.start(s)
}
