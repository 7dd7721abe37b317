package dnsb

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/topsites"
)

// zones owns what outlives the instances of a zone. The youngest one says where
// registrations are stored.
var zones = reload.Owner[string, *zone, *DNSB]{
	New:       newZone,
	Configure: (*zone).configure,
	Close: func(_ string, z *zone) {
		_ = z.survey.Leave(z.registry.WriteSurvey) // else the other servers notice
		z.registry.Close()
	},
}

// instances stops those that have started, also when the start-up of another
// plugin fails.
var instances reload.Group

// zone is what all instances of a zone share, and what outlives a reload.
type zone struct {
	registry      *registry.Registry
	unmapped      *topsites.Counter[lastReferral]
	survey        *sitesurvey.Survey
	surveyUnsaved atomic.Bool    // the last write of what the survey knows failed
	refusals      reminder.Keyed // by key, node and outcome
	shares        shares
	replays       replays
	sizes         mapSizes
	mixed         mixedCuts
	fetched       fetchedOverrides

	referrals   recentReferrals
	updates     updateLog
	copies      copies
	mapsFetched mapFetches

	shared       atomic.Pointer[sharedMap] // what nodes fetch; nil: not made yet
	mapTransfers chan struct{}             // one for each that is served

	youngest atomic.Pointer[DNSB] // of the instances that have started

	runningMu sync.Mutex
	running   []*DNSB // instances that have started and not ended, the youngest last
}

// runningZone returns a zone of which an instance has started, nil if there is none.
func runningZone(name string) *zone {
	for _, z := range zones.Values() {
		if d := z.youngest.Load(); d != nil && d.conf.zone == name {
			return z
		}
	}
	return nil
}

// runningWith returns the youngest instance that has started and has not ended, of
// those whose configuration is as wanted; nil if there is none.
func (z *zone) runningWith(wanted func(*config) bool) *DNSB {
	z.runningMu.Lock()
	defer z.runningMu.Unlock()
	for _, d := range slices.Backward(z.running) {
		if wanted(d.conf) {
			return d
		}
	}
	return nil
}

// started makes d the youngest instance, and returns the one that was.
func (z *zone) started(d *DNSB) (previous *DNSB) {
	z.runningMu.Lock()
	defer z.runningMu.Unlock()
	z.running = append(z.running, d)
	return z.youngest.Swap(d)
}

func (z *zone) ended(d *DNSB) {
	z.runningMu.Lock()
	defer z.runningMu.Unlock()
	z.running = slices.DeleteFunc(z.running, func(other *DNSB) bool { return other == d })
}

func newZone(name string) *zone {
	z := &zone{registry: registry.New(name), unmapped: topsites.New[lastReferral](), survey: sitesurvey.New(), mapTransfers: make(chan struct{}, maxMapTransfers)}
	z.registry.SetSurvey(z.survey)
	return z
}

// configure makes registrations be stored where d says. If d has started
// already, a younger instance failed to start, and d goes on.
func (z *zone) configure(d *DNSB) error {
	z.registry.SetServer(d.server())
	if err := z.registry.SetStore(d.conf.store, d.conf.leaseMax); err != nil {
		return err
	}
	if d.snapshot.Load() != nil {
		z.youngest.Store(d)
		if d.conf.survey != nil {
			z.survey.Configure(*d.conf.survey)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.resolvers.accept(&z.sizes, d.conf)
		s := d.snapshot.Load()
		z.mixed.log(s, s.cutNames())
	}
	return nil
}

// began is when the process did.
var began = time.Now()

// server returns what other servers with the same store know this one by.
func (d *DNSB) server() registry.Server {
	host, _ := os.Hostname()
	return registry.Server{Name: d.conf.servers[0].name, Host: host, Version: caddy.AppVersion, Started: began.Truncate(time.Second)}
}
