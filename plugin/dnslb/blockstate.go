package dnslb

import (
	"fmt"
	"slices"
	"sync"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/overridefetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/surveyor"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// blockState is the state of one server block that outlives a reload: rankings,
// registration, views, map, survey and the overrides of DNS-Bs. It is closed, and the node withdraws, when the last
// instance with the block ends.
type blockState struct {
	registrar *registrar.Registrar
	sharing   *peerview.Sharing
	maps      *mapfetch.Fetcher
	overrides *overridefetch.Fetcher
	survey    *surveyor.Surveyor
	views     func() *peerview.Set // of principals that this node follows now

	// mu guards the snapshots, and the rank states and observations in all of them:
	// during a reload two instances rank.
	mu        sync.Mutex
	snapshots []instanceSnapshot // youngest instance last
}

// instanceSnapshot is the snapshot of one instance.
type instanceSnapshot struct {
	instance *DNSLB
	snapshot *snapshot
}

// blockSettings are what an instance wants of the state of its block.
type blockSettings struct {
	sharing      peerview.Settings
	maps         mapfetch.Settings
	overrides    overridefetch.Settings
	survey       surveyor.Settings
	registration *registrar.Settings // nil until the instance is ready
}

// blockSettings returns what this instance wants of the state of its block now.
func (d *DNSLB) blockSettings() blockSettings {
	conf := d.registers()
	want := blockSettings{sharing: conf.sharing(), maps: mapSettings(conf), overrides: overrideSettings(conf), survey: d.surveySettings(conf)}
	if d.Ready() {
		registration := registrarSettings(conf)
		registration.Registration.Beside = d.snapshot.Load().nodesBesideServers()
		want.registration = &registration
	}
	return want
}

// blocks owns the states of all server blocks.
var blocks = reload.Owner[string, *blockState, blockSettings]{
	New:       func(string) *blockState { return newBlockState() },
	Configure: func(b *blockState, want blockSettings) error { b.configure(want); return nil },
	Close:     func(_ string, b *blockState) { b.close() },
}

// blockKey identifies a server block across reloads. A node that registers stays
// the same when its zones or listeners change. Other blocks may rank the same
// zone, and stay the same while their first zone and their listener do.
func blockKey(conf config, cfg *dnsserver.Config) string {
	if len(conf.dnsbs) > 0 {
		return "node " + conf.Node
	}
	return fmt.Sprintf("%s %s %s %s %s", conf.Zones[0], cfg.Transport, cfg.ListenHosts, cfg.Port, cfg.ViewName)
}

func newBlockState() *blockState {
	b := &blockState{registrar: registrar.New(), overrides: overridefetch.New()}
	b.sharing = peerview.New(b.registrar.Lookup, b.targets)
	b.views = b.sharing.Current
	b.maps = mapfetch.New(b.sharing.SetMap)
	b.survey = surveyor.New(b.registrar.Zone)
	return b
}

// configure applies what the youngest instance wants. Until that is ready, the
// registration stays as the previous one has configured it. A block that
// registers at no DNS-B withdraws what an earlier configuration has registered.
func (b *blockState) configure(want blockSettings) {
	b.sharing.Configure(want.sharing)
	b.maps.Configure(want.maps)
	b.overrides.Configure(want.overrides)
	b.survey.Configure(want.survey)
	if want.registration != nil {
		b.registrar.Configure(*want.registration)
	}
}

// close withdraws the node and ends its traffic with other nodes.
func (b *blockState) close() {
	b.survey.Close()
	b.maps.Close() // before what it tells
	var closing sync.WaitGroup
	closing.Go(b.sharing.Close)
	closing.Go(b.registrar.Close)
	closing.Go(b.overrides.Close)
	closing.Wait()
}

// targets returns what this node measures.
func (b *blockState) targets() []latencyprobe.Target {
	if t := b.youngest().snapshot; t != nil {
		return t.targets
	}
	return nil
}

// youngest returns the snapshot of the youngest instance, the zero value if there
// is none.
func (b *blockState) youngest() instanceSnapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.snapshots); n > 0 {
		return b.snapshots[n-1]
	}
	return instanceSnapshot{}
}

// setSnapshot makes t the snapshot of an instance. Its pools take over the rank states
// of their services from the previous snapshot: that of the same instance, or else
// that of the previous one. It returns that snapshot, nil if there is none.
func (b *blockState) setSnapshot(t *snapshot, instance *DNSLB) *snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	var previous *snapshot
	if i := slices.IndexFunc(b.snapshots, func(it instanceSnapshot) bool { return it.instance == instance }); i >= 0 {
		previous, b.snapshots[i].snapshot = b.snapshots[i].snapshot, t
	} else {
		if n := len(b.snapshots); n > 0 {
			previous = b.snapshots[n-1].snapshot
		}
		b.snapshots = append(b.snapshots, instanceSnapshot{instance, t})
	}
	if previous == nil {
		return nil
	}
	continued := make(map[*pool]bool)
	for _, p := range t.pools {
		old := p.predecessor(previous)
		if old == nil {
			continue
		}
		p.continuePast(old, continued[old])
		p.continueCounts(old, continued)
		p.state.adopt(p, old, &old.state)
		p.adoptSites(old)
		if old.principalStates == nil {
			continue
		}
		for slot, s := range *old.principalStates {
			if s != nil {
				p.newPrincipalState(slot).adopt(p, old, s)
			}
		}
	}
	return previous
}

// removeSnapshot removes the snapshot of an instance that has ended.
func (b *blockState) removeSnapshot(instance *DNSLB) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.snapshots = slices.DeleteFunc(b.snapshots, func(it instanceSnapshot) bool { return it.instance == instance })
}
