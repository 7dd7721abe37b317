package dnsmsg

import (
	"iter"

	"github.com/miekg/dns"
)

// transferSize is how many bytes of records go into one message of a transfer. The
// rest of the 64 KiB is for the longest record and the signature.
const transferSize = 48 << 10

// WriteTransfer writes the reply to r, the records of a zone from SOA to SOA, in as
// many messages as it takes (RFC 5936). The plugin *tsig* adds a signature to each,
// but does not know that they belong together: all but the first are signed with
// the timers only (RFC 8945, section 5.3.1).
func WriteTransfer(w dns.ResponseWriter, r *dns.Msg, soa dns.RR, records iter.Seq[dns.RR]) error {
	var (
		answer []dns.RR
		size   int
		err    error
	)
	write := func() bool {
		m := new(dns.Msg).SetReply(r)
		m.Authoritative, m.Compress, m.Answer = true, true, answer
		if err = w.WriteMsg(m); err == nil {
			w.TsigTimersOnly(true)
		}
		answer, size = nil, 0
		return err == nil
	}
	add := func(rr dns.RR) bool {
		answer, size = append(answer, rr), size+dns.Len(rr)
		return size < transferSize || write()
	}
	if !add(soa) {
		return err
	}
	for rr := range records {
		if !add(rr) {
			return err
		}
	}
	if answer = append(answer, soa); write() {
		return nil
	}
	return err
}
