package nodemap

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// address is an address of one family as a number.
type address[A any] interface {
	comparable
	less(A) bool
	last(length int) A            // the last address of the prefix that begins here
	next() (following A, ok bool) // not ok: this is the last one
}

type address4 uint32

func newAddress4(addr netip.Addr) address4 {
	b := addr.As4()
	return address4(binary.BigEndian.Uint32(b[:]))
}

func (a address4) less(b address4) bool { return a < b }

func (a address4) last(length int) address4 { return a | address4(uint64(1)<<(32-length)-1) } // #nosec G115 -- below 1<<32

func (a address4) next() (address4, bool) { return a + 1, a+1 != 0 }

// common returns how many leading bits two addresses have in common.
func (a address4) common(b address4) int { return bits.LeadingZeros32(uint32(a ^ b)) }

type address6 struct{ hi, lo uint64 }

func newAddress6(addr netip.Addr) address6 {
	b := addr.As16()
	return address6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (a address6) less(b address6) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

func (a address6) last(length int) address6 {
	if length >= 64 {
		return address6{a.hi, a.lo | ^uint64(0)>>(length-64)}
	}
	return address6{a.hi | ^uint64(0)>>length, ^uint64(0)}
}

func (a address6) next() (address6, bool) {
	lo, carry := bits.Add64(a.lo, 1, 0)
	hi, over := bits.Add64(a.hi, 0, carry)
	return address6{hi, lo}, over == 0
}

func (a address6) previous() address6 {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return address6{a.hi - borrow, lo}
}

// common returns how many leading bits two addresses have in common.
func (a address6) common(b address6) int {
	if x := a.hi ^ b.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(a.lo^b.lo)
}

// item is a prefix and its list.
type item[A any] struct {
	first  A
	list   uint32
	length uint8
}

// items are the prefixes of a map.
type items struct {
	four []item[address4]
	six  []item[address6]
}

func (i *items) add(prefix netip.Prefix, list uint32) {
	length := uint8(prefix.Bits()) // #nosec G115 -- at most 128
	if addr := prefix.Addr(); addr.Is4() {
		i.four = append(i.four, item[address4]{newAddress4(addr), list, length})
	} else {
		i.six = append(i.six, item[address6]{newAddress6(addr), list, length})
	}
}

func (i *items) count() int { return len(i.four) + len(i.six) }

// divide makes the blocks of the table. It sorts the items.
func (t *Table) divide(i items) {
	t.first4, t.list4 = divide(i.four)
	t.first6, t.list6 = divide(i.six)
}

// divide divides the addresses of a family into blocks by the longest prefix that
// covers them. Addresses that none covers have list 0. It sorts the items.
func divide[A address[A]](items []item[A]) (first []A, list []uint32) {
	slices.SortFunc(items, func(a, b item[A]) int {
		switch {
		case a.first.less(b.first):
			return -1
		case b.first.less(a.first):
			return 1
		}
		return int(a.length) - int(b.length)
	})
	var zero A
	first, list = []A{zero}, []uint32{0}
	begin := func(at A, l uint32) {
		n := len(first) - 1
		if first[n] == at {
			first, list = first[:n], list[:n]
			n--
		}
		if n < 0 || list[n] != l {
			first, list = append(first, at), append(list, l)
		}
	}
	type covering struct {
		last A
		list uint32
	}
	var around []covering // the shortest prefix first
	end := func() {
		after, ok := around[len(around)-1].last.next()
		around = around[:len(around)-1]
		if !ok {
			return
		}
		l := uint32(0)
		if n := len(around); n > 0 {
			l = around[n-1].list
		}
		begin(after, l)
	}
	for _, i := range items {
		for len(around) > 0 && around[len(around)-1].last.less(i.first) {
			end()
		}
		begin(i.first, i.list)
		around = append(around, covering{i.first.last(int(i.length)), i.list})
	}
	for len(around) > 0 {
		end()
	}
	return slices.Clip(first), slices.Clip(list)
}

// duplicate reports whether two of the sorted items have the same prefix.
func duplicate[A comparable](items []item[A]) bool {
	for i := 1; i < len(items); i++ {
		if items[i].first == items[i-1].first && items[i].length == items[i-1].length {
			return true
		}
	}
	return false
}
