package latencyprobe

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// isolatedTargets is the least number of targets, in isolatedNetworks at
	// least, that must fail at once before our own network is suspected.
	isolatedTargets  = 3
	isolatedNetworks = 2
	// isolatedShare is how many of the targets that were probed meanwhile must
	// have failed, in percent.
	isolatedShare = 90
)

// isolation notes whether our own network seems gone.
var isolation isolationState

type isolationState struct {
	on   atomic.Bool
	ends atomic.Uint64 // how often it has ended
	mu   sync.Mutex    // of who looks
}

func (s *isolationState) is() bool { return s.on.Load() }

// suspect looks whether nearly all targets that were probed since a time were
// silent, in several networks: a refusal or a wrong answer shows that our own
// network works. It is asked before a target goes down.
func (s *isolationState) suspect(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on.Load() {
		return true
	}
	probed, failed, networks := failing(since)
	if failed < isolatedTargets || networks < isolatedNetworks || failed*100 < probed*isolatedShare {
		return false
	}
	s.on.Store(true)
	log.Warningf("Isolated: %d of %d targets in %d networks fail at once, which is our own network; states and rankings stay as they are", failed, probed, networks)
	return true
}

// answered notes that a target answered. One is not enough: it may be the only
// one that is not behind what failed.
func (s *isolationState) answered() {
	if !s.on.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	probed, failed, _ := failing(time.Time{})
	if failed*100 >= probed*isolatedShare || !s.on.CompareAndSwap(true, false) {
		return
	}
	s.ends.Add(1)
	log.Infof("No longer isolated: %d of %d targets answer", probed-failed, probed)
}

// failing counts the targets that were probed since a time and were not down
// then, those of them that were silent, and the networks that these are in.
func failing(since time.Time) (probed, failed, networks int) {
	in := make(map[netip.Prefix]bool)
	for _, t := range allTargets() {
		at, reached, down := t.lastProbe()
		if at.IsZero() || at.Before(since) || down {
			continue
		}
		probed++
		if !reached {
			failed++
			in[network(t.key.target.Addr)] = true
		}
	}
	return probed, failed, len(in)
}

// network is the part of the Internet that an address is in, roughly.
func network(addr netip.Addr) netip.Prefix {
	bits := 16
	if addr.Is6() {
		bits = 32
	}
	p, _ := addr.Prefix(bits)
	return p
}
