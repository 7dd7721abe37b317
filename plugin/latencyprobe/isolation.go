package latencyprobe

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Isolation begins when at least isolatedNames servers and nodes, in at least
	// isolatedNetworks networks, are silent, and these are at least
	// isolatedPercent of those that were probed meanwhile.
	isolatedNames    = 3
	isolatedNetworks = 2
	isolatedPercent  = 90
)

// isolation is whether this machine's own network seems to have failed.
var isolation isolationState

type isolationState struct {
	on    atomic.Bool
	ended atomic.Uint64 // how often it has ended
	mu    sync.Mutex    // guards changes
}

func (s *isolationState) active() bool { return s.on.Load() }

// detect reports whether this machine is isolated, judged by the probes since a
// time. It is called before a target goes down.
func (s *isolationState) detect(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on.Load() {
		return true
	}
	if manyReached(since) {
		return false
	}
	probed, silent, networks := countSilent(since)
	if silent < isolatedNames || networks < isolatedNetworks || silent*100 < probed*isolatedPercent {
		return false
	}
	s.on.Store(true)
	log.Warningf("Isolated: %d of %d servers and nodes that were up, in %d networks, are silent, assuming a failure of this machine's network, "+
		"keeping states and rankings", silent, probed, networks)
	return true
}

// recheck ends isolation if enough servers and nodes answer. It is called when one
// target does, which alone is not enough: it may be on this side of the failure.
func (s *isolationState) recheck() {
	if !s.on.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	probed, silent, _ := countSilent(time.Time{})
	if probed > 0 && silent*100 >= probed*isolatedPercent || !s.on.CompareAndSwap(true, false) {
		return
	}
	s.ended.Add(1)
	log.Infof("Recovered: no longer isolated, %d of %d servers and nodes answer", probed-silent, probed)
}

// manyReached reports whether so many servers and nodes answered since a time that
// this machine is not isolated, whatever the others did. Where most answer, that
// takes a look at a tenth of the targets: many may fail within seconds, and each
// one asks.
func manyReached(since time.Time) bool {
	all := measurements.Values()
	names := make(map[string]struct{})
	for _, m := range all {
		if last := m.lastProbe.Load(); last == nil || last.ended.Before(since) || !last.wasUp || !last.reached {
			continue
		}
		names[m.key.target.Name] = struct{}{}
		if len(names)*100 > len(all)*(100-isolatedPercent) { // there are no more names than targets
			return true
		}
	}
	return false
}

// countSilent counts the servers and nodes, by name, that were probed since a time,
// those of them of which no target answered, and the networks of the latter. Only
// targets that were up count: one that never answered shows nothing about the
// network of this machine. A refusal or a wrong answer shows that it works.
//
// A node says itself which addresses and cuts it has. So each name counts once,
// however many targets it has.
func countSilent(since time.Time) (probed, silent, networks int) {
	type name struct {
		reached  bool
		networks []netip.Prefix
	}
	names := make(map[string]*name)
	for _, m := range measurements.Values() {
		last := m.lastProbe.Load()
		if last == nil || last.ended.Before(since) || !last.wasUp {
			continue
		}
		n, ok := names[m.key.target.Name]
		if !ok {
			n = new(name)
			names[m.key.target.Name] = n
		}
		n.reached = n.reached || last.reached
		if network := networkOf(m.key.target.Addr); !n.reached && !slices.Contains(n.networks, network) {
			n.networks = append(n.networks, network)
		}
	}
	silentNetworks := make(map[netip.Prefix]bool)
	for _, n := range names {
		if n.reached {
			continue
		}
		silent++
		for _, network := range n.networks {
			silentNetworks[network] = true
		}
	}
	return len(names), silent, len(silentNetworks)
}

// networkOf returns the part of the Internet that an address is in, roughly: a
// /16 or a /32.
func networkOf(addr netip.Addr) netip.Prefix {
	bits := 16
	if addr.Is6() {
		bits = 32
	}
	p, _ := addr.Prefix(bits)
	return p
}
