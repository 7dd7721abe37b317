// Package edns completes replies with what belongs into their OPT record.
package edns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// Complete gives a reply the options that answer those of the request: the
// client subnet with scope 0, since nothing here depends on the client
// (RFC 7871, section 7.2.1), and an Extended DNS Error (RFC 8914) if text says
// something. A reply without options is left to the server, and so is one to a
// request without EDNS.
func Complete(m, request *dns.Msg, code uint16, text string) {
	asked := request.IsEdns0()
	if asked == nil {
		return
	}
	var own []dns.EDNS0
	if subnet := subnetOf(asked); subnet != nil {
		own = append(own, &dns.EDNS0_SUBNET{
			Code: dns.EDNS0SUBNET, Family: subnet.Family, SourceNetmask: subnet.SourceNetmask, Address: subnet.Address,
		})
	}
	problem := &dns.EDNS0_EDE{InfoCode: code, ExtraText: text}
	if text != "" {
		own = append(own, problem)
	}
	if own == nil {
		return
	}
	if m.IsEdns0() == nil {
		m.SetEdns0(asked.UDPSize(), asked.Do())
	}
	m.IsEdns0().Option = own
	if text != "" && compressed(m) > max(dns.MinMsgSize, int(asked.UDPSize())) {
		problem.ExtraText = "" // which must push no record out (RFC 8914, section 2)
	}
}

// compressed returns how many bytes a message has at least.
func compressed(m *dns.Msg) int {
	c := *m
	c.Compress = true
	return c.Len()
}

// subnetOf returns the client subnet of a request, nil if there is none or not one
// that is as it must be (RFC 7871, section 6): what is malformed is not answered,
// as by a server that does not know the option.
func subnetOf(o *dns.OPT) (found *dns.EDNS0_SUBNET) {
	for _, option := range o.Option {
		subnet, ok := option.(*dns.EDNS0_SUBNET)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(subnet.Address)
		if subnet.Family != 2 { // dig writes 0 for /0
			addr = addr.Unmap()
		}
		prefix, err := addr.Prefix(int(subnet.SourceNetmask))
		if found != nil || err != nil || prefix.Addr() != addr || subnet.SourceScope != 0 {
			return nil
		}
		found = subnet
	}
	return found
}
