package fastpath

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Query is a simple query: one question of class IN, no record but an OPT record
// without options other than a client subnet and a cookie, which CoreDNS ignores. Its
// name has letters, digits, '-' and '_' alone. It is valid until Answer returns.
type Query struct {
	Name   []byte       // in lower case, with the final dot; Name[i:] begins where Labels say
	Labels []uint8      // where in Name the labels begin, at least one
	Type   uint16       // neither a type that has its own rules, such as DS, nor a meta type
	DO     bool         // DNSSEC OK
	Subnet netip.Prefix // of the client (RFC 7871); invalid: none, or one of length 0
	From   netip.Addr   // normalized source address
	Server string       // that it came to, as in metrics
	Trial  bool         // the answer is only compared with that of the chain, which counts it

	packet []byte
	end    int // of the question
	size   int // of the largest reply
	opt    bool
	subnet []byte // the option with the client subnet; nil: none
	echoed bool   // the reply has the client subnet
	basis  any    // of the reply, if it is a trial
	name   [maxName]byte
	labels [maxName / 2]uint8
}

const (
	headerSize   = 12
	questionTail = 4 // type and class
	optSize      = 11
	optionHeader = 4   // of an option in an OPT record: its code and length
	subnetHeader = 4   // of a client subnet: family, length and scope
	maxName      = 254 // of Name
	maxLabel     = 63

	flagQR = 0x80 // in the third byte of a message
	flagAA = 0x04
	flagRD = 0x01
	flagAD = 0x20 // in the fourth one
	flagCD = 0x10

	flagDO = 0x80 // in the eighth byte of an OPT record

	// MaxReply is the size in bytes of the largest reply.
	MaxReply = dnsmsg.MaxUDPSize

	// room is how many bytes a reply without its OPT record is smaller than what the
	// client takes. The chain sends such replies whole, and without compressed names.
	room = 75
)

// Parse reads a datagram and reports whether it is a simple query.
func (q *Query) Parse(packet []byte) bool {
	if len(packet) < headerSize+2+questionTail || packet[2]&^flagRD != 0 || packet[3]&^(flagAD|flagCD) != 0 ||
		binary.BigEndian.Uint16(packet[4:]) != 1 || binary.BigEndian.Uint32(packet[6:]) != 0 || binary.BigEndian.Uint16(packet[10:]) > 1 {
		return false
	}
	q.packet, q.Subnet, q.subnet, q.echoed = packet, netip.Prefix{}, nil, false
	if !q.parseName() || !q.parseQuestion() {
		return false
	}
	return q.parseOPT(packet[q.end:], packet[11] == 1)
}

// parseName reads the name of the question, and sets end to the end of it.
func (q *Query) parseName() bool {
	b, at, labels := q.packet[headerSize:], 0, 0
	for b[at] != 0 {
		length := int(b[at])
		next := at + 1 + length
		if length > maxLabel || next >= len(b) || next > maxName || labels == len(q.labels) {
			return false
		}
		q.labels[labels] = uint8(at) // #nosec G115 -- below maxName
		labels++
		for i, c := range b[at+1 : next] {
			lower := lowerCase[c]
			if lower == 0 {
				return false
			}
			q.name[at+i] = lower
		}
		q.name[next-1] = '.'
		at = next
	}
	q.Name, q.Labels, q.end = q.name[:at], q.labels[:labels], headerSize+at+1
	return labels > 0
}

func (q *Query) parseQuestion() bool {
	tail := q.packet[q.end:]
	if len(tail) < questionTail || binary.BigEndian.Uint16(tail[2:]) != dns.ClassINET {
		return false
	}
	q.Type = binary.BigEndian.Uint16(tail)
	q.end += questionTail
	return simpleType(q.Type)
}

// simpleType reports whether a type is one of data, and not DS, which belongs to the
// zone above.
func simpleType(t uint16) bool {
	return t > 0 && t < maxType && t != dns.TypeDS && t != dns.TypeOPT
}

// maxType is the first one of the types beyond those of data (RFC 6895, section 3.1).
const maxType = 128

// parseOPT reads what follows the question.
func (q *Query) parseOPT(b []byte, opt bool) bool {
	q.opt, q.DO, q.size = opt, false, dns.MinMsgSize
	if !opt {
		return len(b) == 0
	}
	if len(b) < optSize || b[0] != 0 || binary.BigEndian.Uint16(b[1:]) != dns.TypeOPT ||
		b[5] != 0 || b[6] != 0 || b[7]&^flagDO != 0 || b[8] != 0 || // extended RCODE, version, flags
		len(b) != optSize+int(binary.BigEndian.Uint16(b[9:])) {
		return false
	}
	q.DO = b[7]&flagDO != 0
	q.size = min(max(int(binary.BigEndian.Uint16(b[3:])), dns.MinMsgSize), MaxReply)
	return q.parseOptions(b[optSize:])
}

// parseOptions reads the options of an OPT record. Each may be in it once.
func (q *Query) parseOptions(b []byte) bool {
	for cookie := false; len(b) > 0; {
		if len(b) < optionHeader {
			return false
		}
		code, end := binary.BigEndian.Uint16(b), optionHeader+int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return false
		}
		switch {
		case code == dns.EDNS0COOKIE && !cookie && isCookie(b[optionHeader:end]):
			cookie = true
		case code == dns.EDNS0SUBNET && q.subnet == nil && q.parseSubnet(b[optionHeader:end]):
			q.subnet = b[:end]
		default:
			return false
		}
		b = b[end:]
	}
	return true
}

// isCookie reports whether an option is a cookie (RFC 7873, section 4).
func isCookie(b []byte) bool { return len(b) >= 8 && len(b) <= 40 }

// parseSubnet reads a client subnet, which must be as RFC 7871 has it in section 6.
func (q *Query) parseSubnet(b []byte) bool {
	if len(b) < subnetHeader || b[3] != 0 { // the scope
		return false
	}
	var addr netip.Addr
	length, octets := int(b[2]), b[subnetHeader:]
	switch family := binary.BigEndian.Uint16(b); {
	case len(octets) != (length+7)/8:
		return false
	case family == 1 && length <= 32:
		var a [4]byte
		copy(a[:], octets)
		addr = netip.AddrFrom4(a)
	case family == 2 && length <= 128:
		var a [16]byte
		copy(a[:], octets)
		addr = netip.AddrFrom16(a)
	default:
		return false
	}
	prefix := netip.PrefixFrom(addr, length)
	if prefix.Masked() != prefix {
		return false
	}
	if length > 0 {
		q.Subnet = prefix
	}
	return true
}

// Suffix returns the name from one of the Labels on, as it is in the query.
func (q *Query) Suffix(label uint8) []byte {
	return q.packet[headerSize+int(label) : q.end-questionTail]
}

// Begin writes the header and the question of a reply into out. The number of
// additional records is without the OPT record.
func (q *Query) Begin(out []byte, authoritative bool, rcode, answers, authorities, additionals int) []byte {
	b := append(out[:0], q.packet[:q.end]...)
	b[2] = flagQR | q.packet[2]&flagRD
	if authoritative {
		b[2] |= flagAA
	}
	b[3] = q.packet[3]&flagCD | byte(rcode) // #nosec G115 -- below 16
	if q.opt {
		additionals++
	}
	for i, count := range [...]int{answers, authorities, additionals} {
		binary.BigEndian.PutUint16(b[6+2*i:], uint16(count)) // #nosec G115 -- few
	}
	return b
}

// End completes a reply that begins with what Begin returned, without a client subnet.
// It reports false if the chain might send another one, because it is too large.
func (q *Query) End(b []byte) (n int, ok bool) {
	if len(b)+room > q.size {
		return 0, false
	}
	if q.opt {
		b = q.appendOPT(b)
	}
	return len(b), true
}

// EndEcho is End with the client subnet, if the query has one, and a scope for it.
func (q *Query) EndEcho(b []byte, scope int) (n int, ok bool) {
	n, ok = q.End(b)
	if !ok || q.subnet == nil {
		return n, ok
	}
	b = append(b[:n], q.subnet...)
	b[n+optionHeader+subnetHeader-1] = byte(scope)             // #nosec G115 -- a length of a prefix
	binary.BigEndian.PutUint16(b[n-2:], uint16(len(q.subnet))) // #nosec G115 -- the length of the options, few
	q.echoed = true
	return len(b), true
}

func (q *Query) appendOPT(b []byte) []byte {
	size := min(binary.BigEndian.Uint16(q.packet[q.end+3:]), MaxReply)
	b = append(b, 0, 0, byte(dns.TypeOPT), byte(size>>8), byte(size), 0, 0, 0, 0, 0, 0) // #nosec G115 -- its two bytes
	if q.DO {
		b[len(b)-4] = flagDO
	}
	return b
}

// AppendRecord appends a record of class IN without its data, which has a length in
// bytes. Its owner is in wire form.
func AppendRecord(b, owner []byte, rrtype uint16, ttl uint32, length int) []byte {
	b = append(b, owner...)
	b = binary.BigEndian.AppendUint16(b, rrtype)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	b = binary.BigEndian.AppendUint32(b, ttl)
	return binary.BigEndian.AppendUint16(b, uint16(length)) // #nosec G115 -- of a record
}

// AppendAddress appends an A or AAAA record.
func AppendAddress(b, owner []byte, addr netip.Addr, ttl uint32) []byte {
	if addr.Is4() {
		data := addr.As4()
		return append(AppendRecord(b, owner, dns.TypeA, ttl, len(data)), data[:]...)
	}
	data := addr.As16()
	return append(AppendRecord(b, owner, dns.TypeAAAA, ttl, len(data)), data[:]...)
}

// lowerCase has the characters of names of simple queries in lower case, 0 for the
// others.
var lowerCase = func() (table [256]byte) {
	for c := range byte(128) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			table[c] = c
		case 'A' <= c && c <= 'Z':
			table[c] = c + 'a' - 'A'
		}
	}
	return table
}()
