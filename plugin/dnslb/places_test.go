package dnslb

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// naivePlace says it as docs/deputies.md does.
func naivePlace(claims []prefixClaim, addr netip.Addr) int {
	place, longest := outside, -1
	for _, c := range claims {
		best := registration.Prefix{}
		for _, p := range c.prefixes {
			if p.Contains(addr) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best = p
			}
		}
		if best.IsValid() && !best.Negated && best.Bits() > longest {
			place, longest = c.place, best.Bits()
		}
	}
	return place
}

// TestPlaces compares the table with what is meant, for random lists in a small
// part of both families.
func TestPlaces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a repeatable test
	addr := func() netip.Addr {
		if random.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(4)), byte(random.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 14: byte(random.IntN(4)), 15: byte(random.IntN(256))})
	}
	seen := make(map[int]int)
	for range 300 {
		claims := make([]prefixClaim, 1+random.IntN(6))
		for i := range claims {
			claims[i].place = i % 4 // of the first two there is a former one
			given := make(map[netip.Prefix]bool)
			for range random.IntN(12) {
				a := addr()
				p, err := a.Prefix(a.BitLen() - random.IntN(18))
				if err != nil {
					t.Fatal(err)
				}
				if !given[p] {
					given[p] = true
					claims[i].prefixes = append(claims[i].prefixes, registration.Prefix{Prefix: p, Negated: random.IntN(3) == 0})
				}
			}
		}
		p := newPlaces(claims)
		for range 300 {
			a := addr()
			got, want := p.of(a), naivePlace(claims, a)
			if got != want {
				t.Fatalf("Expected %s at place %d, got %d; claims: %v", a, want, got, claims)
			}
			seen[got]++
		}
	}
	for place := outside; place < 4; place++ {
		if seen[place] == 0 {
			t.Errorf("Expected the claims to lead to place %d at least once", place)
		}
	}
}

func BenchmarkPlaces(b *testing.B) {
	claims := make([]prefixClaim, 4)
	for place := range claims {
		claims[place].place = place
		for i := range 25000 {
			n := place*25000 + i
			claims[place].prefixes = append(claims[place].prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + n>>16), byte(n >> 8), byte(n), 0}), 24)})
		}
	}
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			newPlaces(claims)
		}
	})
	p := newPlaces(claims)
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		addr := netip.MustParseAddr("20.200.3.4")
		for b.Loop() {
			p.of(addr)
		}
	})
}
