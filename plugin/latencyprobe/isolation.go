package latencyprobe

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Isolation begins when at least isolatedTargets targets, in at least
	// isolatedNetworks networks, are silent, and these are at least
	// isolatedPercent of the targets that were probed meanwhile.
	isolatedTargets  = 3
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
	probed, silent, networks := countSilent(since)
	if silent < isolatedTargets || networks < isolatedNetworks || silent*100 < probed*isolatedPercent {
		return false
	}
	s.on.Store(true)
	log.Warningf("Isolated: %d of %d targets, in %d networks, are silent, assuming a failure of this machine's network, "+
		"keeping states and rankings", silent, probed, networks)
	return true
}

// recheck ends isolation if enough targets answer. It is called when one does,
// which alone is not enough: it may be on this side of the failure.
func (s *isolationState) recheck() {
	if !s.on.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	probed, silent, _ := countSilent(time.Time{})
	if silent*100 >= probed*isolatedPercent || !s.on.CompareAndSwap(true, false) {
		return
	}
	s.ended.Add(1)
	log.Infof("Recovered: no longer isolated, %d of %d targets answer", probed-silent, probed)
}

// countSilent counts the targets that were probed since a time and were not
// down before that, those that did not answer, and the networks of the latter.
// A refusal or a wrong answer shows that the network of this machine works.
func countSilent(since time.Time) (probed, silent, networks int) {
	silentNetworks := make(map[netip.Prefix]bool)
	for _, m := range measurements.Values() {
		last := m.lastProbe.Load()
		if last == nil || last.ended.Before(since) || last.wasDown {
			continue
		}
		probed++
		if !last.reached {
			silent++
			silentNetworks[networkOf(m.key.target.Addr)] = true
		}
	}
	return probed, silent, len(silentNetworks)
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
