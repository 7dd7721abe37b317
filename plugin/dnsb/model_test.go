package dnsb

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"pgregory.net/rapid"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/boltstore"
)

const modelLines = `accept k1 a 10.0.0.0/8 for svc
accept k1 b any for svc other
accept k2 b 11.0.0.0/8 for other
accept k2 c any
node nyc1 192.0.2.54
cut svc nyc1
prefix 10.1.0.0/16 nyc1`

// modelRule is what a key may register of a node.
type modelRule struct{ prefixes, cuts []string }

// modelAccepts says the same as modelLines.
var modelAccepts = map[string]modelRule{
	"k1. a": {modelPrefixes[:2], modelCuts[:1]},
	"k1. b": {modelPrefixes, modelCuts[:2]},
	"k2. b": {modelPrefixes[2:], modelCuts[1:2]},
	"k2. c": {modelPrefixes, modelCuts[:3]}, // the last one is below a cut of the block
}

var (
	modelKeys     = []string{"k1.", "k2.", "k3."}
	modelNodes    = []string{"a", "b", "c", "d"}
	modelPrefixes = []string{"10.1.0.0/16", "10.2.0.0/16", "11.0.0.0/8", "11.3.0.0/16"}
	modelCuts     = []string{"svc", "other", "deep.other", "deep.svc"}
)

// modelMessage is an UPDATE that was sent.
type modelMessage struct {
	m       *dns.Msg
	sig     signature
	reg     *registration.Registration // whole; without addresses: a withdrawal
	applied bool
}

// model is a server under random registrations, and what it must hold.
type model struct {
	path string // of the store; "": none
	d    *DNSB
	z    *zone

	skew  map[string]time.Duration              // of the clock of each node
	state map[string]*registration.Registration // nil: not registered
	last  map[string]uint64                     // highest serial seen in the registry
	sent  []*modelMessage
	parts uint64 // highest serial of those in parts
	crash int
}

func (o *model) start(t *rapid.T) {
	o.z = newZone(testZone)
	if o.path != "" {
		if err := o.z.registry.SetStore(boltstore.Location(o.path), 2*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	o.instance(t)
}

func (o *model) instance(t *rapid.T) {
	d, err := parse(controller("dnsb {\nns b1 192.0.2.1\n" + modelLines + "\n}"))
	if err != nil {
		t.Fatal(err)
	}
	d.start(o.z)
	o.d = d
}

// send sends a message, and takes what it changed into the model.
func (o *model) send(t *rapid.T, msg *modelMessage, replay bool) registry.Outcome {
	node := msg.reg.Node
	_, outcome, err := o.d.register(msg.m, msg.sig)
	before := o.state[node]
	switch outcome {
	case registry.Added, registry.Changed, registry.Refreshed:
		o.state[node] = msg.reg
	case registry.Withdrawn:
		o.state[node] = nil
	case partial:
		return outcome
	default:
		if err == nil {
			t.Fatalf("Expected an error for %s", outcome)
		}
		return outcome
	}
	if err != nil {
		t.Fatalf("Expected no error for %s, got: %v", outcome, err)
	}
	if !modelPermits(msg) {
		t.Fatalf("%s changed %s to %+v", msg.sig.key, node, msg.reg)
	}
	if replay && msg.applied && !sameModel(before, o.state[node]) {
		t.Fatalf("A replay changed %s from %+v to %+v", node, before, o.state[node])
	}
	msg.applied = true
	return outcome
}

func sameModel(a, b *registration.Registration) bool {
	return (a == nil) == (b == nil) && (a == nil || registry.SameContent(a, b))
}

func modelPermits(msg *modelMessage) bool {
	rule, ok := modelAccepts[msg.sig.key+" "+msg.reg.Node]
	for _, p := range msg.reg.Prefixes {
		ok = ok && slices.Contains(rule.prefixes, p.Prefix.String())
	}
	for _, cut := range msg.reg.Cuts {
		ok = ok && slices.Contains(rule.cuts, cut[:len(cut)-len(testZone)-1])
	}
	return ok
}

func nestedNames(a, b string) bool {
	return a != b && (dns.IsSubDomain(a, b) || dns.IsSubDomain(b, a))
}

// conflicts reports whether a cut of r is below or above another one.
func (o *model) conflicts(r *registration.Registration) bool {
	for _, cut := range r.Cuts {
		for _, other := range r.Cuts {
			if nestedNames(cut, other) {
				return true
			}
		}
		for node, reg := range o.state {
			if reg == nil || node == r.Node {
				continue
			}
			for _, other := range reg.Cuts {
				if nestedNames(cut, other) {
					return true
				}
			}
		}
	}
	return false
}

// message returns a registration with a serial, or one by the time of its
// signature if serial is 0.
func (o *model) message(t *rapid.T, key string, r *registration.Registration, serial uint64) *modelMessage {
	r.Serial = serial
	m := r.Withdrawal()
	if len(r.Addresses) > 0 {
		m = o.pack(t, r)
	}
	return o.signed(key, r, m)
}

func (o *model) pack(t *rapid.T, r *registration.Registration) *dns.Msg {
	m, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (o *model) signed(key string, r *registration.Registration, m *dns.Msg) *modelMessage {
	whole := *r
	whole.Serial, whole.Part, whole.Parts = 0, 0, 0
	msg := &modelMessage{m: m, reg: &whole}
	msg.sig = signature{key: key, time: time.Now().Add(o.skew[r.Node]).Truncate(time.Second), mac: strconv.Itoa(len(o.sent))}
	o.sent = append(o.sent, msg)
	return msg
}

func drawRegistration(t *rapid.T) *registration.Registration {
	r := nodeAt(rapid.SampledFrom(modelNodes).Draw(t, "node"), fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 3).Draw(t, "address")))
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
	r.Prefixes = nodeAt("x", "192.0.2.1", subset("prefixes", modelPrefixes)...).Prefixes
	r.Deputies = subset("deputies", modelNodes)
	r.ClientSubnets = rapid.Bool().Draw(t, "client subnets")
	r.Cuts = nil
	for _, cut := range subset("cuts", modelCuts) {
		r.Cuts = append(r.Cuts, cut+"."+testZone)
	}
	return r
}

func (o *model) drawSerial(t *rapid.T, node string) uint64 {
	clock := uint64(time.Now().Add(o.skew[node]).UnixMilli()) // #nosec G115 -- positive since 1970
	switch rapid.IntRange(0, 4).Draw(t, "serial") {
	case 0:
		return 0
	case 1:
		return max(o.last[node], 2) - 1
	case 2:
		return o.last[node]
	default:
		return clock
	}
}

func (o *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": o.check,
		"register": func(t *rapid.T) {
			r := drawRegistration(t)
			o.send(t, o.message(t, rapid.SampledFrom(modelKeys).Draw(t, "key"), r, o.drawSerial(t, r.Node)), false)
		},
		// A node whose clock is right and who may register, does.
		"must register": func(t *rapid.T) {
			r := drawRegistration(t)
			serial := max(o.last[r.Node]+1, uint64(time.Now().UnixMilli()))
			msg := o.message(t, rapid.SampledFrom(modelKeys).Draw(t, "key"), r, serial)
			msg.sig.time = time.Now()
			conflict := o.conflicts(r)
			outcome := o.send(t, msg, false)
			accepted := outcome == registry.Added || outcome == registry.Changed || outcome == registry.Refreshed
			ahead := serial > uint64(time.Now().Add(5*time.Minute).UnixMilli())
			if want := modelPermits(msg) && !conflict && !ahead; accepted != want && outcome != tooOften {
				t.Fatalf("Expected %+v by %s to be accepted: %v, got %s", msg.reg, msg.sig.key, want, outcome)
			}
		},
		"refresh": func(t *rapid.T) {
			node := rapid.SampledFrom(modelNodes).Draw(t, "node")
			if o.state[node] == nil {
				t.Skip()
			}
			r := *o.state[node]
			o.send(t, o.message(t, rapid.SampledFrom(modelKeys).Draw(t, "key"), &r, o.drawSerial(t, node)), false)
		},
		"withdraw": func(t *rapid.T) {
			node := rapid.SampledFrom(modelNodes).Draw(t, "node")
			r := &registration.Registration{Zone: testZone, Node: node}
			o.send(t, o.message(t, rapid.SampledFrom(modelKeys).Draw(t, "key"), r, o.drawSerial(t, node)), false)
		},
		"parts": func(t *rapid.T) {
			r := drawRegistration(t)
			r.Serial = max(o.last[r.Node], o.parts) + 1 // a sender has one registration with a serial
			o.parts = r.Serial
			key := rapid.SampledFrom(modelKeys).Draw(t, "key")
			half := len(r.Prefixes) / 2
			first, second := *r, registration.Registration{Zone: testZone, Node: r.Node, Serial: r.Serial, Prefixes: r.Prefixes[half:], Part: 1, Parts: 2}
			first.Prefixes, first.Parts = r.Prefixes[:half], 2
			parts := []*modelMessage{o.signed(key, r, o.pack(t, &first)), o.signed(key, r, o.pack(t, &second))}
			if rapid.Bool().Draw(t, "reverse") {
				slices.Reverse(parts)
			}
			for _, part := range parts[:rapid.IntRange(1, 2).Draw(t, "parts")] {
				o.send(t, part, false)
			}
		},
		"replay": func(t *rapid.T) {
			if len(o.sent) == 0 {
				t.Skip()
			}
			o.send(t, o.sent[rapid.IntRange(0, len(o.sent)-1).Draw(t, "message")], true)
		},
		"pass time": func(t *rapid.T) {
			time.Sleep(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, 31 * time.Minute, 3 * time.Hour}).Draw(t, "time"))
		},
		"step clock": func(t *rapid.T) {
			node := rapid.SampledFrom(modelNodes).Draw(t, "node")
			o.skew[node] = rapid.SampledFrom([]time.Duration{0, -200 * time.Second, 200 * time.Second, 290 * time.Second, time.Hour}).Draw(t, "skew")
		},
		"reload": func(t *rapid.T) {
			previous := o.d
			o.instance(t)
			previous.close()
		},
		"restart": func(t *rapid.T) {
			o.d.close()
			o.z.registry.Close()
			o.restarted(t)
		},
		"crash": func(t *rapid.T) {
			old, z := o.path, o.z
			if old != "" { // the file as it is, while the process still has it open
				content, err := os.ReadFile(old) // #nosec G304 -- a test
				if err != nil {
					t.Fatal(err)
				}
				o.crash++
				o.path = filepath.Join(filepath.Dir(old), fmt.Sprintf("crash%d.db", o.crash))
				if err := os.WriteFile(o.path, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o.d.close()
			z.registry.Close()
			if old != "" {
				_ = os.Remove(old)
			}
			o.restarted(t)
		},
	}
}

// restarted starts again. Without a store nothing is known of earlier messages.
func (o *model) restarted(t *rapid.T) {
	if o.path == "" {
		clear(o.state)
		clear(o.last)
		o.sent = nil
	}
	o.start(t)
}

// check compares the server with the model.
func (o *model) check(t *rapid.T) {
	synctest.Wait()
	st := o.d.registry.State()
	for _, node := range modelNodes {
		rec := st.Records[node]
		if want := o.state[node]; (want == nil) != (rec == nil) || rec != nil && !registry.SameContent(want, rec.Registration) {
			t.Fatalf("Expected %s with %+v, got %+v", node, want, rec)
		}
		last := o.d.registry.LastSerial(node)
		if last < o.last[node] {
			t.Fatalf("Expected the last serial of %s not to go back from %d, got %d", node, o.last[node], last)
		}
		o.last[node] = last
	}
	if len(st.Records) > len(modelNodes) {
		t.Fatalf("Expected no other nodes, got %v", slices.Collect(maps.Keys(st.Records)))
	}
	for _, from := range []string{"10.1.0.1", "10.2.0.1", "11.3.0.1", "192.0.2.200"} {
		for _, cut := range modelCuts[:3] {
			m := ask(failing{check: t}, o.d, from, cut+"."+testZone, dns.TypeA)
			tailors := false // the first node
			for i, rr := range m.Ns {
				ns, ok := rr.(*dns.NS)
				if !ok {
					continue
				}
				node, _, _ := strings.Cut(ns.Ns, ".")
				reg := o.state[node]
				has := reg != nil && reg.ClientSubnets
				if i == 0 {
					tailors = has
				}
				if tailors && !has {
					t.Fatalf("%s is referred to %v for %s, of which %s has no client subnets", from, m.Ns, cut, node)
				}
				if node == "nyc1" && cut == "svc" || reg != nil && slices.Contains(reg.Cuts, ns.Hdr.Name) {
					continue
				}
				t.Fatalf("%s is referred to %s for %s, which has %+v", from, node, ns.Hdr.Name, reg)
			}
		}
	}
}

// failing lets a helper of tests fail a check. Nothing else of TB is called.
type failing struct {
	testing.TB
	check *rapid.T
}

func (f failing) Helper()                           {}
func (f failing) Fatalf(format string, args ...any) { f.check.Fatalf(format, args...) }

// TestRegistrationsAgainstModel compares random sequences with a model: nothing is
// served that no registration or line gives, no key changes what its line does not
// name, what was acknowledged survives, a withdrawn node is never named, and no
// replay changes anything; and no node without client subnets is named beside one
// with them. For more sequences use -rapid.checks=100000.
func TestRegistrationsAgainstModel(t *testing.T) {
	logtest.Capture(t)
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored %v", stored), func(t *testing.T) {
			path := ""
			if stored {
				path = filepath.Join(t.TempDir(), "map.db")
			}
			rapid.Check(t, func(check *rapid.T) {
				rapid.SyncTest(check, func(check *rapid.T) {
					o := &model{path: path, skew: make(map[string]time.Duration), state: make(map[string]*registration.Registration), last: make(map[string]uint64)}
					o.start(check)
					defer func() {
						o.d.close()
						o.z.registry.Close()
						if stored {
							_ = os.Remove(o.path)
						}
					}()
					check.Repeat(o.actions())
				})
			})
		})
	}
}
