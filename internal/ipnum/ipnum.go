// Package ipnum has the addresses of a family as numbers, for tables without pointers: these
// cost the garbage collector nothing.
package ipnum

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Number is an address of one family as a number.
type Number[A any] interface {
	comparable
	Less(A) bool
	Last(length int) A            // the last address of the prefix that begins here
	Next() (following A, ok bool) // not ok: this is the last one
	Addr() netip.Addr
}

// V4 is an IPv4 address.
type V4 uint32

// FromV4 returns an IPv4 address as a number.
func FromV4(addr netip.Addr) V4 {
	b := addr.As4()
	return V4(binary.BigEndian.Uint32(b[:]))
}

// Addr returns the address.
func (a V4) Addr() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(a))
	return netip.AddrFrom4(b)
}

// Less reports whether a is lower than b.
func (a V4) Less(b V4) bool { return a < b }

// Last returns the last address of the prefix that begins with a.
func (a V4) Last(length int) V4 { return a | V4(uint64(1)<<(32-length)-1) } // #nosec G115 -- below 1<<32

// Next returns the next address. It is not ok if there is none.
func (a V4) Next() (V4, bool) { return a + 1, a+1 != 0 }

// Common returns how many leading bits two addresses have in common.
func (a V4) Common(b V4) int { return bits.LeadingZeros32(uint32(a ^ b)) }

// V6 is an IPv6 address.
type V6 struct{ hi, lo uint64 }

// FromV6 returns an IPv6 address as a number.
func FromV6(addr netip.Addr) V6 {
	b := addr.As16()
	return V6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// Addr returns the address.
func (a V6) Addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

// Less reports whether a is lower than b.
func (a V6) Less(b V6) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// Last returns the last address of the prefix that begins with a.
func (a V6) Last(length int) V6 {
	if length >= 64 {
		return V6{a.hi, a.lo | ^uint64(0)>>(length-64)}
	}
	return V6{a.hi | ^uint64(0)>>length, ^uint64(0)}
}

// Next returns the next address. It is not ok if there is none.
func (a V6) Next() (V6, bool) {
	lo, carry := bits.Add64(a.lo, 1, 0)
	hi, over := bits.Add64(a.hi, 0, carry)
	return V6{hi, lo}, over == 0
}

// Previous returns the address before a, which is not the first one.
func (a V6) Previous() V6 {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return V6{a.hi - borrow, lo}
}

// Common returns how many leading bits two addresses have in common.
func (a V6) Common(b V6) int {
	if x := a.hi ^ b.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(a.lo^b.lo)
}
