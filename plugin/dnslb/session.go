package dnslb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	// RFC 9664, section 5.2: nodes that start together do not ask together.
	maxFirstDelay = 3 * time.Second
	// lookEvery is how often the node looks whether DNS-B still knows it: one
	// that was started again without a store does not.
	lookEvery = 30 * time.Second
	// remindAfter is how often a lasting failure is logged.
	remindAfter = 10 * time.Minute
)

// session registers the node at one DNS-B: it sends, refreshes and retries in
// one goroutine of its own, and withdraws at its end.
type session struct {
	registrar *registrar
	node      string
	dnsb      dnsclient.Endpoint
	cancel    context.CancelFunc // ends it
	gone      chan struct{}      // closed when it has withdrawn
	changed   chan struct{}      // capacity 1

	mu       sync.Mutex
	wanted   *wanted
	zone     string    // DNS-B's zone; "" until it told
	sent     bool      // a registration, whether it arrived or not
	known    bool      // up says something
	up       bool      // the last exchange succeeded
	since    time.Time // when up changed
	reminded time.Time // when the failure was last logged
	leaseEnd time.Time
}

// newSession starts a session when the one before at the same DNS-B, if any, is
// gone: what that takes back must not be what this one registers.
func newSession(r *registrar, dnsb dnsclient.Endpoint, w *wanted, before *session) *session {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{
		registrar: r, node: w.Node, dnsb: dnsb, wanted: w,
		cancel: cancel, gone: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	r.running.Go(func() {
		defer close(s.gone)
		if before != nil {
			<-before.gone
		}
		s.run(ctx)
		s.withdraw()
	})
	return s
}

// update makes w what is registered, at once.
func (s *session) update(w *wanted) {
	s.mu.Lock()
	s.wanted = w
	s.mu.Unlock()
	wake(s.changed)
}

func (s *session) run(ctx context.Context) {
	timer := time.NewTimer(rand.N(maxFirstDelay)) // #nosec G404 -- jitter
	defer timer.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.changed:
		case <-look.C:
			if !s.forgotten(ctx) {
				continue
			}
			log.Infof("DNS-B %s does not know node %s any more, registering again", s.dnsb, s.node)
			s.lost()
		}
		sent := time.Now()
		granted, err := s.register(ctx)
		if ctx.Err() != nil {
			return
		}
		s.note(sent, granted, err)
		if err != nil {
			failures++
			timer.Reset(dnsclient.Backoff(failures))
			continue
		}
		failures = 0
		timer.Reset(refresh(granted))
	}
}

// refresh returns when to renew a lease: after 80 % of it plus up to 5 %
// (RFC 9664, section 5.2).
func refresh(lease time.Duration) time.Duration {
	return lease*80/100 + rand.N(lease*5/100+1) // #nosec G404 -- jitter
}

// register sends the whole state of the node and returns the lease granted.
func (s *session) register(ctx context.Context) (time.Duration, error) {
	s.mu.Lock()
	w, zone, failed := s.wanted, s.zone, s.known && !s.up
	s.mu.Unlock()

	if zone == "" || failed { // DNS-B may have been configured anew
		var err error
		if zone, err = s.findZone(ctx, w.Cuts); err != nil {
			return 0, err
		}
		s.mu.Lock()
		s.zone = zone
		s.mu.Unlock()
		name := registration.NodeName(s.node, zone)
		s.registrar.name.Store(&name)
	}
	reg := w.Registration
	reg.Zone, reg.Serial = zone, s.registrar.nextSerial()
	messages, err := reg.Messages()
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.sent = true
	s.mu.Unlock()
	var r *dns.Msg
	for i, m := range messages { // all of them are the registration, or none
		if r, err = s.send(ctx, m, w.key); err != nil && len(messages) > 1 {
			return 0, fmt.Errorf("part %d of %d: %w", i, len(messages), err)
		} else if err != nil {
			return 0, err
		}
	}
	if granted, ok := registration.GrantedLease(r); ok && granted > 0 {
		return granted, nil
	}
	return reg.Lease, nil
}

// forgotten reports whether a DNS-B that granted a lease says now that there is
// no such node.
func (s *session) forgotten(ctx context.Context) bool {
	s.mu.Lock()
	name, up, w := registration.NodeName(s.node, s.zone), s.up, s.wanted
	s.mu.Unlock()
	if !up {
		return false // and trying anyway
	}
	qtype := dns.TypeA
	if w.Addresses[0].Is6() {
		qtype = dns.TypeAAAA
	}
	r, err := s.ask(ctx, name, qtype)
	return err == nil && len(r.Answer) == 0
}

// lost records that DNS-B has lost the registration.
func (s *session) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up, s.since, s.leaseEnd = false, time.Now(), time.Time{}
}

// findZone asks DNS-B which of its zones the cuts are in, as nsupdate does: the
// parent of a cut is never below the zone, so its SOA is that of the zone.
func (s *session) findZone(ctx context.Context, cuts []string) (string, error) {
	r, err := s.ask(ctx, dnsmsg.Parent(cuts[0]), dns.TypeSOA)
	if err != nil {
		return "", err
	}
	for _, rr := range append(r.Answer, r.Ns...) {
		zone := strings.ToLower(rr.Header().Name)
		if rr.Header().Rrtype != dns.TypeSOA || !r.Authoritative {
			continue
		}
		for _, cut := range cuts {
			if !dns.IsSubDomain(zone, cut) || zone == cut {
				return "", fmt.Errorf("its zone is %s, and %s is not below that", zone, cut)
			}
		}
		return zone, nil
	}
	return "", fmt.Errorf("it is not authoritative for a zone above %s (%s): is this address a DNS-B?", cuts[0], dns.RcodeToString[r.Rcode])
}

// ask asks DNS-B one question, unsigned as a resolver would.
func (s *session) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = false
	return s.exchange(ctx, m, dnsclient.Key{})
}

// send signs one UPDATE and checks what comes back.
func (s *session) send(ctx context.Context, m *dns.Msg, key dnsclient.Key) (*dns.Msg, error) {
	r, err := s.exchange(ctx, m, key)
	if err != nil {
		registrations.WithLabelValues(s.node, string(s.dnsb), "unreachable").Inc()
		return nil, err
	}
	registrations.WithLabelValues(s.node, string(s.dnsb), dns.RcodeToString[r.Rcode]).Inc()
	return r, dnsclient.CheckSigned(r, key, "compare 'key' here with the secrets of tsig in its server block")
}

func (s *session) exchange(ctx context.Context, m *dns.Msg, key dnsclient.Key) (*dns.Msg, error) {
	s.mu.Lock()
	ca := s.wanted.ca
	s.mu.Unlock()
	return s.dnsb.Exchange(ctx, ca, m, key)
}

// note records how an exchange ended and logs what is new: a change of state,
// and every ten minutes that a failure lasts.
func (s *session) note(sent time.Time, granted time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	changed := !s.known || s.up != (err == nil)
	if changed {
		s.known, s.up, s.since = true, err == nil, now
	}
	if err == nil {
		s.leaseEnd = sent.Add(granted)
		if changed {
			log.Infof("Node %s is registered at DNS-B %s in zone %s, lease %s", s.node, s.dnsb, s.zone, granted)
		}
		return
	}
	if !changed && now.Sub(s.reminded) < remindAfter {
		return
	}
	s.reminded = now
	lease := "no lease"
	if left := s.leaseEnd.Sub(now); left > 0 {
		lease = "lease left " + left.Round(time.Second).String()
	}
	log.Warningf("Node %s cannot register at DNS-B %s since %s (%s), still answering and trying: %v",
		s.node, s.dnsb, s.since.UTC().Format(time.RFC3339), lease, err)
}

// state returns how the registration stands.
func (s *session) state() RegistrationState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return RegistrationState{DNSB: string(s.dnsb), Up: s.up, Since: s.since, LeaseLeft: max(0, time.Until(s.leaseEnd))}
}

// withdraw takes the registration back.
func (s *session) withdraw() {
	if !s.sent {
		return // whatever DNS-B knows of this node is not from here
	}
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTime)
	defer cancel()
	reg := s.wanted.Registration
	reg.Zone, reg.Serial = s.zone, s.registrar.nextSerial()
	if _, err := s.send(ctx, reg.Withdrawal(), s.wanted.key); err != nil {
		log.Warningf("Node %s cannot withdraw at DNS-B %s, which will find out by itself: %v", s.node, s.dnsb, err)
		return
	}
	log.Infof("Node %s withdrew at DNS-B %s", s.node, s.dnsb)
}
