// Package secure tests DNSSEC and zone transfers with real validating resolvers
// and secondaries, in a network namespace of its own.
package secure
