package dnsmsg

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// WithHints returns parameters of an SVCB or HTTPS record with these address hints
// instead of any others, in ascending order of their keys (RFC 9460, section 2.2). Only a
// hint with addresses can be mandatory.
func WithHints(values []dns.SVCBKeyValue, v4, v6 []netip.Addr) []dns.SVCBKeyValue {
	out := make([]dns.SVCBKeyValue, 0, len(values)+2)
	for _, v := range values {
		switch v := v.(type) {
		case *dns.SVCBIPv4Hint, *dns.SVCBIPv6Hint:
		case *dns.SVCBMandatory:
			codes := slices.DeleteFunc(slices.Clone(v.Code), func(key dns.SVCBKey) bool {
				return key == dns.SVCB_IPV4HINT && len(v4) == 0 || key == dns.SVCB_IPV6HINT && len(v6) == 0
			})
			if len(codes) > 0 {
				out = append(out, &dns.SVCBMandatory{Code: codes})
			}
		default:
			out = append(out, v)
		}
	}
	if len(v4) > 0 {
		out = append(out, &dns.SVCBIPv4Hint{Hint: ips(v4)})
	}
	if len(v6) > 0 {
		out = append(out, &dns.SVCBIPv6Hint{Hint: ips(v6)})
	}
	slices.SortFunc(out, func(a, b dns.SVCBKeyValue) int { return int(a.Key()) - int(b.Key()) })
	return out
}

func ips(addrs []netip.Addr) []net.IP {
	out, octets := make([]net.IP, len(addrs)), make([]byte, 0, len(addrs)*net.IPv6len)
	for i, addr := range addrs {
		begin := len(octets)
		if addr.Is4() {
			a := addr.As4()
			octets = append(octets, a[:]...)
		} else {
			a := addr.As16()
			octets = append(octets, a[:]...)
		}
		out[i] = octets[begin:len(octets):len(octets)]
	}
	return out
}
