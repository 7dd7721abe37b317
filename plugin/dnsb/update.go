package dnsb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// The outcomes of an UPDATE besides those of registry.Registry.Apply.
const (
	partial registry.Outcome = "part"    // accepted, with others still missing
	nothing registry.Outcome = "nothing" // its prerequisites hold, and it changes nothing

	unsigned           registry.Outcome = "unsigned"
	malformed          registry.Outcome = "malformed"
	prerequisiteFailed registry.Outcome = "prerequisite"
	replayed           registry.Outcome = "replay" // signed too long ago, or before the last registration
	tooOften           registry.Outcome = "rate"
	outOfScope         registry.Outcome = "scope" // not permitted to the key, or to any key
)

const (
	zoneSectionText = "the zone section must be one zone, of type SOA"
	tooManyText     = "the update has too many records"
)

// update applies an UPDATE, in whole or not at all, and replies to it.
func (d *DNSB) update(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	sig := verifiedSignature(ctx)
	if d.conf.survey != nil && surveymsg.IsReport(r, d.conf.zone) {
		outcome, err := d.report(r, sig)
		reportCount.WithLabelValues(d.conf.zone, string(outcome)).Inc()
		return dns.RcodeSuccess, w.WriteMsg(updateReply(r, sig, outcome, err))
	}
	lease, outcome, err := d.register(r, sig)
	d.countUpdate(outcome)
	m := updateReply(r, sig, outcome, err)
	if err == nil {
		registration.GrantLease(m, r, lease)
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// updateReply returns the reply to an UPDATE with an outcome, or an error.
func updateReply(r *dns.Msg, sig signature, outcome registry.Outcome, err error) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	if err != nil {
		if outcome != registry.StoreFailed {
			wasted(updateCost(r))
		}
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
		dnsmsg.SetError(m, r, dns.ExtendedErrorCodeOther, clip(e.Text))
		if replay != nil {
			m.Extra = append(m.Extra, replySignature(m, sig.tsig, dns.RcodeBadTime))
		}
	}
	return m
}

func (d *DNSB) countUpdate(outcome registry.Outcome) {
	registrationCount.WithLabelValues(d.conf.zone, string(outcome)).Inc()
	d.zone.updates.count(outcome)
}

// register processes an UPDATE and returns the lease that is granted. When it
// returns, queries see what has changed. The steps are those of RFC 2136, section
// 3, in another order: what the key may do comes first, so that nobody makes the
// server work for what is refused anyway.
func (d *DNSB) register(m *dns.Msg, sig signature) (time.Duration, registry.Outcome, error) {
	if err := d.conf.checkZoneSection(m); err != nil { // section 3.1
		return 0, malformed, err
	}
	if sig.key == "" {
		return 0, unsigned, errors.New("not signed with a known TSIG key")
	}
	if err := sig.checkTime(); err != nil {
		d.logRefusal("", sig.key, nil, replayed, err)
		return 0, replayed, err
	}
	if !d.conf.keys[sig.key] {
		err := fmt.Errorf("the key %s may not register any node", sig.key)
		d.logRefusal("", sig.key, nil, outOfScope, err)
		return 0, outOfScope, err
	}
	leave, ok := d.zone.shares.enter(sig.key, updateCost(m))
	if !ok {
		return 0, d.busy("", sig.key), errBusy
	}
	defer leave()

	s := d.snapshot.Load()
	if len(m.Ns) == 0 { // section 2.5: nothing to do if the prerequisites hold
		if !d.zone.shares.allow(sig.key, "") {
			return 0, d.busy("", sig.key), errBusy
		}
		if err := s.prerequisites(m.Answer); err != nil {
			return 0, prerequisiteFailed, err
		}
		return 0, nothing, nil
	}
	reg, err := registration.Parse(m) // section 3.4.1
	if err != nil {
		d.logRefusal("", sig.key, nil, malformed, err)
		return 0, malformed, err
	}
	node := reg.Node
	if err := d.permission(sig.key, reg); err != nil { // section 3.3
		if !d.conf.accepted(node) {
			node = "" // anybody can think of names
		}
		d.logRefusal(node, sig.key, reg, outOfScope, err)
		return 0, outOfScope, err
	}
	if !d.zone.shares.allow(sig.key, node) {
		return 0, d.busy(node, sig.key), errBusy
	}
	if err := s.prerequisites(m.Answer); err != nil { // section 3.2
		return 0, prerequisiteFailed, err
	}

	lease, outcome, err := d.apply(s, m, reg, sig)
	if err != nil {
		if outcome != prerequisiteFailed {
			d.logRefusal(node, sig.key, reg, outcome, err)
		}
		return 0, outcome, err
	}
	return lease, outcome, nil
}

// apply makes a permitted registration what is registered, one at a time. Its
// prerequisites held in the snapshot s.
func (d *DNSB) apply(s *snapshot, m *dns.Msg, reg *registration.Registration, sig signature) (time.Duration, registry.Outcome, error) {
	lease := d.conf.grant(reg.Lease) // section 3.4.2
	d.updates.Lock()                 // prerequisites must hold until the update is done
	defer d.updates.Unlock()
	if now := d.snapshot.Load(); now != s {
		s = now
		if err := s.prerequisites(m.Answer); err != nil {
			return 0, prerequisiteFailed, err
		}
	}
	if reg.Parts > 0 {
		whole, err := d.registry.Collect(reg, sig.key)
		if err != nil {
			return 0, registry.WrongSerial, err
		}
		if whole == nil {
			return lease, partial, nil
		}
		if err := d.permission(sig.key, whole); err != nil { // some parts may have come before a reload
			return 0, outOfScope, err
		}
		reg = whole
	}
	if err := s.conflict(reg); err != nil {
		return 0, outOfScope, err
	}

	mac, last := "", d.registry.LastSerial(reg.Node)
	if reg.Serial == 0 {
		serial, err := d.zone.replays.serial(reg.Node, sig, last)
		if err != nil {
			return 0, replayed, err
		}
		reg.Serial, mac = serial, sig.mac
	}
	outcome, previous, err := d.registry.Apply(reg, lease)
	switch {
	case err != nil && outcome == registry.WrongSerial && mac != "":
		return 0, replayed, &replayError{fmt.Sprintf("another registration of node %s of the same second was accepted already, by another server or before a restart: sign and send again", reg.Node)}
	case err != nil:
		return 0, outcome, err
	}
	d.zone.replays.accept(reg.Node, reg.Serial, previous, mac)
	d.catchUp()
	d.logAccepted(reg, sig.key, lease, outcome)
	if outcome == registry.Withdrawn {
		lease = 0
	}
	return lease, outcome, nil
}

var errBusy = &registration.Error{Rcode: dns.RcodeServerFailure, Text: "too many updates by this key: try again later"}

// busy notes that an UPDATE was refused because its key sends too many.
func (d *DNSB) busy(node, key string) registry.Outcome {
	d.logRefusal(node, key, nil, tooOften, errBusy)
	return tooOften
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

// permission returns an error if the holder of a key may not register reg,
// whatever other nodes have registered.
func (d *DNSB) permission(key string, reg *registration.Registration) error {
	if err := d.conf.permits(key, reg, d.registry.Cuts(reg.Node)); err != nil {
		return err
	}
	return checkSigned(d.signer, d.conf.zone, reg.Cuts)
}

// logRefusal notes a refusal, and logs each kind of a key and node once in ten minutes. The
// node is "" if none is known, and reg nil if the UPDATE is malformed.
func (d *DNSB) logRefusal(node, key string, reg *registration.Registration, outcome registry.Outcome, err error) {
	d.zone.updates.note(updateKind{node: node, key: key, outcome: outcome}, err.Error())
	withdrawal := reg != nil && reg.Parts == 0 && len(reg.Addresses) == 0
	switch {
	case !d.zone.refusals.Failed(key+" "+node+" "+string(outcome), ""):
	case node == "":
		log.Warningf("Refused an update signed with key %q: %s", key, clip(err.Error()))
	case withdrawal:
		log.Warningf("Refused withdrawal of node %q by key %q, keeping the registration: %s", node, key, clip(err.Error()))
	default:
		log.Warningf("Refused registration of node %q by key %q, keeping the previous one: %s", node, key, clip(err.Error()))
	}
}

// maxText bounds in bytes what a sender can write into a log line or a reply.
const maxText = 300

// clip returns a text that a sender has chosen parts of, without what does not
// print, and not at length.
func clip(text string) string {
	end := ""
	if len(text) > maxText {
		text, end = text[:maxText], "…"
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text) + end
}

// logAccepted logs and notes a registration unless it is a refresh.
func (d *DNSB) logAccepted(reg *registration.Registration, key string, lease time.Duration, outcome registry.Outcome) {
	switch outcome {
	case registry.Withdrawn:
		d.zone.updates.note(updateKind{node: reg.Node, key: key, outcome: outcome}, "")
		log.Infof("Node %q withdrew", reg.Node)
	case registry.Added, registry.Changed:
		what := fmt.Sprintf("%s, %s, cuts %s, lease %s", plural.Of(len(reg.Addresses), "address"), plural.Of(len(reg.Prefixes), "prefix"), clip(strings.Join(reg.Cuts, " ")), lease)
		d.zone.updates.note(updateKind{node: reg.Node, key: key, outcome: outcome}, what)
		log.Infof("Registered node %q by key %q: %s", reg.Node, key, what)
		if cut, other := d.snapshot.Load().differs(reg); other != "" {
			log.Warningf("Node %q registered other DS records of %s than node %q: sign with the same keys on all nodes, or answers are bogus", reg.Node, cut, other)
		}
	}
}
