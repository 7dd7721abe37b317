package delegation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
)

const (
	// timeout is how long a server may take to answer. Resolvers ask another
	// server sooner.
	timeout = 2 * time.Second
	// attempts over UDP, where a packet may be lost.
	attempts = 2
	// payload is the largest message over UDP that no path fragments.
	payload = 1232
)

var (
	// errNoRoute says that this machine cannot reach any address like this one.
	errNoRoute = errors.New("this machine has no route to it")
	// errTime says that the checks must come to an end.
	errTime = fmt.Errorf("no reply within the %s that all checks may take", Most)
)

func itoa(n int) string { return strconv.Itoa(n) }

// isLocal reports whether this machine has an address.
func isLocal(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// ask asks a server one question over udp or tcp, as a resolver that validates.
func ask(ctx context.Context, network string, to netip.AddrPort, source netip.Addr, name string, qtype uint16, recursive bool) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = recursive
	m.SetEdns0(payload, true)
	client := dns.Client{Net: network, Timeout: timeout, UDPSize: payload, Dialer: &net.Dialer{Timeout: timeout}}
	if source.IsValid() && source.Is4() == to.Addr().Is4() {
		client.Dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		if network == "tcp" {
			client.Dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		}
	}
	tries := 1
	if network == "udp" {
		tries = attempts
	}
	for {
		r, _, err := client.ExchangeContext(ctx, m, to.String())
		if tries--; err == nil || tries == 0 || !isTimeout(err) || ended(ctx) {
			return r, plain(ctx, err)
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// ended reports whether the checks must come to an end. A connection may notice
// that before ctx does.
func ended(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// plain returns the error of an exchange in plain English.
func plain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ended(ctx):
		return errTime
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return errNoRoute
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nothing listens at its port")
	case isTimeout(err):
		return fmt.Errorf("no reply within %s", timeout)
	}
	return errors.New(remotetext.CleanError(err))
}

// query asks a server over UDP, and again over TCP if the reply is truncated.
func (s server) query(ctx context.Context, source netip.Addr, name string, qtype uint16) (*dns.Msg, error) {
	r, err := ask(ctx, "udp", s.addr, source, name, qtype, false)
	if err == nil && r.Truncated {
		r, err = ask(ctx, "tcp", s.addr, source, name, qtype, false)
	}
	return r, err
}

// each calls f for each index below n, concurrently. Levels have maxServers
// servers at most.
func each(n int, f func(i int)) {
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() { f(i) })
	}
	calls.Wait()
}

// reach asks a server the same question over UDP and TCP. It returns the reply,
// or a check that says what is wrong with the server, whatever it was asked.
func (s server) reach(ctx context.Context, source netip.Addr, zone, name string, qtype uint16) (*dns.Msg, Check) {
	var replies [2]*dns.Msg
	var errs [2]error
	each(2, func(i int) {
		replies[i], errs[i] = ask(ctx, [2]string{"udp", "tcp"}[i], s.addr, source, name, qtype, false)
	})
	udp, tcp := errs[0], errs[1]
	port := itoa(int(s.addr.Port()))
	switch {
	case errors.Is(udp, errNoRoute):
		return nil, s.check(Unchecked, "was not asked", udp.Error())
	case udp != nil && tcp != nil:
		return nil, s.check(Problem, "does not answer ("+udp.Error()+")",
			"start it, check its address, and let UDP and TCP port "+port+" pass to it")
	case udp != nil:
		return nil, s.check(Problem, "answers over TCP alone (UDP: "+udp.Error()+")", "let UDP port "+port+" pass to it")
	case tcp != nil:
		return nil, s.check(Problem, "answers over UDP alone (TCP: "+tcp.Error()+")",
			"let TCP port "+port+" pass to it, resolvers need it for long answers")
	}
	r := replies[0]
	if r.Truncated {
		r = replies[1]
	}
	served := s.served(zone)
	switch {
	case r.Rcode == dns.RcodeRefused, r.Rcode == dns.RcodeNotAuth:
		return nil, s.check(Problem, "does not serve "+show(zone)+" ("+dnsmsg.RcodeText(r.Rcode)+")", served)
	case r.Rcode == dns.RcodeServerFailure:
		return nil, s.check(Problem, "fails for "+show(name)+" (SERVFAIL)", "its log has the reason")
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		return nil, s.check(Problem, "answers "+dnsmsg.RcodeText(r.Rcode)+" to a plain question with EDNS", "use a server that supports EDNS (RFC 6891)")
	case !r.Authoritative && r.RecursionAvailable:
		return nil, s.check(Problem, "answers as a resolver, without authority for "+show(zone), served)
	case !r.Authoritative:
		return nil, s.check(Problem, "answers without authority for "+show(zone), served)
	case r.IsEdns0() == nil:
		return nil, s.check(Problem, "answers without EDNS", "use a server that supports EDNS (RFC 6891), or let its OPT records pass")
	case replies[0].Rcode != replies[1].Rcode:
		return nil, s.check(Problem, "answers differently over UDP and TCP ("+dnsmsg.RcodeText(replies[0].Rcode)+", "+dnsmsg.RcodeText(replies[1].Rcode)+")",
			"let both reach the same server")
	}
	return r, Check{}
}

// served returns what to do about a server that does not serve a zone.
func (s server) served(zone string) string {
	if s.role == "DNS-A" && s.name == "" {
		return "give a server of the zone above"
	}
	return "serve the zone " + show(zone) + " there, or take the server out of the NS records"
}
