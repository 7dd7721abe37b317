package dnsb

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

// The most records of an UPDATE, by section. They are in the header, all that
// CoreDNS lets anybody see of a message before it is unpacked and its signature
// verified.
const (
	maxPrerequisites = 32
	maxUpdates       = 1500
	maxAdditional    = 2 // OPT and TSIG
)

// UPDATEs that come to nothing may cost as much as so many bytes, of the whole
// process, before UPDATEs are ignored for a while: 1 MB takes some 150 ms to
// unpack twice, as CoreDNS does.
const (
	wastePerSecond = 1 << 20
	wasteAtOnce    = 4 << 20

	recordCost = 40 // bytes that take as long as a record and the names in it
)

var (
	// limited counts the instances for which UPDATEs are limited.
	limited atomic.Int32

	waste = rate.NewLimiter(wastePerSecond, wasteAtOnce)

	ignoring reminder.Keyed
)

// acceptUpdates returns a function that accepts no UPDATE that has too many
// records, or comes while too many are refused, and does otherwise what next
// does. It accepts nothing that next does not.
func acceptUpdates(next dns.MsgAcceptFunc) dns.MsgAcceptFunc {
	return func(h dns.Header) dns.MsgAcceptAction {
		action := next(h)
		switch {
		case opcode(h.Bits) != dns.OpcodeUpdate || action == dns.MsgIgnore || limited.Load() == 0:
			return action
		case tooManyRecords(int(h.Ancount), int(h.Nscount), int(h.Arcount)):
			return dns.MsgReject
		case waste.Tokens() < 0:
			ignore()
			return dns.MsgIgnore // the sender tries again
		}
		return action
	}
}

// ignore notes that an UPDATE is ignored.
func ignore() {
	ignoredCount.Inc()
	if ignoring.Failed("", "") {
		log.Warning("Ignored an update, and ignoring others while so many are refused: registrations of nodes may need several attempts")
	}
}

// countInvalid returns a function that counts an UPDATE that cannot be unpacked
// as waste, and then does what next does.
func countInvalid(next dns.MsgInvalidFunc) dns.MsgInvalidFunc {
	return func(m []byte, err error) {
		if len(m) > 4 && opcode(binary.BigEndian.Uint16(m[2:])) == dns.OpcodeUpdate {
			wasted(len(m))
		}
		next(m, err)
	}
}

// wasted notes that an UPDATE with this cost in bytes came to nothing.
func wasted(cost int) { waste.ReserveN(time.Now(), min(cost, wasteAtOnce)) }

// updateCost returns what it costs to unpack an UPDATE, in bytes.
func updateCost(m *dns.Msg) int {
	cost := 0
	for _, section := range [...][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			cost += recordCost + int(rr.Header().Rdlength)
		}
	}
	return cost
}

func tooManyRecords(prerequisites, updates, additional int) bool {
	return prerequisites > maxPrerequisites || updates > maxUpdates || additional > maxAdditional
}

// opcode returns the opcode in the second word of a header (RFC 1035, section
// 4.1.1).
func opcode(bits uint16) int { return int(bits>>11) & 0xF }
