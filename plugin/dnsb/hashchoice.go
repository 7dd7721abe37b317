package dnsb

import (
	"sync/atomic"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

const (
	// choiceSlots is how many resolver sites the choices of a cut remember: those of
	// the resolvers that ask often, in 32 KiB.
	choiceBits  = 12
	choiceSlots = 1 << choiceBits
	// fewNodes are chosen from as fast without choices.
	fewNodes = 32
)

// choices are which of many nodes rendezvous hashing gives resolver sites: to find
// out takes a time that grows with the nodes. A slot has the upper bits of the hash
// of a site, of which the lower ones number the slot, and the index of its node from
// 1 on. They are safe for concurrent use.
type choices [choiceSlots]atomic.Uint64

// hashed returns the index in m.nodes of the node with the highest score for a site.
func (m *members) hashed(site uint64) int {
	if len(m.hashes) < fewNodes || len(m.hashes) >= choiceSlots {
		return m.highest(site)
	}
	known := m.choices.Load()
	if known == nil {
		known = new(choices)
		m.choices.Store(known)
	}
	slot := &known[site%choiceSlots]
	if v := slot.Load(); v != 0 && v>>choiceBits == site>>choiceBits {
		return int(v%choiceSlots) - 1 // #nosec G115 -- 12 bits
	}
	i := m.highest(site)
	slot.Store(site>>choiceBits<<choiceBits | uint64(i+1)) // #nosec G115 -- not negative
	return i
}

// highest is hashed without choices.
func (m *members) highest(site uint64) (best int) {
	most := uint64(0)
	for i, hash := range m.hashes {
		if score := resolver.Score(site, hash); score > most {
			best, most = i, score
		}
	}
	return best
}
