// Package secure tests DNSSEC and zone transfers with validating resolvers and
// secondaries of other makers, in a network namespace.
package secure
