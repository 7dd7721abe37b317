// Package dnsb implements a plugin that refers each resolver to the DNS-LB that
// is nearest to it.
//
// It is authoritative for its zone down to the cuts in it, and delegates those.
// Which node a referral names depends on who asks: the resolver's address is
// looked up in a table of prefixes, which the nodes themselves make by signed
// and leased registrations. A query reads one immutable snapshot; whatever
// changes, makes another.
package dnsb

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// DNSB refers resolvers to nodes. It serves one zone.
type DNSB struct {
	Next plugin.Handler

	conf       *config
	probe      func() prober // nil: nodes are not probed
	notifyNode nodeNotifier  // nil: nodes are not notified of the map

	signer      *nsec.Signer  // nil: the zone is not signed
	secondaries notifier      // nil: there are none
	notifyDue   wakeup.Signal // the serial has grown

	zone     *zone
	registry *registry.Registry
	prober   prober
	done     sync.WaitGroup
	stop     context.CancelFunc

	// Of the goroutine that follows files:
	mapFiles *filewatch.Set // and databases
	admin    *filewatch.Loader[[]nodeOverride]
	schedule override.Schedule[nodeAction]

	mapStatus atomic.Pointer[filewatch.Status] // of map files and databases

	forgetDue     wakeup.Signal // a node may have to be forgotten
	shareDue      wakeup.Signal // the map for nodes may have changed
	announceDue   wakeup.Signal // the overrides for nodes have changed
	forgetFailure reminder.Keyed

	updates   sync.Mutex // one UPDATE at a time; held before mu
	mu        sync.Mutex // of what snapshots are made of
	resolvers *resolverMap
	health    *health
	active    []nodeOverride
	permits   map[string]permit // by node
	snapshot  atomic.Pointer[snapshot]
	overlaps  atomic.Pointer[overlaps]
}

// permit is whether the accept rules of this instance allow a registration that
// a previous instance or another server has accepted.
type permit struct {
	registration *registration.Registration
	ok           bool
}

var (
	_ plugin.Handler     = (*DNSB)(nil)
	_ cache.ZoneBypasser = (*DNSB)(nil)
)

// load makes the first snapshot.
func (d *DNSB) load(z *zone) {
	d.zone, d.registry, d.permits = z, z.registry, make(map[string]permit)
	if d.probe != nil {
		d.prober = d.probe()
	}
	d.health = newHealth(d.prober, d.conf)
	d.notifyDue, d.forgetDue, d.shareDue, d.announceDue = wakeup.New(), wakeup.New(), wakeup.New(), wakeup.New()
	d.resumeOverrides(z.youngest.Load())
	d.refresh()
}

// start makes the first snapshot and follows what changes until close.
func (d *DNSB) start(z *zone) {
	registered, unsubscribe := z.registry.Subscribe()
	d.load(z)
	startCounters(d.conf.zone)
	previous := z.started(d)
	s := d.snapshot.Load()
	z.mixed.log(s, s.cutNames())

	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	d.done.Go(func() {
		defer unsubscribe()
		d.follow(ctx, registered)
	})
	if previous == nil {
		z.referrals.sample(d.conf.zone)
	}
	d.done.Go(func() { d.countReferrals(ctx) })
	if len(d.conf.accepts) > 0 {
		if previous != nil { // until the first count
			d.overlaps.Store(previous.overlaps.Load())
		}
		d.done.Go(func() { d.watchOverlaps(ctx) })
		d.done.Go(func() { d.shareMap(ctx, &z.shared) })
		d.done.Go(func() { d.announceOverrides(ctx) })
	}
	if d.conf.survey != nil {
		z.survey.Configure(*d.conf.survey)
		d.done.Go(func() { d.followSurvey(ctx) })
	}
	if d.secondaries != nil {
		d.done.Go(func() { notify(ctx, d.secondaries, d.conf.zone, d.notifyDue, z.copies.notedRound) })
	}
	if len(d.conf.files()) > 0 || d.conf.admin != "" {
		d.done.Go(func() { d.followFiles(ctx) })
	}
	if d.conf.export != "" {
		d.done.Go(func() { d.exportChanges(ctx) })
	}
}

// follow makes a snapshot of each change of the registry and of the health of
// nodes.
func (d *DNSB) follow(ctx context.Context, registered <-chan struct{}) {
	var probed <-chan struct{}
	if d.prober != nil {
		probed = d.prober.changed()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-registered:
			d.catchUp()
		case <-probed:
			d.refresh()
		case <-d.forgetDue:
			d.forgetDead()
		}
	}
}

// followFiles loads files that change. It is apart from follow, since a large map
// takes a while.
func (d *DNSB) followFiles(ctx context.Context) {
	for {
		wait := min(d.mapFiles.Wait(), d.admin.Wait())
		if end := d.schedule.NextEnd(); !end.IsZero() {
			wait = min(wait, time.Until(end))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if mapped, overridden := d.reload(), d.pollOverrides(); mapped || overridden {
			d.refresh()
		}
	}
}

func (d *DNSB) close() {
	d.zone.ended(d)
	d.stop()
	d.done.Wait()
	if d.prober != nil {
		d.prober.close()
	}
}

// catchUp makes queries see all that is registered when it is called. It makes a
// snapshot only if the current one lacks something.
func (d *DNSB) catchUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.snapshot.Load().serial != d.registry.Serial() {
		d.build()
	}
}

// refresh makes a snapshot, for a change outside the registry.
func (d *DNSB) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.build()
}

// build makes a snapshot of what is registered and alive. mu is locked.
func (d *DNSB) build() {
	records, serial := d.registry.Records()
	previous := d.snapshot.Load()
	var pacer *pacing.Pacer
	if d.zone.youngest.Load() != nil { // queries are answered
		pacer = new(pacing.Pacer)
	}
	s, changes := build(d.conf, previous, input{
		resolvers: d.resolvers, records: records, permitted: d.permitted, serial: serial,
		overrides: inForce(d.active, d.resolvers), coldUntil: d.coldUntil(), health: d.health, sites: d.sites(), pacer: pacer,
	})
	s.survey = d.zone.survey
	s.unmapped, s.storeUnread = d.zone.unmapped, d.registry.Awaiting()
	s.signatures = d.signer.SignatureSize()
	d.snapshot.Store(s)
	d.shareDue.Set()
	s.logChanges(previous, changes)
	if d.zone.youngest.Load() == d {
		d.zone.mixed.log(s, changes.cuts)
	}
	if previous == nil || s.serial != previous.serial {
		d.notifyDue.Set()
	}
	if s.announces(previous, changes, &d.zone.fetched) {
		d.announceDue.Set()
	}
	if len(s.overrides.forgotten) > 0 {
		d.forgetDue.Set()
	}
}

// sites returns what the survey knows, nil if there is none.
func (d *DNSB) sites() *sitesurvey.Table {
	if d.conf.survey == nil {
		return nil
	}
	return d.zone.survey.Table()
}

// forgetDead forgets the dead nodes that the operator wants to be forgotten, and
// resets the last serials of these nodes, dead or not, that are ahead of the
// clock. That is a change of the registry, which makes another snapshot.
func (d *DNSB) forgetDead() {
	s := d.snapshot.Load()
	for name := range s.overrides.forgotten {
		switch reset, err := d.registry.ResetSerial(name); {
		case err != nil && d.forgetFailure.Failed(name, ""):
			log.Errorf("Failed to reset the last serial of node %q, retrying: %v", name, err)
		case reset:
			log.Infof("Reset the last serial of node %q, which was ahead of the clock", name)
		}
		n := s.named(registration.NodeName(name, d.conf.zone))
		if n == nil || n.record == nil || n.state != nodeDead {
			continue
		}
		forgotten, err := d.registry.Forget(n.record)
		switch {
		case err != nil && d.forgetFailure.Failed(name, ""):
			log.Errorf("Failed to forget node %q, retrying: %v", name, err)
		case forgotten:
			log.Infof("Forgot node %q", name)
		}
	}
}

// permitted reports whether a registration is within what is configured now.
func (d *DNSB) permitted(rec *registry.Record) bool {
	if p, ok := d.permits[rec.Node]; ok && p.registration == rec.Registration {
		return p.ok
	}
	err := d.conf.permits("", rec.Registration, nil)
	if err == nil {
		err = checkSigned(d.signer, d.conf.zone, rec.Cuts)
	}
	if err != nil {
		log.Warningf("Ignoring stored registration of node %q: %v", rec.Node, err)
	}
	d.permits[rec.Node] = permit{rec.Registration, err == nil}
	return err == nil
}

// coldUntil returns until when names that nobody registered may belong to a
// node that has not yet come back. After one lease all have.
func (d *DNSB) coldUntil() time.Time {
	for _, a := range d.conf.accepts {
		if d.registry.LastSerial(a.node) == 0 {
			return d.registry.ColdUntil(d.conf.leaseMax)
		}
	}
	return time.Time{}
}

// ServeDNS implements the plugin.Handler interface.
func (d *DNSB) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	arrived(ctx, r)
	state := request.Request{W: w, Req: r}
	switch {
	case r.Opcode == dns.OpcodeUpdate:
		return d.update(ctx, w, r)
	case state.QClass() != dns.ClassINET || !dns.IsSubDomain(d.conf.zone, state.Name()):
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	}
	if cut, ok := nodemap.CutOf(state.Name()); ok && (r.IsTsig() != nil || d.snapshot.Load().cuts[cut] != nil) {
		return d.serveMap(ctx, w, r, cut)
	}
	if key, signed := tsig.ValidatedKeyName(ctx); signed {
		if node, cut, ok := serveroverride.ParseName(state.Name()); ok {
			return d.serveOverrides(w, r, key, node, cut)
		}
	}
	if node, ok := surveymsg.NodeOf(state.Name(), d.conf.zone); ok && d.conf.survey != nil {
		return d.serveWork(ctx, w, r, node)
	}
	switch {
	case r.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented, nil
	case state.QType() == dns.TypeAXFR || state.QType() == dns.TypeIXFR:
		return dns.RcodeRefused, nil
	}
	dnsmsg.NormalizeEDNS(r)
	if d.explains(state) {
		return d.answerExplanation(state)
	}

	s := d.snapshot.Load()
	if d.signer != nil {
		state.W = d.signer.Writer(ctx, w, r, s.types)
	}
	c := s.cutOf(state.Name())
	if c == nil || c.name == state.Name() && state.QType() == dns.TypeDS {
		return s.answer(state)
	}
	return s.refer(state, c)
}

// CacheBypassZones implements the cache.ZoneBypasser interface: a referral for
// one resolver must not be cached for the others.
func (d *DNSB) CacheBypassZones() []string { return []string{d.conf.zone} }

// Name implements the plugin.Handler interface.
func (d *DNSB) Name() string { return pluginName }
