package latencyprobe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

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
	m.SetEdns0(1232, false)
	r, rtt, err := q.exchange(ctx, "udp", m, addr, source)
	if err == nil && r.Truncated {
		r, rtt, err = q.exchange(ctx, "tcp", m, addr, source)
	}
	switch {
	case err != nil:
		return result{}, err
	case r.Rcode != dns.RcodeSuccess:
		return result{}, &unexpected{"it answers " + dns.RcodeToString[r.Rcode]}
	case q.authoritative && !r.Authoritative:
		return result{}, &unexpected{"its answer is not authoritative"}
	}
	return result{rtt: rtt}, nil
}

func (q dnsQuery) exchange(ctx context.Context, network string, m *dns.Msg, addr, source netip.Addr) (*dns.Msg, time.Duration, error) {
	client := dns.Client{Net: network, Dialer: dialer(network, source)}
	return client.ExchangeContext(ctx, m, netip.AddrPortFrom(addr, q.port).String())
}
