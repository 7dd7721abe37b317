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
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/stamp"
)

// DNSB refers resolvers to nodes. It serves one zone.
type DNSB struct {
	Next plugin.Handler

	conf  *config
	probe func() prober // nil: nodes are not probed

	signer      *nsec.Signer  // nil: the zone is not signed
	secondaries notifier      // nil: there are none
	grown       chan struct{} // capacity 1: the serial has

	registry *registry
	prober   prober
	files    map[string]stamp.Stamp // when the map files were last looked at

	adminRead stamp.Stamp // when the admin file was last looked at
	done      sync.WaitGroup
	stop      context.CancelFunc

	updates  sync.Mutex // of who registers
	mu       sync.Mutex // of who makes snapshots
	tables   *tables
	orders   []order
	permits  map[string]permit
	snapshot atomic.Pointer[snapshot]
	overlaps atomic.Pointer[overlaps]
}

// permit is whether a registration, kept over a reload, is within what the
// configuration of this instance accepts.
type permit struct {
	record *record
	ok     bool
}

var (
	_ plugin.Handler     = (*DNSB)(nil)
	_ cache.ZoneBypasser = (*DNSB)(nil)
)

// running holds the instances that have started, so that one whose start-up
// failed in another plugin ends as well.
var running = keep.Keeper[*DNSB, struct{}]{
	Close: func(d *DNSB, _ struct{}) { d.close() },
}

// start makes the first snapshot and follows what changes until close.
func (d *DNSB) start(r *registry) {
	d.registry, d.permits, d.files = r, make(map[string]permit), d.tables.files
	if d.probe != nil {
		d.prober = d.probe()
	}
	registered, unsubscribe := r.subscribe()
	d.grown = make(chan struct{}, 1)
	d.refresh()
	before := r.youngest.Swap(d)

	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	d.done.Go(func() {
		defer unsubscribe()
		d.follow(ctx, registered)
	})
	if len(d.conf.accepts) > 0 {
		if before != nil { // until the first count
			d.overlaps.Store(before.overlaps.Load())
		}
		d.done.Go(func() { d.watchOverlaps(ctx) })
	}
	if d.secondaries != nil {
		d.done.Go(func() { notify(ctx, d.secondaries, d.conf.zone, d.grown) })
	}
	if len(d.conf.files()) > 0 || d.conf.admin != "" {
		d.done.Go(func() { d.followFiles(ctx) })
	}
	if d.conf.export != "" {
		d.done.Go(func() { d.keepExported(ctx) })
	}
}

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
		case <-probed:
		}
		d.refresh()
	}
}

// followFiles looks at the files, apart from what follows nodes: a large one takes
// a while to read.
func (d *DNSB) followFiles(ctx context.Context) {
	ticker := time.NewTicker(checkFiles)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if mapped, ordered := d.reload(), d.readOrders(); mapped || ordered {
			d.refresh()
		}
	}
}

// reassert gives the registry back what a younger instance, which failed to
// start, may have changed in it.
func (d *DNSB) reassert() error {
	if err := d.registry.use(d.conf.store, d.conf.zone, d.conf.leaseMax); err != nil {
		log.Errorf("After a restart that failed, registrations are not stored any more: %s", err)
	}
	d.registry.youngest.Store(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tables.accept(d.registry, d.conf)
	return nil
}

func (d *DNSB) close() {
	d.stop()
	d.done.Wait()
	if d.prober != nil {
		d.prober.close()
	}
}

// refresh makes a snapshot of what is registered and alive. When it returns,
// queries see all that was registered before.
func (d *DNSB) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.registry.state()
	for name, rec := range st.records {
		if !d.permitted(rec) {
			delete(st.records, name)
		}
	}

	if d.prober != nil { // first, so that what is known from before a reload counts
		var asked []watched
		for _, r := range d.conf.statics {
			asked = append(asked, watchedOf(r)...)
		}
		for _, rec := range st.records {
			asked = append(asked, watchedOf(rec.Registration)...)
		}
		d.prober.watch(asked)
	}
	s := build(d.conf, d.tables, st, inForce(d.orders, d.tables), d.coldUntil(), func(n *node) (answer, string) {
		return answersOf(d.prober, n.Registration)
	})
	s.unmapped = d.registry.unmapped
	s.signatures = d.signer.SignatureSize()
	before := d.snapshot.Swap(s)
	s.report(before)
	if before == nil || s.serial != before.serial {
		select {
		case d.grown <- struct{}{}:
		default:
		}
	}

	for name := range s.orders.forgotten {
		n := s.named(registration.NodeName(name, d.conf.zone))
		if n == nil || n.record == nil || n.state != nodeDead {
			continue
		}
		if err := d.registry.forget(name); err != nil { // the change makes another snapshot
			log.Errorf("Node %s cannot be forgotten: %s", name, err)
			continue
		}
		log.Infof("Node %s is forgotten", name)
	}
}

// permitted reports whether a registration is within what is configured now.
func (d *DNSB) permitted(rec *record) bool {
	p := d.permits[rec.Node]
	if p.record == nil || p.record.Registration != rec.Registration {
		err := d.conf.permits("", rec.Registration, nil)
		if err == nil {
			err = checkSigned(d.signer, d.conf.zone, rec.Cuts)
		}
		p.ok = err == nil
		if err != nil {
			log.Warningf("Registration of node %s from before is left out: %s", rec.Node, err)
		}
	}
	p.record = rec
	d.permits[rec.Node] = p
	return p.ok
}

// coldUntil returns until when names that nobody registered may belong to a
// node that has not yet come back. After one lease all have.
func (d *DNSB) coldUntil() time.Time {
	for _, a := range d.conf.accepts {
		if !d.registry.registered(a.node) {
			return d.registry.coldUntil(d.conf.leaseMax)
		}
	}
	return time.Time{}
}

// ServeDNS implements the plugin.Handler interface.
func (d *DNSB) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	switch {
	case r.Opcode == dns.OpcodeUpdate:
		return d.update(ctx, w, r)
	case state.QClass() != dns.ClassINET || !dns.IsSubDomain(d.conf.zone, state.Name()):
		return plugin.NextOrFailure(d.Name(), d.Next, ctx, w, r)
	case r.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented, nil
	case state.QType() == dns.TypeAXFR || state.QType() == dns.TypeIXFR:
		return dns.RcodeRefused, nil
	case d.explains(state):
		return d.tell(state)
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
