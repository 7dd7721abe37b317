package dnsmsg

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Options iterates over the EDNS options of one type in a message.
func Options[T dns.EDNS0](m *dns.Msg) iter.Seq[T] {
	return func(yield func(T) bool) {
		opt := m.IsEdns0()
		if opt == nil {
			return
		}
		for _, option := range opt.Option {
			if o, ok := option.(T); ok && !yield(o) {
				return
			}
		}
	}
}

// SetOptions gives a reply the options that answer those of the request: the
// client subnet with scope 0 (RFC 7871, section 7.2.1) and, unless text is
// empty, an Extended DNS Error (RFC 8914). A reply without options gets no OPT
// record, and neither does the reply to a request without EDNS.
func SetOptions(reply, request *dns.Msg, code uint16, text string) {
	var options []dns.EDNS0
	if subnet := Subnet(request); subnet != nil {
		echo := new(struct { // in one allocation
			subnet  dns.EDNS0_SUBNET
			options [2]dns.EDNS0
		})
		echo.subnet = *subnet
		echo.subnet.SourceScope = 0
		echo.options[0] = &echo.subnet
		options = echo.options[:1]
	}
	setOptions(reply, request, options, code, text)
}

// SetError is SetOptions for a server that does not use client subnets: it never
// puts that option into a reply.
func SetError(reply, request *dns.Msg, code uint16, text string) {
	setOptions(reply, request, nil, code, text)
}

func setOptions(reply, request *dns.Msg, options []dns.EDNS0, code uint16, text string) {
	opt := request.IsEdns0()
	if opt == nil {
		return
	}
	var ede *dns.EDNS0_EDE
	if text != "" {
		ede = &dns.EDNS0_EDE{InfoCode: code, ExtraText: text}
		options = append(options, ede)
	}
	if options == nil {
		return
	}
	if reply.IsEdns0() == nil {
		reply.SetEdns0(opt.UDPSize(), opt.Do())
	}
	reply.IsEdns0().Option = options
	// The text must not truncate the reply (RFC 8914, section 2).
	if ede != nil && compressedLen(reply) > max(dns.MinMsgSize, int(opt.UDPSize())) {
		ede.ExtraText = ""
	}
}

// compressedLen returns the size of a message with compressed names, in bytes.
func compressedLen(m *dns.Msg) int {
	c := *m
	c.Compress = true
	return c.Len()
}

// Subnet returns the client subnet of a message (RFC 7871), nil if it has none.
func Subnet(m *dns.Msg) *dns.EDNS0_SUBNET {
	if opt := m.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if subnet, ok := option.(*dns.EDNS0_SUBNET); ok {
				return subnet
			}
		}
	}
	return nil
}

// SubnetPrefix returns the client subnet of a request that is not MalformedSubnet. It
// is invalid if there is none, and if its length is 0.
func SubnetPrefix(request *dns.Msg) netip.Prefix {
	subnet := Subnet(request)
	if subnet == nil || subnet.SourceNetmask == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(subnetAddr(subnet), int(subnet.SourceNetmask))
}

// subnetAddr returns the address in an option.
func subnetAddr(subnet *dns.EDNS0_SUBNET) netip.Addr {
	addr, _ := netip.AddrFromSlice(subnet.Address)
	if subnet.Family != 2 { // dig sends family 0 with length 0
		addr = addr.Unmap()
	}
	return addr
}

// SetScope sets the scope of the client subnet of a reply that has one.
func SetScope(reply *dns.Msg, scope int) {
	if subnet := Subnet(reply); subnet != nil {
		subnet.SourceScope = uint8(scope) // #nosec G115 -- a length of a prefix
	}
}

// EchoSubnet gives a reply the client subnet of its request, with the scope that the
// reply has, or else 0. The reply may keep subnet, whose scope is 0.
func EchoSubnet(reply *dns.Msg, subnet *dns.EDNS0_SUBNET) {
	if s := Subnet(reply); s != nil {
		s.Family, s.SourceNetmask, s.Address = subnet.Family, subnet.SourceNetmask, subnet.Address
		return
	}
	opt := reply.IsEdns0()
	if opt == nil {
		opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		end := len(reply.Extra)
		if reply.IsTsig() != nil { // must be the last record (RFC 8945, section 5.1)
			end--
		}
		reply.Extra = slices.Insert(reply.Extra, end, dns.RR(opt))
	}
	opt.Option = append(opt.Option, subnet)
}

// MalformedSubnet reports whether the client subnet of a request is malformed, so
// that the answer is FORMERR (RFC 7871, sections 6 and 7.2.1): it has bits beyond
// its length, or a scope, or too few or too many octets, or there are two. Package
// dns has checked the family and the length. Ask it before any plugin changes the
// options of the request.
func MalformedSubnet(request *dns.Msg) bool {
	found := false
	for subnet := range Options[*dns.EDNS0_SUBNET](request) {
		addr := subnetAddr(subnet)
		prefix, err := addr.Prefix(int(subnet.SourceNetmask))
		if found || err != nil || prefix.Addr() != addr || subnet.SourceScope != 0 {
			return true
		}
		found = true
	}
	return found && wrongOctets(request.IsEdns0())
}

// wrongOctets reports whether options had other lengths in a message than they should
// have. Package dns pads a client subnet that is too short, and cuts one that is too
// long, but the length of the data of the record is still that of the message. It is
// 0 in a record that was not received.
func wrongOctets(opt *dns.OPT) bool {
	if opt.Hdr.Rdlength == 0 {
		return false
	}
	length := 0
	for _, option := range opt.Option {
		length += optionLen(option)
	}
	return length != int(opt.Hdr.Rdlength)
}

// optionLen returns the length of an option in a message, in bytes.
func optionLen(option dns.EDNS0) int {
	const header = 4
	switch o := option.(type) {
	case *dns.EDNS0_SUBNET:
		return header + 4 + (int(o.SourceNetmask)+7)/8
	case *dns.EDNS0_COOKIE:
		return header + len(o.Cookie)/2 // in hexadecimal digits
	}
	return dns.Len(&dns.OPT{Option: []dns.EDNS0{option}}) - emptyOPT
}

var emptyOPT = dns.Len(new(dns.OPT))

// MaxUDPSize is the size in bytes of the largest answer over UDP. Such an answer
// passes the Internet without fragments (DNS flag day 2020), and is of little use
// to attackers who forge source addresses.
const MaxUDPSize = 1232

// NormalizeEDNS lowers the size of answers over UDP that a query allows to
// MaxUDPSize, as the plugin *bufsize* does. Larger answers are truncated then.
//
// It also clears the unknown flags of EDNS, since CoreDNS makes the OPT record of
// the answer from that of the query (RFC 6891, section 6.1.4: they must be zero).
func NormalizeEDNS(r *dns.Msg) {
	if opt := r.IsEdns0(); opt != nil {
		opt.SetUDPSize(min(opt.UDPSize(), MaxUDPSize))
		opt.Hdr.Ttl &^= unknownFlags
	}
}

// unknownFlags are the flags in the TTL of an OPT record other than DO.
const unknownFlags = 0x7fff
