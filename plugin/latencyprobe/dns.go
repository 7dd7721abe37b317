package latencyprobe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ednsSize is what the query announces, and all that is read of an answer over
// UDP: the size that the DNS flag day of 2020 found to pass everywhere.
const ednsSize = 1232

// dnsQuery measures the time from a query over UDP to its answer, which must be
// NOERROR. A truncated one is asked again over TCP, and that counts.
type dnsQuery struct {
	port          uint16
	name          string
	qtype         uint16
	authoritative bool // AA is required
}

func parseDNS(args []string) (method, error) {
	if len(args) < 2 || len(args) > 3 {
		return nil, errors.New("expected 'dns PORT NAME [TYPE]'")
	}
	port, err := parsePort(args[0])
	if err != nil {
		return nil, err
	}
	m := dnsQuery{port: port, name: dns.Fqdn(args[1]), qtype: dns.TypeA}
	if _, ok := dns.IsDomainName(m.name); !ok {
		return nil, fmt.Errorf("'%s' is no domain name", args[1])
	}
	if len(args) == 3 {
		var ok bool
		if m.qtype, ok = dns.StringToType[strings.ToUpper(args[2])]; !ok {
			return nil, fmt.Errorf("'%s' is no type of DNS records", args[2])
		}
	}
	return m, nil
}

func (q dnsQuery) kind() string { return "dns" }

func (q dnsQuery) measure(ctx context.Context, addr, source netip.Addr) (result, error) {
	m := new(dns.Msg).SetQuestion(q.name, q.qtype)
	m.RecursionDesired = false
	m.SetEdns0(ednsSize, false)
	to := netip.AddrPortFrom(addr, q.port).String()
	r, got, err := overUDP(ctx, m, to, source)
	if err == nil && r.Truncated {
		client := dns.Client{Net: "tcp", Dialer: dialer("tcp", source)}
		got.exact = false
		r, got.rtt, err = client.ExchangeContext(ctx, m, to)
	}
	switch {
	case err != nil:
		return result{}, err
	case r.Rcode != dns.RcodeSuccess:
		return result{}, &unexpected{"it answers " + dns.RcodeToString[r.Rcode]}
	case q.authoritative && !r.Authoritative:
		return result{}, &unexpected{"its answer is not authoritative"}
	}
	return got, nil
}

// overUDP asks once, and takes the time when the kernel saw the answer: this
// goroutine may run much later.
func overUDP(ctx context.Context, m *dns.Msg, to string, source netip.Addr) (*dns.Msg, result, error) {
	query, err := m.Pack()
	if err != nil {
		return nil, result{}, err
	}
	c, err := dialer("udp", source).DialContext(ctx, "udp", to)
	if err != nil {
		return nil, result{}, err
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	if err := stampArrivals(conn); err != nil {
		return nil, result{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, result{}, err
		}
	}
	sent := time.Now()
	if _, err := conn.Write(query); err != nil {
		return nil, result{}, err
	}
	buf, oob := make([]byte, ednsSize), make([]byte, 64)
	for {
		n, oobn, _, _, err := conn.ReadMsgUDP(buf, oob)
		got := result{rtt: time.Since(sent)}
		if err != nil {
			return nil, result{}, err
		}
		r := new(dns.Msg)
		// What is not the answer to this query was sent by somebody else.
		if r.Unpack(buf[:n]) != nil || r.Id != m.Id || !r.Response || len(r.Question) != 1 || !sameQuestion(r.Question[0], m.Question[0]) {
			continue
		}
		// The wall clock may be set meanwhile; then ours is the better one.
		if at, ok := arrival(oob[:oobn]); ok {
			if kernel := at.Sub(sent.Round(0)); kernel > 0 && kernel < got.rtt {
				got = result{rtt: kernel, exact: true}
			}
		}
		return r, got, nil
	}
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}
