package resolver

import "math"

// Rendezvous hashing gives each site the candidate with the highest score. When a
// candidate comes or goes, only its own sites change, and all servers with the
// same candidates choose alike. So the scores must be the same in all versions.

// Score returns the score of a candidate for a site, by the hashes of both.
func Score(site, candidate uint64) uint64 { return mix(site ^ candidate) }

// WeightedScore is Score for candidates with weights above 0: each gets sites in
// proportion to its weight.
func WeightedScore(site, candidate uint64, weight float64) float64 {
	// A number in (0, 1), of the 53 bits that a float64 holds.
	u := (float64(Score(site, candidate)>>11) + 0.5) / (1 << 53)
	return -weight / math.Log(u)
}

// Hash returns the hash of the name of a candidate: FNV-1a, mixed.
func Hash(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
