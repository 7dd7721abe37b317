package fastpath

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Query is a simple query: one question of class IN, no record but an OPT record
// without options other than a cookie, which CoreDNS ignores. Its name has letters,
// digits, '-' and '_' alone. It is valid until Answer returns.
type Query struct {
	Name   []byte     // in lower case, with the final dot; Name[i:] begins where Labels say
	Labels []uint8    // where in Name the labels begin, at least one
	Type   uint16     // neither a type that has its own rules, such as DS, nor a meta type
	DO     bool       // DNSSEC OK
	From   netip.Addr // normalized source address
	Server string     // that it came to, as in metrics
	Trial  bool       // the answer is only compared with that of the chain, which counts it

	packet []byte
	end    int // of the question
	size   int // of the largest reply
	opt    bool
	name   [maxName]byte
	labels [maxName / 2]uint8
}

const (
	headerSize   = 12
	questionTail = 4 // type and class
	optSize      = 11
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

	// room is how many bytes a reply is smaller than what the client takes. The
	// chain sends such replies whole, and without compressed names.
	room = 75
)

// Parse reads a datagram and reports whether it is a simple query.
func (q *Query) Parse(packet []byte) bool {
	if len(packet) < headerSize+2+questionTail || packet[2]&^flagRD != 0 || packet[3]&^(flagAD|flagCD) != 0 ||
		binary.BigEndian.Uint16(packet[4:]) != 1 || binary.BigEndian.Uint32(packet[6:]) != 0 || binary.BigEndian.Uint16(packet[10:]) > 1 {
		return false
	}
	q.packet = packet
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
	return len(b) == optSize || isCookie(b[optSize:])
}

// isCookie reports whether options are one cookie (RFC 7873, section 4).
func isCookie(b []byte) bool {
	return len(b) >= 12 && len(b) <= 44 && binary.BigEndian.Uint16(b) == dns.EDNS0COOKIE && int(binary.BigEndian.Uint16(b[2:])) == len(b)-4
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

// End completes a reply that begins with what Begin returned. It reports false if the
// chain might send another one, because it is too large.
func (q *Query) End(b []byte) (n int, ok bool) {
	if len(b)+room > q.size {
		return 0, false
	}
	if q.opt {
		size := min(binary.BigEndian.Uint16(q.packet[q.end+3:]), MaxReply)
		b = append(b, 0, 0, byte(dns.TypeOPT), byte(size>>8), byte(size), 0, 0, 0, 0, 0, 0) // #nosec G115 -- its two bytes
		if q.DO {
			b[len(b)-4] = flagDO
		}
	}
	return len(b), true
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
