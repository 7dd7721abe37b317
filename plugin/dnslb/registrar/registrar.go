// Package registrar keeps a node registered at its DNS-Bs, and looks other nodes
// up there.
//
// Each DNS-B has a session, a goroutine that registers, renews the lease,
// retries, and withdraws at its end. So a DNS-B that does not answer delays no
// other.
package registrar

import (
	"cmp"
	"crypto/x509"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// pluginName is the plugin that the registrar is part of, in logs and metrics.
const pluginName = "dnslb"

var log = clog.NewWithPlugin(pluginName)

// Settings say what is registered, and where. They are immutable.
type Settings struct {
	Registration registration.Registration // without zone and serial
	DNSBs        []dnsclient.Endpoint
	Key          dnsclient.Key  // signs the registration
	CA           *x509.CertPool // of the DNS-Bs' certificates; nil: those of the system
}

// statement is what the node states about itself, with the serial that all
// DNS-Bs get: one that shares its store with another one takes the same serial
// for a repetition, and a smaller one for an outdated registration.
type statement struct {
	Settings
	serial atomic.Uint64
}

// Registrar keeps one node registered until it is closed. Use New.
type Registrar struct {
	serial atomic.Uint64          // the last one
	name   atomic.Pointer[string] // nil until a DNS-B has answered

	mu          sync.Mutex // guards what follows
	stated      *statement // nil until Configure
	sessions    map[dnsclient.Endpoint]*session
	withdrawing map[dnsclient.Endpoint]*session // the last session of each DNS-B that was removed
	closed      bool
	running     sync.WaitGroup // goroutines of sessions
}

// New returns a Registrar that registers nothing before Configure.
func New() *Registrar {
	return &Registrar{
		sessions:    make(map[dnsclient.Endpoint]*session),
		withdrawing: make(map[dnsclient.Endpoint]*session),
	}
}

// Configure registers the node at the DNS-Bs of the settings, and withdraws it
// from all others. After Close it does nothing.
func (r *Registrar) Configure(settings Settings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	next, previous := &statement{Settings: settings}, r.stated
	if previous != nil {
		next.Registration.FormerCuts = formerCuts(next.Registration, previous.Registration)
	}
	r.stated = next

	removed := false
	for dnsb, s := range r.sessions {
		if !slices.Contains(next.DNSBs, dnsb) {
			removed = true
			delete(r.sessions, dnsb)
			r.withdrawing[dnsb] = s
			s.end(r.withdrawalSerial())
		}
	}
	// After a withdrawal the node is stated again: the DNS-Bs that stay may share
	// the store of the one that was removed.
	same := !removed && previous != nil && next.sameRegistration(&previous.Settings)
	if same {
		next.serial.Store(previous.serial.Load())
	} else {
		next.serial.Store(r.nextSerial())
	}
	for _, dnsb := range next.DNSBs {
		switch s, ok := r.sessions[dnsb]; {
		case !ok:
			r.sessions[dnsb] = r.startSession(dnsb, next, r.withdrawing[dnsb])
			delete(r.withdrawing, dnsb)
		case !same || !s.state().Up: // a reload may have mended the cause
			s.update(next)
		}
	}
}

// restate gives a statement another serial, unless it has one already: a DNS-B
// that has lost the registration, or has one with a larger serial, does not take
// it with this serial.
func (r *Registrar) restate(stated *statement, serial uint64) {
	stated.serial.CompareAndSwap(serial, r.nextSerial())
}

// formerCuts returns the cuts that must be removed by name, since an earlier
// configuration has registered them.
func formerCuts(next, previous registration.Registration) []string {
	former := slices.Clone(next.FormerCuts)
	for _, cut := range slices.Concat(previous.Cuts, previous.FormerCuts) {
		if !slices.Contains(next.Cuts, cut) && !slices.Contains(former, cut) {
			former = append(former, cut)
		}
	}
	return former
}

// sameRegistration reports whether a DNS-B would be sent the same.
func (s *Settings) sameRegistration(other *Settings) bool {
	return s.Key == other.Key && s.CA.Equal(other.CA) && reflect.DeepEqual(s.Registration, other.Registration)
}

// Configured reports whether Configure has been called.
func (r *Registrar) Configured() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stated != nil
}

// Close withdraws the node everywhere, and returns when that is done or has
// taken withdrawTimeout.
func (r *Registrar) Close() {
	r.mu.Lock()
	r.closed = true
	serial := r.withdrawalSerial()
	for _, s := range r.sessions {
		s.end(serial)
	}
	r.sessions = nil
	r.mu.Unlock()
	r.running.Wait()
}

// nextSerial returns a serial that is larger than all previous ones and, by the
// clock, larger than those of earlier processes: milliseconds since 1970.
func (r *Registrar) nextSerial() uint64 {
	for {
		last := r.serial.Load()
		next := max(last+1, uint64(time.Now().UnixMilli())) // #nosec G115 -- positive since 1970
		if r.serial.CompareAndSwap(last, next) {
			return next
		}
	}
}

// withdrawalSerial returns a serial that is larger than all previous ones, by one:
// it withdraws nothing that another process of the node has registered since.
func (r *Registrar) withdrawalSerial() uint64 { return r.serial.Add(1) }

// NodeName returns the full name of the node in the zone of a DNS-B, "" until a
// DNS-B has answered. It takes no lock: queries call it.
func (r *Registrar) NodeName() string {
	if name := r.name.Load(); name != nil {
		return *name
	}
	return ""
}

// Zone returns the zone of the DNS-Bs, "" until a DNS-B has answered.
func (r *Registrar) Zone() string {
	_, zone, _ := strings.Cut(r.NodeName(), "."+registration.Label+".")
	return zone
}

// State is the state of the registration at one DNS-B.
type State struct {
	DNSB      string        `json:"dnsb"`
	Up        bool          `json:"up"`              // the last registration succeeded
	Since     time.Time     `json:"since,omitzero"`  // of Up; zero: not tried yet
	Error     string        `json:"error,omitempty"` // why it is not Up, as remotetext.CleanError returns it
	LeaseLeft time.Duration `json:"lease_left_ns"`   // 0: the lease has ended
}

// States returns the state of each registration, sorted by DNS-B.
func (r *Registrar) States() []State {
	sessions := r.sorted()
	states := make([]State, 0, len(sessions))
	for _, s := range sessions {
		states = append(states, s.state())
	}
	return states
}

// sorted returns the sessions, sorted by DNS-B.
func (r *Registrar) sorted() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	sessions := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		sessions = append(sessions, s)
	}
	slices.SortFunc(sessions, func(a, b *session) int { return cmp.Compare(a.dnsb, b.dnsb) })
	return sessions
}
