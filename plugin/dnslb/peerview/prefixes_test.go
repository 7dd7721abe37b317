package peerview

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// naiveSlot does what docs/deputies.md says.
func naiveSlot(lists []PrefixList, addr netip.Addr) int {
	slot, longest := Outside, -1
	for _, l := range lists {
		best := registration.Prefix{}
		for _, p := range l.Prefixes {
			if p.Contains(addr) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best = p
			}
		}
		if best.IsValid() && !best.Negated && best.Bits() > longest {
			slot, longest = l.Slot, best.Bits()
		}
	}
	return slot
}

// TestPrefixesMatchNaiveSearch uses random lists in a small part of both
// families.
func TestPrefixesMatchNaiveSearch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a repeatable test
	addr := func() netip.Addr {
		if random.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(4)), byte(random.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 14: byte(random.IntN(4)), 15: byte(random.IntN(256))})
	}
	seen := make(map[int]int)
	for range 300 {
		lists := make([]PrefixList, 1+random.IntN(6))
		for i := range lists {
			lists[i].Slot = i % 4 // the first two may have a list of former prefixes
			given := make(map[netip.Prefix]bool)
			for range random.IntN(12) {
				a := addr()
				p, err := a.Prefix(a.BitLen() - random.IntN(18))
				if err != nil {
					t.Fatal(err)
				}
				if !given[p] {
					given[p] = true
					lists[i].Prefixes = append(lists[i].Prefixes, registration.Prefix{Prefix: p, Negated: random.IntN(3) == 0})
				}
			}
		}
		p := NewPrefixes(lists)
		for range 300 {
			a := addr()
			got, want := p.Slot(a), naiveSlot(lists, a)
			if got != want {
				t.Fatalf("Expected %s in slot %d, got %d; lists: %v", a, want, got, lists)
			}
			seen[got]++
		}
	}
	for slot := Outside; slot < 4; slot++ {
		if seen[slot] == 0 {
			t.Errorf("Expected the lists to lead to slot %d at least once", slot)
		}
	}
}

func BenchmarkPrefixes(b *testing.B) {
	lists := make([]PrefixList, 4)
	for slot := range lists {
		lists[slot].Slot = slot
		for i := range 25000 {
			n := slot*25000 + i
			lists[slot].Prefixes = append(lists[slot].Prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + n>>16), byte(n >> 8), byte(n), 0}), 24)})
		}
	}
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			NewPrefixes(lists)
		}
	})
	p := NewPrefixes(lists)
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		addr := netip.MustParseAddr("20.200.3.4")
		for b.Loop() {
			p.Slot(addr)
		}
	})
}
