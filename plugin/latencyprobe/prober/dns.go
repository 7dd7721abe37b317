package prober

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// ednsSize is the UDP payload size that queries announce, in bytes: the DNS
// flag day of 2020 found that it passes everywhere.
const ednsSize = 1232

// maxDatagram bounds what is read of an answer over UDP, in bytes: some servers
// do not heed ednsSize.
const maxDatagram = 4096

// DNS measures the time from a query over UDP to its answer, which must be
// NOERROR. If the answer is truncated, the query is repeated over TCP, and the
// time of that counts.
type DNS struct {
	Port          uint16
	Name          string // absolute
	Type          uint16
	Authoritative bool // the answer must have the AA bit
	Recursive     bool // the query has the RD bit
	AnyAnswer     bool // whatever its code, and truncated or not
}

var (
	_ Prober = DNS{}
	_ Sharer = DNS{}
)

func parseDNS(args []string) (Prober, error) {
	wrongShape := errors.New("expected 'dns PORT NAME [TYPE] [recursive]', for example 'dns 53 example.org SOA'")
	d := DNS{Type: dns.TypeA}
	if n := len(args); n > 2 && args[n-1] == "recursive" {
		d.Recursive, args = true, args[:n-1]
	}
	if len(args) < 2 || len(args) > 3 {
		return nil, wrongShape
	}
	var err error
	if d.Port, err = parsePort(args[0]); err != nil {
		return nil, err
	}
	d.Name = dns.Fqdn(args[1])
	if _, err := corefile.Name(args[1]); err != nil {
		return nil, err
	}
	if len(args) == 3 {
		var ok bool
		if d.Type, ok = dns.StringToType[strings.ToUpper(args[2])]; !ok {
			return nil, fmt.Errorf("invalid DNS record type '%s': expected one such as A or SOA", args[2])
		}
	}
	return d, nil
}

// Method implements the Prober interface.
func (DNS) Method() string { return "dns" }

// ID implements the Prober interface.
func (d DNS) ID() string {
	recursive := ""
	if d.Recursive {
		recursive = " recursive"
	}
	return fmt.Sprintf("dnsQuery{%d %s %d %t%s}", d.Port, d.Name, d.Type, d.Authoritative, recursive)
}

// Hold implements the Sharer interface.
func (DNS) Hold(netip.Addr, netip.Addr) (release func()) {
	_, release = arrivals.hold(struct{}{})
	return release
}

// query returns a new query, and its wire form. An error is one of this machine.
func (d DNS) query() (query *dns.Msg, packed []byte, err error) {
	query = new(dns.Msg).SetQuestion(d.Name, d.Type)
	query.RecursionDesired = d.Recursive
	query.SetEdns0(ednsSize, false)
	if packed, err = query.Pack(); err != nil {
		return nil, nil, localError{err}
	}
	return query, packed, nil
}

// Probe implements the Prober interface.
func (d DNS) Probe(ctx context.Context, addr, source netip.Addr) (Result, error) {
	query, packed, err := d.query()
	if err != nil {
		return Result{}, err
	}
	server := netip.AddrPortFrom(addr, d.Port).String()
	answer, result, err := exchangeUDP(ctx, query, packed, server, source)
	if err == nil && d.AnyAnswer {
		return result, nil
	}
	if err == nil && answer.Truncated {
		if answer, result, err = exchangeTCP(ctx, query, packed, server, source); err != nil {
			err = reachedError{err}
		}
	}
	switch {
	case err != nil:
		return Result{}, err
	case answer.Rcode != dns.RcodeSuccess:
		return Result{}, AnswerError("DNS response code " + dnsmsg.RcodeText(answer.Rcode))
	case len(answer.Question) == 0:
		return Result{}, AnswerError("DNS response has no question")
	case d.Authoritative && !answer.Authoritative:
		return Result{}, AnswerError("DNS response is not authoritative")
	}
	return result, nil
}

// exchangeUDP sends the query once and waits for its answer.
func exchangeUDP(ctx context.Context, query *dns.Msg, packed []byte, server string, source netip.Addr) (*dns.Msg, Result, error) {
	c, err := dialer("udp", source).DialContext(ctx, "udp", server)
	if err != nil {
		return nil, Result{}, err
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	if err := enableArrivalTimes(conn); err != nil {
		return nil, Result{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, Result{}, err
		}
	}
	sent := time.Now()
	if _, err := conn.Write(packed); err != nil {
		return nil, Result{}, err
	}
	return receive(conn, query, sent)
}

// receive waits for the answer to a query. Datagrams that do not answer it are
// ignored: anybody may send them.
func receive(conn *net.UDPConn, query *dns.Msg, sent time.Time) (*dns.Msg, Result, error) {
	buf, control := make([]byte, maxDatagram), make([]byte, 64)
	for {
		n, controlLen, _, _, err := conn.ReadMsgUDP(buf, control)
		now := time.Now()
		if err != nil {
			return nil, Result{}, err
		}
		answer, ok, err := parseReply(buf[:n], query)
		if !ok {
			continue
		}
		if err != nil {
			return nil, Result{}, err
		}
		return answer, timed(sent, now, control[:controlLen]), nil
	}
}

// timed returns the time from sending to the arrival of a datagram, which was read now
// with the control messages.
func timed(sent, now time.Time, control []byte) Result {
	result := Result{RTT: now.Sub(sent)}
	if arrived, ok := arrivalTime(control); ok {
		wall := now.Round(0)
		if rtt, ok := arrivalRTT(result.RTT, wall.Sub(sent.Round(0)), wall.Sub(arrived)); ok {
			result = Result{RTT: rtt, KernelTimed: true}
		}
	}
	return result
}

// maxClockDrift is how much the wall clock may differ from the monotonic one
// during a probe, apart from a thousandth: time daemons slew by less.
const maxClockDrift = 100 * time.Microsecond

// arrivalRTT returns the time from sending to arrival of a datagram, given the
// time from sending to reading by the monotonic clock and by the wall clock, and
// the time from arrival to reading. The kernel notes arrivals by the wall clock:
// if that was set meanwhile, they say nothing.
func arrivalRTT(elapsed, wallElapsed, sinceArrival time.Duration) (time.Duration, bool) {
	if (wallElapsed-elapsed).Abs() > maxClockDrift+elapsed/1000 || sinceArrival < 0 || sinceArrival >= elapsed {
		return 0, false
	}
	return elapsed - sinceArrival, true
}

// exchangeTCP sends the query over a new connection and waits for its answer.
// The time is that of the answer alone.
func exchangeTCP(ctx context.Context, query *dns.Msg, packed []byte, server string, source netip.Addr) (*dns.Msg, Result, error) {
	c, err := dialer("tcp", source).DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, Result{}, err
	}
	conn := &dns.Conn{Conn: c}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, Result{}, err
		}
	}
	sent := time.Now()
	if _, err := conn.Write(packed); err != nil { // after its length
		return nil, Result{}, err
	}
	reply, err := conn.ReadMsgHeader(nil)
	result := Result{RTT: time.Since(sent)}
	if err != nil {
		return nil, Result{}, err
	}
	answer, ok, err := parseReply(reply, query)
	switch {
	case !ok:
		return nil, Result{}, AnswerError("DNS response answers another query")
	case err != nil:
		return nil, Result{}, err
	}
	return answer, result, nil
}

// parseReply reads a reply to a query and reports whether it is one: its ID and
// question are those of the query. Servers leave out the question of queries
// that they cannot read, and cut truncated replies anywhere.
func parseReply(packet []byte, query *dns.Msg) (answer *dns.Msg, ok bool, err error) {
	const (
		headerSize = 12
		qr, tc     = 0x80, 0x02 // bits of the third byte
	)
	if len(packet) < headerSize || binary.BigEndian.Uint16(packet) != query.Id || packet[2]&qr == 0 {
		return nil, false, nil
	}
	answer = new(dns.Msg)
	switch err := answer.Unpack(packet); {
	case err != nil && packet[2]&tc != 0:
		return &dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}}, true, nil
	case err != nil:
		return nil, true, AnswerError("malformed DNS response")
	case len(answer.Question) > 1:
		return nil, false, nil
	case len(answer.Question) == 1:
		a, b := answer.Question[0], query.Question[0]
		if a.Qtype != b.Qtype || a.Qclass != b.Qclass || !strings.EqualFold(a.Name, b.Name) {
			return nil, false, nil
		}
	}
	return answer, true, nil
}
