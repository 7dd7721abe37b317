package dnslb

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// transferSize is how many bytes of records go into one message of a transfer,
// which leaves room for the longest record and the signature.
const transferSize = 48 << 10

// sharesViews reports whether this node has the key with which nodes share
// their views.
func (d *DNSLB) sharesViews() bool { return d.viewKey.Name != "" }

// shareView serves the zone of this node's view, and takes the news that there
// is one of another node. Both are for nodes with the key alone.
func (d *DNSLB) shareView(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, zone string) (int, error) {
	node := strings.TrimSuffix(zone, viewZone("", d.Zones[0]))
	if t := r.IsTsig(); t != nil && w.TsigStatus() != nil {
		if r.Opcode == dns.OpcodeNotify && registration.IsLabel(node) {
			d.state.sharing.refuse(node, w.RemoteAddr().String(), mistrust(t, w.TsigStatus()))
		}
		return dns.RcodeSuccess, w.WriteMsg(notAuth(r, t, w.TsigStatus()))
	}
	if !signedBy(ctx, r, d.viewKey) {
		return dns.RcodeRefused, nil
	}
	// RFC 8945, section 5.3: what was signed is answered signed, a refusal as well.
	refuse := func(rcode int) (int, error) {
		return dns.RcodeSuccess, writeSigned(w, r, new(dns.Msg).SetRcode(r, rcode))
	}
	if r.Opcode == dns.OpcodeNotify {
		if !registration.IsLabel(node) || node == d.Node || !d.state.sharing.notified(node) {
			return refuse(dns.RcodeRefused)
		}
		return dns.RcodeSuccess, writeSigned(w, r, new(dns.Msg).SetReply(r))
	}
	if r.Opcode != dns.OpcodeQuery {
		return refuse(dns.RcodeNotImplemented)
	}
	v := d.state.sharing.published.Load()
	switch {
	case node != d.Node: // RFC 5936, section 2.2.1
		return refuse(dns.RcodeNotAuth)
	case v == nil && len(d.deputies) == 0: // deputies take that as their dismissal
		return refuse(dns.RcodeRefused)
	case v == nil: // not yet
		return refuse(dns.RcodeServerFailure)
	}

	state := request.Request{W: w, Req: r}
	server := d.nameserver(d.Zones[0])
	soa := v.soa(zone, server)
	switch state.QType() {
	case dns.TypeSOA:
		m := new(dns.Msg).SetReply(r)
		m.Authoritative, m.Answer = true, []dns.RR{soa}
		return dns.RcodeSuccess, writeSigned(w, r, m)
	case dns.TypeAXFR, dns.TypeIXFR: // RFC 1995, section 4: the whole zone will do
		if state.Proto() != "tcp" {
			return refuse(dns.RcodeRefused)
		}
		records := append([]dns.RR{soa}, v.records(zone, server, time.Now())...)
		return dns.RcodeSuccess, writeTransfer(w, r, append(records, soa))
	}
	return refuse(dns.RcodeRefused)
}

// signedBy reports whether r was signed with key. The plugin tsig removes the
// signature and reports the key in the context.
func signedBy(ctx context.Context, r *dns.Msg, key dnsclient.Key) bool {
	if name, ok := tsig.ValidatedKeyName(ctx); ok {
		return name == key.Name
	}
	t := r.IsTsig()
	return t != nil && dns.CanonicalName(t.Hdr.Name) == key.Name
}

// writeSigned writes a reply with the key that signed the request.
func writeSigned(w dns.ResponseWriter, r, m *dns.Msg) error {
	// What is appended behind the signature would make the message malformed.
	state := request.Request{W: w, Req: r}
	state.SizeAndDo(m)
	if t := r.IsTsig(); t != nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, dnsclient.Fudge, time.Now().Unix())
	}
	return w.WriteMsg(m)
}

// writeTransfer writes the records of a zone in as many messages as it takes
// (RFC 5936).
func writeTransfer(w dns.ResponseWriter, r *dns.Msg, records []dns.RR) error {
	for len(records) > 0 {
		m := new(dns.Msg).SetReply(r)
		m.Authoritative, m.Compress = true, true
		n, size := 0, 0
		for n < len(records) && size < transferSize {
			size += dns.Len(records[n])
			n++
		}
		m.Answer, records = records[:n], records[n:]
		if err := writeSigned(w, r, m); err != nil {
			return err
		}
		w.TsigTimersOnly(true)
	}
	return nil
}

// mistrust says what is wrong with a signature, and what to do.
func mistrust(t *dns.TSIG, status error) string {
	const remedy = "all nodes need the same name and secret of 'view-key'"
	switch {
	case errors.Is(status, dns.ErrSecret):
		return fmt.Sprintf("the key %s is not known here: %s", t.Hdr.Name, remedy)
	case errors.Is(status, dns.ErrTime):
		return "clocks differ too much: set the time of both machines"
	}
	return fmt.Sprintf("its key %s has another secret: %s", t.Hdr.Name, remedy)
}

// notAuth says what is wrong with a signature (RFC 8945, section 5.2).
func notAuth(r *dns.Msg, t *dns.TSIG, status error) *dns.Msg {
	m := new(dns.Msg).SetRcode(r, dns.RcodeNotAuth)
	if r.IsEdns0() != nil {
		m.SetEdns0(dns.MinMsgSize, false)
	}
	bad := &dns.TSIG{
		Hdr:       dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: t.Algorithm, TimeSigned: t.TimeSigned, Fudge: dnsclient.Fudge, OrigId: r.Id,
	}
	switch {
	case errors.Is(status, dns.ErrSecret):
		bad.Error = dns.RcodeBadKey
	case errors.Is(status, dns.ErrTime):
		bad.Error = dns.RcodeBadTime
		now := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix())) // #nosec G115 -- after 1970
		bad.OtherLen, bad.OtherData = 6, hex.EncodeToString(now[2:])
	default:
		bad.Error = dns.RcodeBadSig
	}
	m.Extra = append(m.Extra, bad)
	return m
}
