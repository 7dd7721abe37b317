// Package prefixmaptest makes prefixes for benchmarks.
package prefixmaptest

import (
	"math/rand/v2"
	"net/netip"
)

// Prefixes returns n prefixes with the lengths of a route table, a tenth of them
// IPv6.
func Prefixes(n int, seed uint64) []netip.Prefix {
	r := rand.New(rand.NewPCG(seed, 1)) // #nosec G404 -- for benchmarks
	seen := make(map[netip.Prefix]bool, n)
	out := make([]netip.Prefix, 0, n)
	for len(out) < n {
		if p := prefix(r); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

func prefix(r *rand.Rand) netip.Prefix {
	if r.IntN(10) == 0 {
		var b [16]byte
		b[0], b[1], b[2], b[3], b[4], b[5] = 0x20, byte(r.IntN(32)), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()) // #nosec G115 -- 0 to 31
		return netip.PrefixFrom(netip.AddrFrom16(b), 29+r.IntN(20)).Masked()
	}
	var b [4]byte
	b[0], b[1], b[2] = byte(1+r.IntN(223)), byte(r.Uint32()), byte(r.Uint32()) // #nosec G115 -- 1 to 223
	bits := 24
	if r.IntN(10) > 5 {
		bits = 14 + r.IntN(10)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), bits).Masked()
}
