package registration

import (
	"math"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// GrantedLease returns the lease in a reply, and whether the reply has one. The
// reply to a withdrawal has a lease of 0.
func GrantedLease(reply *dns.Msg) (time.Duration, bool) {
	ul := leaseOption(reply)
	if ul == nil {
		return 0, false
	}
	return time.Duration(ul.Lease) * time.Second, true
}

// GrantLease adds the lease to the OPT record of a reply, in the form of 4 or 8
// bytes that the request has (RFC 9664, section 4). The reply to a request
// without the option gets none.
func GrantLease(reply, request *dns.Msg, lease time.Duration) {
	requested := leaseOption(request)
	if requested == nil {
		return
	}
	ul := &dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: seconds(lease)}
	if requested.KeyLease != 0 {
		ul.KeyLease = ul.Lease
	}
	addLeaseOption(reply, ul)
}

// leaseOption returns the Update Lease option of a message, or nil.
func leaseOption(m *dns.Msg) *dns.EDNS0_UL {
	for ul := range dnsmsg.Options[*dns.EDNS0_UL](m) {
		return ul
	}
	return nil
}

func addLeaseOption(m *dns.Msg, ul *dns.EDNS0_UL) {
	opt := m.IsEdns0()
	if opt == nil {
		m.SetEdns0(udpSize, false)
		opt = m.IsEdns0()
	}
	opt.Option = append(opt.Option, ul)
}

// seconds rounds up, so that no lease ends earlier than it was granted for.
func seconds(d time.Duration) uint32 {
	s := (max(d, 0) + time.Second - 1) / time.Second
	return uint32(min(s, math.MaxUint32)) // #nosec G115 -- bounded
}
