package geodb

import "net/netip"

// joiner joins neighboring prefixes with the same value to their common prefix.
// They must come in order and not overlap.
type joiner[V any] struct {
	add   func(netip.Prefix, *V)
	value *V
	run   []netip.Prefix // of value; each waits for its right neighbour
}

func (j *joiner[V]) push(prefix netip.Prefix, value *V) {
	if value != j.value {
		j.flush()
		j.value = value
	}
	for len(j.run) > 0 {
		last := j.run[len(j.run)-1]
		common := parent(last)
		if last.Bits() == prefix.Bits() && common == parent(prefix) {
			prefix = common
			j.run = j.run[:len(j.run)-1]
			continue
		}
		if !common.Contains(prefix.Addr()) || common.Bits() >= prefix.Bits() {
			j.flush()
		}
		break
	}
	j.run = append(j.run, prefix)
}

func (j *joiner[V]) flush() {
	for _, prefix := range j.run {
		j.add(prefix, j.value)
	}
	j.run = j.run[:0]
}

// parent returns the prefix that is one bit shorter. A prefix of length 0 is its
// own parent.
func parent(prefix netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(prefix.Addr(), max(prefix.Bits()-1, 0)).Masked()
}
