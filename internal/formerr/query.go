package formerr

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	headerSize   = 12
	questionTail = 4  // type and class
	recordHeader = 10 // what follows the name of a record, before its data

	flagQR  = 0x80 // in the third byte of a message
	opcodes = 0x78
	rcodes  = 0x0f // in the fourth byte
	flagDO  = 0x80 // in the eighth byte of an OPT record
)

// query is what a reply without records needs of a query.
type query struct {
	question []byte // as it is in the message
	edns     bool
	size     uint16 // of answers over UDP that the client takes
	do       bool   // DNSSEC OK
}

// parse reads a query with one question as far as it can be read. It does not look
// into options.
func parse(message []byte) (q query, ok bool) {
	if len(message) < headerSize || message[2]&(flagQR|opcodes) != 0 || count(message, 4) != 1 {
		return q, false
	}
	rest, ok := skipName(message[headerSize:])
	if !ok || len(rest) < questionTail {
		return q, false
	}
	rest = rest[questionTail:]
	q.question = message[headerSize : len(message)-len(rest)]
	for before := count(message, 6) + count(message, 8); before > 0; before-- {
		if rest, ok = skipRecord(rest); !ok {
			return q, true
		}
	}
	for additional := count(message, 10); additional > 0; additional-- {
		if len(rest) > recordHeader && rest[0] == 0 && binary.BigEndian.Uint16(rest[1:]) == dns.TypeOPT {
			q.edns, q.size, q.do = true, binary.BigEndian.Uint16(rest[3:]), rest[7]&flagDO != 0
		}
		if rest, ok = skipRecord(rest); !ok {
			break
		}
	}
	return q, true
}

// count returns the number of records in a section, by its offset in the header.
func count(message []byte, offset int) int { return int(binary.BigEndian.Uint16(message[offset:])) }

// skipName returns what follows a name.
func skipName(b []byte) (rest []byte, ok bool) {
	for len(b) > 0 {
		switch length := int(b[0]); {
		case length == 0:
			return b[1:], true
		case length >= 0xc0: // a pointer is the end of a name
			return b[min(2, len(b)):], len(b) > 1
		case length > 63 || length >= len(b):
			return nil, false
		default:
			b = b[1+length:]
		}
	}
	return nil, false
}

// skipRecord returns what follows a record.
func skipRecord(b []byte) (rest []byte, ok bool) {
	b, ok = skipName(b)
	if !ok || len(b) < recordHeader {
		return nil, false
	}
	end := recordHeader + int(binary.BigEndian.Uint16(b[recordHeader-2:]))
	if end > len(b) {
		return nil, false
	}
	return b[end:], true
}

// appendOPT appends the OPT record that the other replies to a query have.
func (q query) appendOPT(reply []byte) []byte {
	size := min(q.size, dnsmsg.MaxUDPSize)
	reply = append(reply, 0, 0, byte(dns.TypeOPT), byte(size>>8), byte(size), 0, 0, 0, 0, 0, 0) // #nosec G115 -- its two bytes
	if q.do {
		reply[len(reply)-4] = flagDO
	}
	return reply
}
