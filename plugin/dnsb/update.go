package dnsb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// The outcomes of an UPDATE besides those of registry.Registry.Apply.
const (
	partial registry.Outcome = "part" // accepted, with others still missing

	unsigned           registry.Outcome = "unsigned"
	malformed          registry.Outcome = "malformed"
	prerequisiteFailed registry.Outcome = "prerequisite"
	replayed           registry.Outcome = "replay"
	outOfScope         registry.Outcome = "scope" // not permitted to the key, or to any key
)

const (
	zoneSectionText = "the zone section must be one zone, of type SOA"
	tooManyText     = "the update has too many records"
)

// update applies an UPDATE, in whole or not at all, and replies to it.
func (d *DNSB) update(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	sig := verifiedSignature(ctx)
	lease, outcome, err := d.register(r, sig)
	registrationCount.WithLabelValues(d.conf.zone, string(outcome)).Inc()

	m := new(dns.Msg)
	m.SetReply(r)
	if err != nil {
		var (
			e      *registration.Error
			replay *replayError
		)
		if errors.As(err, &replay) {
			e = &registration.Error{Rcode: dns.RcodeNotAuth, Text: replay.text}
		} else if !errors.As(err, &e) {
			e = &registration.Error{Rcode: dns.RcodeRefused, Text: err.Error()}
		}
		m.Rcode = e.Rcode
		dnsmsg.SetOptions(m, r, dns.ExtendedErrorCodeOther, e.Text)
		if replay != nil {
			m.Extra = append(m.Extra, replySignature(m, sig.tsig, dns.RcodeBadTime))
		}
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	registration.GrantLease(m, r, lease)
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// register processes an UPDATE that is signed with a key, by the steps of RFC
// 2136, section 3, and returns the lease that is granted. When it returns,
// queries see what has changed. What is not signed is refused first, so that
// nobody else finds out what is registered, and what a key may do can be judged
// only after the message is parsed.
func (d *DNSB) register(m *dns.Msg, sig signature) (time.Duration, registry.Outcome, error) {
	if err := d.conf.checkZoneSection(m); err != nil { // section 3.1
		return 0, malformed, err
	}
	key := sig.key
	if key == "" {
		return 0, unsigned, errors.New("not signed with a known TSIG key")
	}
	if err := sig.checkTime(); err != nil {
		return 0, replayed, err
	}

	d.updates.Lock() // prerequisites must hold until the update is done
	defer d.updates.Unlock()
	s := d.snapshot.Load()
	if err := s.prerequisites(m.Answer); err != nil { // section 3.2
		return 0, prerequisiteFailed, err
	}

	reg, err := registration.Parse(m) // section 3.4.1
	if err != nil {
		if d.zone.refusals.Failed(key, string(malformed)) {
			log.Warningf("Refused an update signed with key %q: %v", key, err)
		}
		return 0, malformed, err
	}
	if err := d.permission(s, key, reg); err != nil { // section 3.3
		d.logRefusal(reg.Node, key, err.Error(), err)
		return 0, outOfScope, err
	}

	lease := d.conf.grant(reg.Lease) // section 3.4.2
	if reg.Parts > 0 {
		whole, err := d.registry.Collect(reg)
		if err != nil {
			d.logRefusal(reg.Node, key, string(registry.WrongSerial), err)
			return 0, registry.WrongSerial, err
		}
		if whole == nil {
			return lease, partial, nil
		}
		if err := s.conflict(whole); err != nil { // since part 0 arrived
			d.logRefusal(reg.Node, key, err.Error(), err)
			return 0, outOfScope, err
		}
		reg = whole
	}
	outcome, err := d.registry.Apply(reg, lease)
	if err != nil {
		d.logRefusal(reg.Node, key, string(outcome), err) // serials differ each time
		return 0, outcome, err
	}
	d.catchUp()
	d.logAccepted(reg, key, lease, outcome)
	if outcome == registry.Withdrawn {
		lease = 0
	}
	return lease, outcome, nil
}

// checkZoneSection returns an error unless an UPDATE is for this zone.
func (c *config) checkZoneSection(m *dns.Msg) error {
	if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeSOA {
		return &registration.Error{Rcode: dns.RcodeFormatError, Text: zoneSectionText}
	}
	if name := dns.CanonicalName(m.Question[0].Name); name != c.zone {
		return &registration.Error{Rcode: dns.RcodeNotAuth, Text: fmt.Sprintf("this server has the zone %s, not %s", c.zone, name)}
	}
	return nil
}

// permission returns an error if the holder of a key may not register reg.
func (d *DNSB) permission(s *snapshot, key string, reg *registration.Registration) error {
	if err := d.conf.permits(key, reg, d.registry.Cuts(reg.Node)); err != nil {
		return err
	}
	if err := s.conflict(reg); err != nil {
		return err
	}
	return checkSigned(d.signer, d.conf.zone, reg.Cuts)
}

// logRefusal logs a refused registration, not more often than every ten minutes
// if it is of the same kind.
func (d *DNSB) logRefusal(node, key, kind string, err error) {
	if d.zone.refusals.Failed(key+node, kind) {
		log.Warningf("Refused registration of node %q by key %q, keeping the previous one: %v", node, key, err)
	}
}

// logAccepted logs a registration unless it is a refresh.
func (d *DNSB) logAccepted(reg *registration.Registration, key string, lease time.Duration, outcome registry.Outcome) {
	switch outcome {
	case registry.Withdrawn:
		log.Infof("Node %q withdrew", reg.Node)
	case registry.Added, registry.Changed:
		log.Infof("Registered node %q by key %q: %d addresses, %d prefixes, cuts %s, lease %s",
			reg.Node, key, len(reg.Addresses), len(reg.Prefixes), strings.Join(reg.Cuts, " "), lease)
		if cut, other := d.snapshot.Load().differs(reg); other != "" {
			log.Warningf("Node %q registered other DS records of %s than node %q: sign with the same keys on all nodes, or answers are bogus", reg.Node, cut, other)
		}
	}
}
