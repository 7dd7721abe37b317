package registrar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

const (
	// RFC 9664, section 5.2: nodes that start together do not register together.
	maxFirstDelay = 3 * time.Second
	minRenewal    = time.Second
	// checkInterval is how often a session asks whether DNS-B still knows the
	// node: a DNS-B that was restarted without a store does not.
	checkInterval = 30 * time.Second
	// withdrawTimeout is how long a stopping process waits for all DNS-Bs. A
	// DNS-B that does not answer notices by its probes.
	withdrawTimeout = 2 * time.Second
)

// session registers the node at one DNS-B, in one goroutine.
type session struct {
	registrar *Registrar
	node      string
	dnsb      dnsclient.Endpoint
	stop      context.CancelFunc
	done      chan struct{} // closed after the withdrawal
	changed   wakeup.Signal // of the statement
	answered  atomic.Bool   // by a signed reply
	ahead     atomic.Int64  // by how many seconds the clock of DNS-B was ahead then

	mu       sync.Mutex // guards what follows
	stated   *statement
	accepted *statement // the last one that DNS-B has taken
	zone     string     // of DNS-B; "" until it has answered
	sent     bool       // a registration, whether it arrived or not
	last     uint64     // serial of the withdrawal
	up       bool       // the last registration succeeded
	since    time.Time  // of up; zero: not tried yet
	reason   string     // why not up; "": up, or not known
	failure  reminder.Failure
	leaseEnd time.Time
}

// startSession starts a session, after the previous one at the same DNS-B has
// ended, if there is one: its withdrawal must not remove the new registration.
func (r *Registrar) startSession(dnsb dnsclient.Endpoint, stated *statement, previous *session) *session {
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{
		registrar: r, node: stated.Registration.Node, dnsb: dnsb, stated: stated,
		stop: cancel, done: make(chan struct{}), changed: wakeup.New(),
	}
	for _, result := range results {
		registrations.WithLabelValues(s.node, string(dnsb), result) // from 0, so that the first one is an increase
	}
	r.running.Go(func() {
		defer close(s.done)
		if previous != nil {
			<-previous.done
		}
		s.run(ctx)
		s.withdraw()
	})
	return s
}

// update registers another statement immediately.
func (s *session) update(stated *statement) {
	s.mu.Lock()
	s.stated = stated
	s.mu.Unlock()
	s.changed.Set()
}

// current returns the statement to register.
func (s *session) current() *statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stated
}

// end withdraws the node, with a serial, and ends the session.
func (s *session) end(serial uint64) {
	s.mu.Lock()
	s.last = serial
	s.mu.Unlock()
	s.stop()
}

func (s *session) run(ctx context.Context) {
	timer := time.NewTimer(rand.N(maxFirstDelay)) // #nosec G404 -- jitter
	defer timer.Stop()
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.changed:
		case <-check.C:
			if !s.needsRegistration(ctx) {
				continue
			}
		}
		start, stated := time.Now(), s.current()
		granted, err := s.register(ctx, stated)
		if ctx.Err() != nil {
			return
		}
		if err != nil && stated != s.current() {
			continue // refused for what replaces it, perhaps: update has woken this goroutine
		}
		s.record(start, stated, granted, err)
		if err != nil {
			failures++
			timer.Reset(dnsclient.Backoff(failures))
			continue
		}
		failures = 0
		timer.Reset(renewal(granted))
	}
}

// renewal returns when to renew a lease: after 80 % of it plus up to 5 %
// (RFC 9664, section 5.2), and not more often than minRenewal, whatever DNS-B
// grants.
func renewal(lease time.Duration) time.Duration {
	return max(lease/100*80+rand.N(lease/100*5+1), minRenewal) // #nosec G404 -- jitter
}

// register sends the whole state of the node and returns the granted lease.
func (s *session) register(ctx context.Context, stated *statement) (time.Duration, error) {
	s.mu.Lock()
	zone, failing := s.zone, !s.since.IsZero() && !s.up
	s.mu.Unlock()

	if zone == "" || failing { // the zone of DNS-B may have changed
		var err error
		if zone, err = s.findZone(ctx, stated.Registration.Cuts); err != nil {
			return 0, err
		}
		s.mu.Lock()
		s.zone = zone
		s.mu.Unlock()
		name := registration.NodeName(s.node, zone)
		s.registrar.name.Store(&name)
	}
	reg := stated.Registration
	reg.Zone, reg.Serial = zone, stated.serial.Load()
	messages, err := reg.Messages()
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.sent = true
	s.mu.Unlock()
	var reply *dns.Msg
	for i, m := range messages { // a registration is complete with its last part
		if reply, err = s.send(ctx, m, stated.Key); err == nil {
			continue
		}
		if reply != nil { // refused, perhaps for its serial
			s.registrar.restate(stated, reg.Serial)
		}
		if len(messages) > 1 {
			err = fmt.Errorf("part %d of %d: %w", i, len(messages), err)
		}
		return 0, err
	}
	if granted, ok := registration.GrantedLease(reply); ok && granted > 0 {
		return granted, nil
	}
	return reg.Lease, nil
}

// needsRegistration asks DNS-B for the node, and reports whether it must be
// registered before its lease is renewed: DNS-B does not know it any more, or
// cannot be reached, which the registration finds out.
func (s *session) needsRegistration(ctx context.Context) bool {
	s.mu.Lock()
	stated, zone, up := s.stated, s.zone, s.up
	s.mu.Unlock()
	if !up {
		return false // registering is retried anyway
	}
	serial := stated.serial.Load()
	r, err := s.query(ctx, registration.NodeName(s.node, zone), dnsmsg.AddressType(stated.Registration.Addresses[0]))
	if err != nil {
		return true
	}
	if len(r.Answer) > 0 {
		return false
	}
	log.Infof("DNS-B %s does not know node %q any more, registering again", s.dnsb, s.node)
	s.registrar.restate(stated, serial)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up, s.since, s.leaseEnd = false, time.Now(), time.Time{}
	s.reason = "the server does not know the node any more"
	return true
}

// findZone asks DNS-B in which of its zones the cuts are, as nsupdate does: the
// parent of a cut is never below the zone, so its SOA is that of the zone.
func (s *session) findZone(ctx context.Context, cuts []string) (string, error) {
	r, err := s.query(ctx, dnsmsg.Parent(cuts[0]), dns.TypeSOA)
	if err != nil {
		s.count("unreachable")
		return "", err
	}
	zone, err := zoneOf(r, cuts)
	if err != nil {
		s.count("NOTAUTH") // as the registration would be answered (RFC 2136, section 3.1.2)
	}
	return zone, err
}

// zoneOf returns the zone in the reply of a DNS-B to the question for an SOA record.
func zoneOf(r *dns.Msg, cuts []string) (string, error) {
	for _, rr := range append(r.Answer, r.Ns...) {
		zone := strings.ToLower(rr.Header().Name)
		if rr.Header().Rrtype != dns.TypeSOA || !r.Authoritative {
			continue
		}
		for _, cut := range cuts {
			if !dns.IsSubDomain(zone, cut) || zone == cut {
				return "", fmt.Errorf("%s is not below the zone of DNS-B, %s", cut, zone)
			}
		}
		return zone, nil
	}
	return "", fmt.Errorf("the server is not authoritative for a zone above %s (%s): check that its address is a DNS-B's", cuts[0], dnsmsg.RcodeText(r.Rcode))
}

// query asks DNS-B one question, unsigned like a resolver.
func (s *session) query(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = false
	return s.exchange(ctx, m, dnsclient.Key{})
}

// send sends one signed UPDATE and checks the reply.
func (s *session) send(ctx context.Context, m *dns.Msg, key dnsclient.Key) (*dns.Msg, error) {
	r, err := s.exchange(ctx, m, key)
	if err != nil {
		s.count("unreachable")
		return nil, err
	}
	s.count(dns.RcodeToString[r.Rcode])
	if ahead, ok := dnsclient.ClockDifference(r); ok {
		s.ahead.Store(int64(ahead / time.Second))
		s.answered.Store(true)
	}
	err = dnsclient.CheckSigned(r, key, "compare 'key' with the secrets of 'tsig' in the server block of DNS-B")
	if (r.Rcode == dns.RcodeFormatError || r.Rcode == dns.RcodeNotImplemented) && r.IsEdns0() == nil {
		// A server that does not know EDNS (RFC 6891, section 7) is no DNS-B, and a
		// registration without EDNS would not be the one that was configured: it
		// has no lease.
		err = fmt.Errorf("%w, without EDNS, which a registration needs: check that its address is a DNS-B's, and what is in front of it", err)
	}
	return r, err
}

func (s *session) count(result string) {
	registrations.WithLabelValues(s.node, string(s.dnsb), result).Inc()
}

func (s *session) exchange(ctx context.Context, m *dns.Msg, key dnsclient.Key) (*dns.Msg, error) {
	s.mu.Lock()
	ca := s.stated.CA
	s.mu.Unlock()
	return s.dnsb.Exchange(ctx, ca, m, key)
}

// record notes the result of a registration that was begun at start, and logs
// what is new: also that DNS-B has taken another statement, such as one signed
// with another key.
func (s *session) record(start time.Time, stated *statement, granted time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	changed := s.since.IsZero() || s.up != (err == nil)
	if changed {
		s.up, s.since = err == nil, now
	}
	if err == nil {
		another := s.accepted != stated
		s.reason, s.leaseEnd, s.accepted = "", start.Add(granted), stated
		switch {
		case s.failure.Recovered():
			log.Infof("Recovered: registration of node %q at DNS-B %s, lease %s", s.node, s.dnsb, granted)
		case changed || another:
			log.Infof("Registered node %q at DNS-B %s, lease %s", s.node, s.dnsb, granted)
		}
		return
	}
	s.reason = remotetext.CleanError(err)
	if !s.failure.Failed("") {
		return
	}
	lease := "no lease"
	if left := s.leaseEnd.Sub(now); left > 0 {
		lease = "lease left " + left.Round(time.Second).String()
	}
	log.Warningf("Failed to register node %q at DNS-B %s since %s, %s, retrying: %v",
		s.node, s.dnsb, s.failure.Since().UTC().Format(time.RFC3339), lease, err)
}

// state returns the state of the registration.
func (s *session) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{DNSB: string(s.dnsb), Up: s.up, Since: s.since, Error: s.reason, LeaseLeft: max(0, time.Until(s.leaseEnd))}
}

// withdraw removes the registration, if one was sent: else, what DNS-B knows of
// the node is from another process.
func (s *session) withdraw() {
	if !s.sent {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTimeout)
	defer cancel()
	s.mu.Lock()
	stated, zone, serial := s.stated, s.zone, s.last
	s.mu.Unlock()
	reg := stated.Registration
	reg.Zone, reg.Serial = zone, serial
	if _, err := s.send(ctx, reg.Withdrawal(), stated.Key); err != nil {
		log.Warningf("Failed to withdraw node %q at DNS-B %s, which leaves the node out once probes fail: %v", s.node, s.dnsb, err)
		return
	}
	log.Infof("Withdrew node %q at DNS-B %s", s.node, s.dnsb)
}
