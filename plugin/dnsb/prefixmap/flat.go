package prefixmap

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

// flat has the prefixes of one family, with a text and a line for each, in slices without
// pointers: the garbage collector need not walk through a million of them. It is immutable.
type flat[A ipnum.Number[A]] struct {
	first []A // address of the prefix; sorted, a prefix before those in it
	rest  []flatRest
	line  []uint32
	steps []A // every stepSize-th of first: what a search begins with stays in the cache
}

// flatRest is what a look-up needs of a prefix beside its address.
type flatRest struct {
	outer  int32 // index of the smallest of the other prefixes that covers it, or none
	text   uint32
	length uint8 // in bits
}

const (
	none     = -1
	stepSize = 64
)

// flatItem is a prefix of a flat.
type flatItem[A any] struct {
	first      A
	text, line uint32
	length     uint8
}

// newFlat returns the prefixes, which it sorts. Equal ones stay in the order of lines.
func newFlat[A ipnum.Number[A]](items []flatItem[A], pacer *pacing.Pacer) flat[A] {
	slices.SortFunc(items, func(a, b flatItem[A]) int {
		pacer.Step()
		switch {
		case a.first.Less(b.first):
			return -1
		case b.first.Less(a.first):
			return 1
		case a.length != b.length:
			return int(a.length) - int(b.length)
		}
		return int(a.line) - int(b.line)
	})
	n := len(items)
	f := flat[A]{make([]A, n), make([]flatRest, n), make([]uint32, n), make([]A, 0, (n+stepSize-1)/stepSize)}
	outer := int32(none)
	for i, item := range items {
		pacer.Step()
		f.first[i], f.line[i] = item.first, item.line
		if i%stepSize == 0 {
			f.steps = append(f.steps, item.first)
		}
		for outer != none && f.last(outer).Less(item.first) {
			outer = f.rest[outer].outer
		}
		f.rest[i] = flatRest{outer, item.text, item.length}
		outer = int32(i) // #nosec G115 -- far fewer
	}
	return f
}

func (f *flat[A]) last(i int32) A { return f.first[i].Last(int(f.rest[i].length)) }

func (f *flat[A]) prefix(i int32) netip.Prefix {
	return netip.PrefixFrom(f.first[i].Addr(), int(f.rest[i].length))
}

// covering returns the index of the longest prefix up to a length that covers an address,
// or none. All others are its outer one, the outer one of that, and so on.
func (f *flat[A]) covering(a A, length int) int32 {
	i := f.lastUpTo(a)
	for i != none && (int(f.rest[i].length) > length || f.last(i).Less(a)) {
		i = f.rest[i].outer
	}
	return i
}

// lastUpTo returns the index of the last prefix that begins at an address or before, or
// none.
func (f *flat[A]) lastUpTo(a A) int32 {
	if len(f.first) == 0 || a.Less(f.first[0]) {
		return none
	}
	begin := lastUpTo(f.steps, a) * stepSize
	return int32(begin + lastUpTo(f.first[begin:min(begin+stepSize, len(f.first))], a)) // #nosec G115 -- far fewer
}

// lastUpTo returns the index of the last one of sorted addresses that is not above a. The
// first one is not.
func lastUpTo[A ipnum.Number[A]](sorted []A, a A) int {
	at := 0
	for n := len(sorted); n > 1; { // without a branch that the processor has to guess
		half := n / 2
		if !a.Less(sorted[at+half]) {
			at += half
		}
		n -= half
	}
	return at
}
