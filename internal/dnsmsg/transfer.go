package dnsmsg

import (
	"iter"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// ServeZone answers a query r for the apex of a zone that is there to be
// transferred. transfer answers AXFR, and IXFR, for which the whole zone will do
// (RFC 1995, section 4).
func ServeZone(w dns.ResponseWriter, r *dns.Msg, soa dns.RR, transfer func() error) error {
	state, m := request.Request{W: w, Req: r}, new(dns.Msg).SetReply(r)
	switch qtype := state.QType(); {
	case qtype == dns.TypeSOA:
		m.Authoritative, m.Answer = true, []dns.RR{soa}
	case (qtype == dns.TypeAXFR || qtype == dns.TypeIXFR) && state.Proto() == "tcp":
		return transfer()
	default:
		m.Rcode = dns.RcodeRefused
	}
	return w.WriteMsg(m)
}

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
