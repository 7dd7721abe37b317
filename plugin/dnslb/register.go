package dnslb

import (
	"cmp"
	"crypto/x509"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// withdrawTime is how long a stopping process takes to tell all DNS-Bs. One
// that does not answer finds out by probing.
const withdrawTime = 2 * time.Second

// registrar keeps one node registered at its DNS-Bs, each independently of the
// others, until it is closed.
type registrar struct {
	serial atomic.Uint64
	name   atomic.Pointer[string] // of the node at DNS-B, once a DNS-B told its zone; queries read it

	mu       sync.Mutex
	wanted   *wanted // nil until the node has measured
	from     uint64  // generation of the instance that wanted it
	sessions map[dnsclient.Endpoint]*session
	ended    map[dnsclient.Endpoint]*session // the last one at a DNS-B that was taken away
	closed   bool
	running  sync.WaitGroup // sessions, the ended ones until they are gone
}

// wanted is what is to be registered. It is immutable.
type wanted struct {
	registration.Registration // without zone and serial
	key                       dnsclient.Key
	ca                        *x509.CertPool
}

func newRegistrar() *registrar {
	return &registrar{sessions: make(map[dnsclient.Endpoint]*session), ended: make(map[dnsclient.Endpoint]*session)}
}

// set makes conf the registration, at its DNS-Bs and nowhere else, unless a
// younger instance has set its own.
func (r *registrar) set(conf config, generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || generation < r.from {
		return
	}
	r.from = generation
	w := &wanted{Registration: registrationOf(conf), key: conf.key, ca: conf.ca}
	if r.wanted != nil {
		// What an earlier configuration registered is taken back by name.
		for _, cut := range slices.Concat(r.wanted.Cuts, r.wanted.FormerCuts) {
			if !slices.Contains(w.Cuts, cut) && !slices.Contains(w.FormerCuts, cut) {
				w.FormerCuts = append(w.FormerCuts, cut)
			}
		}
	}
	same := r.wanted != nil && w.equal(r.wanted)
	r.wanted = w

	for _, dnsb := range conf.dnsbs {
		switch s, ok := r.sessions[dnsb]; {
		case !ok:
			r.sessions[dnsb] = newSession(r, dnsb, w, r.ended[dnsb])
			delete(r.ended, dnsb)
		case !same || !s.state().Up: // who reloads may have mended what is wrong
			s.update(w)
		}
	}
	for dnsb, s := range r.sessions {
		if !slices.Contains(conf.dnsbs, dnsb) {
			delete(r.sessions, dnsb)
			r.ended[dnsb] = s
			s.cancel()
		}
	}
}

func (w *wanted) equal(other *wanted) bool {
	return w.key == other.key && w.ca.Equal(other.ca) && reflect.DeepEqual(w.Registration, other.Registration)
}

// registrationOf returns what a node states of itself, without zone and serial.
func registrationOf(conf config) registration.Registration {
	return registration.Registration{
		Node:      conf.Node,
		Addresses: conf.addresses,
		Prefixes:  conf.near,
		Location:  conf.location,
		Cuts:      conf.Zones,
		DS:        conf.ds,
		Lease:     conf.lease,
		Deputies:  conf.deputies,
	}
}

func (r *registrar) started() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wanted != nil
}

// close withdraws the node everywhere and returns when that is done.
func (r *registrar) close() {
	r.mu.Lock()
	r.closed = true
	for _, s := range r.sessions {
		s.cancel()
	}
	r.sessions = nil
	r.mu.Unlock()
	r.running.Wait()
}

// nextSerial returns a serial that is larger than all before and that, by the
// clock, is larger than those of earlier processes: milliseconds since 1970.
func (r *registrar) nextSerial() uint64 {
	for {
		last := r.serial.Load()
		next := max(last+1, uint64(time.Now().UnixMilli())) // #nosec G115 -- positive since 1970
		if r.serial.CompareAndSwap(last, next) {
			return next
		}
	}
}

// nodeName returns the node's full name, "" as long as no DNS-B told its zone.
func (r *registrar) nodeName() string {
	if name := r.name.Load(); name != nil {
		return *name
	}
	return ""
}

// all returns the sessions, sorted by DNS-B.
func (r *registrar) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*session
	for _, s := range r.sessions {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *session) int { return cmp.Compare(a.dnsb, b.dnsb) })
	return out
}
