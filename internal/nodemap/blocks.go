package nodemap

import (
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

// item is a prefix and its list.
type item[A any] struct {
	first  A
	list   uint32
	length uint8
}

// items are the prefixes of a map.
type items struct {
	four []item[ipnum.V4]
	six  []item[ipnum.V6]
}

func (i *items) add(prefix netip.Prefix, list uint32) {
	length := uint8(prefix.Bits()) // #nosec G115 -- at most 128
	if addr := prefix.Addr(); addr.Is4() {
		i.four = append(i.four, item[ipnum.V4]{ipnum.FromV4(addr), list, length})
	} else {
		i.six = append(i.six, item[ipnum.V6]{ipnum.FromV6(addr), list, length})
	}
}

func (i *items) count() int { return len(i.four) + len(i.six) }

// divide makes the blocks of the table. It sorts the items.
func (t *Table) divide(i items, pacer *pacing.Pacer) {
	t.first4, t.list4 = divide(i.four, pacer)
	t.first6, t.list6 = divide(i.six, pacer)
}

// divide divides the addresses of a family into blocks by the longest prefix that
// covers them. Addresses that none covers have list 0. It sorts the items.
func divide[A ipnum.Number[A]](items []item[A], pacer *pacing.Pacer) (first []A, list []uint32) {
	slices.SortFunc(items, func(a, b item[A]) int {
		pacer.Step()
		switch {
		case a.first.Less(b.first):
			return -1
		case b.first.Less(a.first):
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
		after, ok := around[len(around)-1].last.Next()
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
		pacer.Step()
		for len(around) > 0 && around[len(around)-1].last.Less(i.first) {
			end()
		}
		begin(i.first, i.list)
		around = append(around, covering{i.first.Last(int(i.length)), i.list})
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
