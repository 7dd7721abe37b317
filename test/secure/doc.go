// Package secure tests DNSSEC and zone transfers with validating resolvers and
// secondaries of other makers, and delegations with programs that check them, in
// a network namespace.
package secure
