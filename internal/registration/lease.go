package registration

import (
	"math"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Granted returns the lease in a reply, and whether there is one. Zero answers
// a withdrawal.
func Granted(m *dns.Msg) (time.Duration, bool) {
	ul := lease(m)
	if ul == nil {
		return 0, false
	}
	return time.Duration(ul.Lease) * time.Second, true
}

// SetLease puts the lease that is granted into the reply's own OPT record, in
// the form (of 4 or 8 bytes, RFC 9664 section 4) that the request has. A
// request without the option gets none.
func SetLease(reply, request *dns.Msg, granted time.Duration) {
	asked := lease(request)
	if asked == nil {
		return
	}
	ul := &dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: seconds(granted)}
	if asked.KeyLease != 0 {
		ul.KeyLease = ul.Lease
	}
	setLease(reply, ul)
}

func lease(m *dns.Msg) *dns.EDNS0_UL {
	for ul := range dnsmsg.Options[*dns.EDNS0_UL](m) {
		return ul
	}
	return nil
}

func setLease(m *dns.Msg, ul *dns.EDNS0_UL) {
	opt := m.IsEdns0()
	if opt == nil {
		m.SetEdns0(udpSize, false)
		opt = m.IsEdns0()
	}
	opt.Option = append(opt.Option, ul)
}

// seconds rounds up: a lease never ends before it was promised to.
func seconds(d time.Duration) uint32 {
	s := (max(d, 0) + time.Second - 1) / time.Second
	return uint32(min(s, math.MaxUint32)) // #nosec G115 -- bounded
}
