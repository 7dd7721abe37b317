package dnslb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

const (
	// pullEvery is how often a deputy looks by itself: the news of a view may be
	// lost. It bounds one look as well.
	pullEvery = 30 * time.Second
	// maxViewSize bounds a transfer, in bytes: 100,000 servers in both families, and as
	// many services, take less than half.
	maxViewSize = 64 << 20
	// settleTime is how long a node may take to register the prefixes that its
	// view tells of. DNS-B may also have refused them, and keep the earlier ones.
	settleTime = time.Minute
	// askPause is the least time between two questions to DNS-B for that.
	askPause = ranking.Round
)

// pull gets the view of one node again and again, in one goroutine, as long as
// there is one that can be used.
type pull struct {
	sharing *sharing
	contact
	place int

	// Guarded by the lock of sharing.
	view     *view                 // in use
	prefixes []registration.Prefix // whose resolvers it is used for
	former   []formerPrefixes      // likewise, for some time

	claimed   string    // digest of the prefixes that the node registers, by its view
	claimedAt time.Time // when it was another one before

	dismissed time.Time // when it was told so first; zero: it is a deputy
	strange   trouble   // none of the servers of the view is known here
}

// formerPrefixes were those of a node before. Resolvers there have referrals that
// name the deputy.
type formerPrefixes struct {
	prefixes []registration.Prefix
	until    time.Time
}

func newPull(s *sharing, node string, place int) *pull {
	return &pull{sharing: s, contact: newContact(s.ctx, node), place: place}
}

func (p *pull) run() {
	defer p.cancel()
	p.drop(p.follow())
}

// noViewKey is why a pull ends that is not at its own end.
const noViewKey = "this node has no 'view-key' any more"

// follow looks for views until there is none to be had, and returns why.
func (p *pull) follow() string {
	told := time.Now()
	failures := 0
	for {
		err := p.look()
		if p.ctx.Err() != nil {
			return noViewKey
		}
		isDismissed := errors.As(err, new(dismissal))
		failures++
		if isDismissed || err == nil {
			failures = 0
		}
		if !isDismissed {
			p.note(err, "Node "+p.sharing.config().Node+" cannot get the measurements of "+p.node+", for which it stands in")
		}
		left, why := p.left(err)
		if left <= 0 {
			if (isDismissed || errors.Is(err, registrar.ErrUnknownNode) || err != nil && time.Since(told) > 2*pullEvery) && p.giveUp() {
				return why // it tells when there is something to get
			}
			p.drop(why) // it is cut off from its servers, or there was none yet
			left = pullEvery
		}
		if p.view != nil {
			p.compare()
			p.forget()
		}
		switch {
		case failures > 0:
			left = min(left, dnsclient.Backoff(failures))
		case p.unsettled():
			left = min(left, askPause)
		}
		select {
		case <-p.ctx.Done():
			return noViewKey
		case <-p.woken:
			told = time.Now()
		case <-time.After(min(left, pullEvery)):
		}
	}
}

// left returns how long the view can be used yet after a look that ended so, and why
// it ends then.
func (p *pull) left(err error) (left time.Duration, why string) {
	var dismissed dismissal
	switch {
	case err == nil:
		p.dismissed = time.Time{}
	case !errors.As(err, &dismissed):
	case p.view == nil:
		return 0, string(dismissed)
	case p.dismissed.IsZero():
		p.dismissed = time.Now()
		log.Infof("%s: not a deputy of %s any more, %s: answering its resolvers by its measurements for %s yet, as they have referrals",
			p.sharing.config().Node, p.node, dismissed, referralTime)
	}
	if p.view == nil {
		return 0, ""
	}
	left, why = time.Until(p.view.made.Add(viewTime)), "its last view is too old, of "+p.view.made.UTC().Format(time.RFC3339)
	if until := time.Until(p.dismissed.Add(referralTime)); !p.dismissed.IsZero() && until < left {
		left, why = until, "it has dismissed this node"
	}
	return left, why
}

// dismissal is that a node shares its view with this one no longer, and why. It
// is for that node alone to say: one that has died has dismissed nobody.
type dismissal string

// Error implements the error interface.
func (d dismissal) Error() string { return string(d) }

// giveUp leaves the node to another pull, which its next NOTIFY starts, unless
// there was one that this pull has not heeded.
func (p *pull) giveUp() bool {
	s := p.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.woken) > 0 {
		return false
	}
	if s.pulls[p.node] == p {
		delete(s.pulls, p.node)
	}
	return true
}

// use makes v the view that is used.
func (p *pull) use(v *view) {
	s, began, known := p.sharing, p.view == nil, 0
	if began {
		known = v.known(s.targets())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := began || !reflect.DeepEqual(p.prefixes, p.peer.prefixes)
	if moved && !began {
		p.former = append(p.former, formerPrefixes{p.prefixes, time.Now().Add(referralTime)})
	}
	p.view, p.prefixes = v, p.peer.prefixes
	s.use(moved)
	if began {
		log.Infof("%s: answering the resolvers of %s by its measurements: %d prefixes, %d of %d addresses of servers are known here",
			s.conf.Node, p.node, len(p.prefixes), known, len(v.targets))
	}
}

// forget ends the use of the view for the resolvers of former prefixes in time.
func (p *pull) forget() {
	s, now := p.sharing, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(p.former)
	if p.former = slices.DeleteFunc(p.former, func(f formerPrefixes) bool { return !now.Before(f.until) }); len(p.former) < before {
		s.use(true)
	}
}

// drop ends the use of the view, if there is one.
func (p *pull) drop(why string) {
	s := p.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.view == nil {
		return
	}
	p.view, p.prefixes, p.former, p.dismissed, p.strange = nil, nil, nil, time.Time{}, trouble{}
	s.use(true)
	if !s.closed {
		log.Infof("%s: no longer answering the resolvers of %s by its measurements: %s", s.conf.Node, p.node, why)
	}
}

// compare logs when none of the servers of the view is known here, which may last
// until the services are loaded, and when some are again.
func (p *pull) compare() {
	known, all, node := p.view.known(p.sharing.targets()), len(p.view.targets), p.sharing.config().Node
	switch {
	case !p.strange.tell(known == 0 && all > 0):
	case known == 0:
		log.Warningf("%s: none of the %d addresses of servers of %s is known here, so its resolvers are answered by own measurements: give both the same services, with the same addresses of servers and names of probes",
			node, all, p.node)
	default:
		log.Infof("%s: %d of the %d addresses of servers of %s are known here now", node, known, all, p.node)
	}
}

// look gets the view if there is another one.
func (p *pull) look() error {
	ctx, cancel := context.WithTimeout(p.ctx, pullEvery)
	defer cancel()
	conf, of, result := p.sharing.config(), p.node, "unchanged"
	zone := viewZone(p.node, conf.Zones[0])
	var got *view
	err := p.each(ctx, p.sharing.find, conf.port, func(address string) error {
		v := p.view
		serial, err := askSerial(ctx, zone, conf.viewKey, address)
		if err == nil && (v == nil || v.serial != serial) {
			v, err = transferView(ctx, p.node, zone, conf.viewKey, address)
			got = v
		}
		if err == nil && v.deputies != nil && !slices.Contains(v.deputies, conf.Node) {
			return dismissal("it has other deputies now")
		}
		return err
	})
	if v := cmp.Or(got, p.view); err == nil && v != nil {
		p.settle(ctx, v)
	}
	switch {
	case p.ctx.Err() != nil:
		return err
	case errors.Is(err, registrar.ErrUnknownNode):
		of, result = "", "unknown" // who has the key can make up any number of nodes
	case errors.As(err, new(dismissal)):
		result = "refused"
		if got != nil && p.view != nil { // which it may use for a while yet
			p.use(got)
		}
	case err != nil:
		result = "failed"
	case got != nil && time.Since(got.made) < viewTime:
		result = "new"
		p.use(got)
	case p.view != nil && !reflect.DeepEqual(p.prefixes, p.peer.prefixes):
		p.use(p.view)
	}
	viewPulls.WithLabelValues(conf.Node, of, result).Inc()
	return err
}

// settle asks DNS-B again whose resolvers are the node's, if it registers others
// than DNS-B told. Whatever a view says, they are those that DNS-B knows.
func (p *pull) settle(ctx context.Context, v *view) {
	if v.near != p.claimed {
		p.claimed, p.claimedAt = v.near, time.Now()
	}
	if p.unsettled() && time.Since(p.asked) >= askPause {
		_ = p.locate(ctx, p.sharing.find) // else again, as long as it is unsettled
	}
}

// unsettled reports whether DNS-B is about to know other prefixes of the node.
func (p *pull) unsettled() bool {
	return p.claimed != "" && p.claimed != p.near && time.Since(p.claimedAt) < settleTime
}

// askSerial asks a node for the serial of its view.
func askSerial(ctx context.Context, zone string, key dnsclient.Key, address string) (uint32, error) {
	r, err := askNode(ctx, new(dns.Msg).SetQuestion(zone, dns.TypeSOA), key, address)
	switch signed := r != nil && r.IsTsig() != nil; {
	case signed && r.Rcode == dns.RcodeRefused:
		return 0, dismissal("it has no deputies any more")
	case signed && r.Rcode == dns.RcodeServerFailure:
		return 0, errors.New("it has nothing to share yet, as when it was started a moment ago")
	case err != nil:
		return 0, err
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok && dns.CanonicalName(soa.Hdr.Name) == zone {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("it has no zone %s", zone)
}

// askNode asks another node, signed, and checks what comes back. With an error
// there is a reply if its signature is right, or missing.
func askNode(ctx context.Context, m *dns.Msg, key dnsclient.Key, address string) (*dns.Msg, error) {
	m.RecursionDesired = false
	r, err := dnsclient.Endpoint(address).Exchange(ctx, nil, m, key)
	switch {
	case err != nil:
		return nil, err
	case r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNotAuth:
		return r, dnsclient.CheckSigned(r, key, "all nodes need the same name and secret of 'view-key'")
	}
	return r, fmt.Errorf("it answers %s: compare the zones, 'deputy' and 'view-key' of both", dns.RcodeToString[r.Rcode])
}

// transferView gets a view by AXFR.
func transferView(ctx context.Context, node, zone string, key dnsclient.Key, address string) (*view, error) {
	reader := newViewReader(node, zone, time.Now())
	if err := dnsclient.Endpoint(address).Transfer(ctx, nil, zone, key, maxViewSize, reader.add); err != nil {
		return nil, err
	}
	return reader.end()
}
