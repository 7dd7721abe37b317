package dnsb

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// update takes a registration or a withdrawal, in whole or not at all.
func (d *DNSB) update(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	lease, result, err := d.register(ctx, r)
	registrationCount.WithLabelValues(d.conf.zone, string(result)).Inc()

	m := new(dns.Msg)
	m.SetReply(r)
	if err != nil {
		var e *registration.Error
		if !errors.As(err, &e) {
			e = &registration.Error{Rcode: dns.RcodeRefused, Text: err.Error()}
		}
		m.Rcode = e.Rcode
		dnsmsg.SetOptions(m, r, dns.ExtendedErrorCodeOther, e.Text)
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	registration.GrantLease(m, r, lease)
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// register does what an UPDATE says and returns the lease that is granted.
// Queries see the change when it returns.
func (d *DNSB) register(ctx context.Context, m *dns.Msg) (time.Duration, outcome, error) {
	zone := m.Question[0]
	if len(m.Question) != 1 || zone.Qtype != dns.TypeSOA {
		return 0, malformed, &registration.Error{Rcode: dns.RcodeFormatError, Text: "the zone section must be one zone, of type SOA"}
	}
	if name := dns.CanonicalName(zone.Name); name != d.conf.zone {
		return 0, malformed, &registration.Error{Rcode: dns.RcodeNotAuth, Text: "the zone here is " + d.conf.zone}
	}
	key, ok := tsig.ValidatedKeyName(ctx)
	if !ok {
		return 0, unsigned, errors.New("not signed by a key that is known here")
	}
	d.updates.Lock() // what a prerequisite says must hold until the update is done
	defer d.updates.Unlock()
	if err := d.snapshot.Load().prerequisites(m.Answer); err != nil {
		return 0, unmet, err
	}
	r, err := registration.Parse(m)
	if err != nil {
		if d.registry.news(key, string(malformed)) {
			log.Warningf("Update signed by %s is no registration: %s", key, err)
		}
		return 0, malformed, err
	}
	err = d.conf.permits(key, r, d.registry.held(r.Node))
	if err == nil {
		err = d.snapshot.Load().conflict(r)
	}
	if err == nil {
		err = checkSigned(d.signer, d.conf.zone, r.Cuts)
	}
	if err != nil {
		d.refused(r.Node, key, err.Error(), err)
		return 0, outside, err
	}

	lease := d.conf.grant(r.Lease)
	if r.Parts > 0 {
		whole, err := d.registry.collect(r)
		if err != nil {
			d.refused(r.Node, key, string(late), err)
			return 0, late, err
		}
		if whole == nil {
			return lease, partial, nil
		}
		if r = whole; len(r.Cuts) > 0 { // others may have taken them meanwhile
			if err := d.snapshot.Load().conflict(r); err != nil {
				d.refused(r.Node, key, err.Error(), err)
				return 0, outside, err
			}
		}
	}
	result, err := d.registry.apply(r, lease)
	if err != nil {
		d.refused(r.Node, key, string(result), err) // serials differ each time
		return 0, result, err
	}
	d.refresh()
	switch result {
	case withdrawn:
		lease = 0
		log.Infof("Node %s withdrew", r.Node)
	case added, changed:
		log.Infof("Node %s registered by %s: %d addresses, %d prefixes, serves %s, lease %s",
			r.Node, key, len(r.Addresses), len(r.Prefixes), strings.Join(r.Cuts, " "), lease)
		if cut, other := d.snapshot.Load().differs(r); other != "" {
			log.Warningf("Node %s states other DS records of %s than node %s: sign with the same keys on all nodes, or answers are bogus", r.Node, cut, other)
		}
	}
	return lease, result, nil
}

// refused logs why the holder of a key could not register what it has now; what
// it had before stays.
func (d *DNSB) refused(node, key, kind string, err error) {
	if d.registry.news(key+node, kind) {
		log.Warningf("Registration of node %s by %s refused, what it had stays: %s", node, key, err)
	}
}
