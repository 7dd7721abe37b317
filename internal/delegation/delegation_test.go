package delegation

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// reply is what a server answers.
type reply struct {
	referral          bool // without AA
	rcode             int
	answer, ns, extra []string
}

// fake is a name server.
type fake struct {
	replies map[string]reply // by "NAME TYPE" of the question, by default REFUSED
	silent  string           // udp, tcp, both
	noEDNS  bool
	recurse bool // answers as a resolver
	short   bool // truncates over UDP
}

// The servers of the tests.
const (
	a1, a2 = "127.0.20.1", "127.0.20.2"
	b1, b2 = "127.0.20.3", "127.0.20.4"
	par1   = "127.0.20.5"
	nyc1   = "127.0.20.6"
)

// world returns servers that are set up well.
func world() map[string]*fake {
	soa := func(zone string) []string { return []string{zone + " 300 IN SOA ns hostmaster 7 1 1 1 30"} }
	ns := []string{"gslb.example.org. 3600 IN NS b1.gslb.example.org.", "gslb.example.org. 3600 IN NS b2.gslb.example.org."}
	glue := []string{"b1.gslb.example.org. 3600 IN A " + b1, "b2.gslb.example.org. 3600 IN A " + b2}
	cut := reply{referral: true, ns: []string{"svc.gslb.example.org. 300 IN NS par1.lb.gslb.example.org.", "svc.gslb.example.org. 300 IN NS nyc1.lb.gslb.example.org."},
		extra: []string{"par1.lb.gslb.example.org. 600 IN A " + par1, "nyc1.lb.gslb.example.org. 600 IN A " + nyc1}}
	parent := func() *fake {
		return &fake{replies: map[string]reply{
			"example.org. SOA":     {answer: soa("example.org.")},
			"gslb.example.org. NS": {referral: true, ns: ns, extra: glue},
			"gslb.example.org. DS": {ns: soa("example.org.")},
			"www.example.org. A":   {answer: []string{"www.example.org. 60 IN CNAME www.svc.gslb.example.org."}},
			"old.example.org. A":   {answer: []string{"old.example.org. 60 IN A 192.0.2.1"}},
		}}
	}
	dnsb := func() *fake {
		return &fake{replies: map[string]reply{
			"gslb.example.org. SOA":       {answer: soa("gslb.example.org.")},
			"gslb.example.org. NS":        {answer: ns, extra: glue},
			"gslb.example.org. DNSKEY":    {ns: soa("gslb.example.org.")},
			"b1.gslb.example.org. A":      {answer: glue[:1]},
			"b1.gslb.example.org. AAAA":   {ns: soa("gslb.example.org.")},
			"b2.gslb.example.org. A":      {answer: glue[1:]},
			"b2.gslb.example.org. AAAA":   {ns: soa("gslb.example.org.")},
			"svc.gslb.example.org. SOA":   cut,
			"svc.gslb.example.org. A":     cut,
			"www.svc.gslb.example.org. A": cut,
			"svc.gslb.example.org. DS":    {ns: soa("gslb.example.org.")},
			"nix.gslb.example.org. A":     {rcode: dns.RcodeNameError, ns: soa("gslb.example.org.")},
			// Explanations are for nobody.
			"_json._explain.gslb.example.org. TXT":         {rcode: dns.RcodeNameError},
			"_json._explain.www.svc.gslb.example.org. TXT": {rcode: dns.RcodeNameError},
		}}
	}
	node := func() *fake {
		return &fake{replies: map[string]reply{
			"svc.gslb.example.org. SOA":    {answer: soa("svc.gslb.example.org.")},
			"svc.gslb.example.org. DNSKEY": {ns: soa("svc.gslb.example.org.")},
			"www.svc.gslb.example.org. A":  {answer: []string{"www.svc.gslb.example.org. 20 IN A 192.0.2.1"}},
		}}
	}
	return map[string]*fake{a1: parent(), a2: parent(), b1: dnsb(), b2: dnsb(), par1: node(), nyc1: node()}
}

func (f *fake) set(question string, r reply) { f.replies[question] = r }

func (f *fake) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	network := w.LocalAddr().Network()
	if f.silent == network || f.silent == "both" {
		return
	}
	q := r.Question[0]
	m := new(dns.Msg).SetReply(r)
	m.Compress = true
	answer, ok := f.replies[q.Name+" "+dns.TypeToString[q.Qtype]]
	if !ok {
		answer = reply{referral: true, rcode: dns.RcodeRefused}
	}
	m.Authoritative, m.Rcode = !answer.referral, answer.rcode
	if f.recurse {
		m.Authoritative, m.RecursionAvailable = false, true
	}
	for i, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		for _, text := range [][]string{answer.answer, answer.ns, answer.extra}[i] {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			*section = append(*section, rr)
		}
	}
	if r.IsEdns0() != nil && !f.noEDNS {
		m.SetEdns0(1232, true)
	}
	if f.short && network == "udp" {
		m.Truncated, m.Answer, m.Ns, m.Extra = true, nil, nil, m.Extra[len(m.Extra)-1:]
	}
	_ = w.WriteMsg(m)
}

// start serves all servers at one port, which it returns.
func start(t *testing.T, servers map[string]*fake) uint16 {
	t.Helper()
	port := testport.Free(t)
	for addr, f := range servers {
		if f == nil {
			continue
		}
		address := net.JoinHostPort(addr, itoa(port))
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*dns.Server{{Listener: l, Handler: f}, {PacketConn: packets, Handler: f}} {
			done, started := make(chan struct{}), make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { defer close(done); _ = s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown(); <-done })
		}
	}
	return uint16(port)
}

func addrPorts(port uint16, addrs ...string) []netip.AddrPort {
	all := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		all[i] = netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	}
	return all
}

// lines returns the checks as text, those that are OK only if all is true.
func lines(checks []Check, port uint16, all bool) string {
	var text strings.Builder
	for _, c := range checks {
		if all || c.Result != OK {
			fmt.Fprintf(&text, "%s: %s\n", c.Result, strings.ReplaceAll(c.String(), ":"+itoa(int(port)), ""))
		}
	}
	return strings.ReplaceAll(text.String(), "port "+itoa(int(port)), "port 53")
}

// walkUntil walks until the checks are as wanted, five times at most: on a busy
// machine a server of the test may seem to be silent. It returns the checks of the
// last walk.
func walkUntil(t *testing.T, options Options, port uint16, wanted func(checks []Check) bool) []Check {
	t.Helper()
	checks := run(t.Context(), options, port)
	for range 4 {
		if wanted(checks) {
			break
		}
		checks = run(t.Context(), options, port)
	}
	return checks
}

func TestGoodDelegation(t *testing.T) {
	port := start(t, world())
	options := Options{Zone: "GSLB.example.org", Name: "www.example.org", From: netip.MustParseAddr("127.0.20.10"), Parents: addrPorts(port, a1)}
	const want = `ok: DNS-A 127.0.20.1 answers for example.org over UDP and TCP, with EDNS
ok: DNS-A 127.0.20.1 leads www.example.org to www.svc.gslb.example.org
ok: DNS-A 127.0.20.1 delegates gslb.example.org to b1.gslb.example.org (127.0.20.3), b2.gslb.example.org (127.0.20.4), TTL 3600
ok: DNS-B b1.gslb.example.org 127.0.20.3 answers with authority for gslb.example.org over UDP and TCP, with EDNS, serial 7
ok: DNS-B b2.gslb.example.org 127.0.20.4 answers with authority for gslb.example.org over UDP and TCP, with EDNS, serial 7
ok: DNS-B b1.gslb.example.org 127.0.20.3 names the same servers and addresses as DNS-A
ok: DNS-B b2.gslb.example.org 127.0.20.4 names the same servers and addresses as DNS-A
ok: DNS-B b1.gslb.example.org 127.0.20.3 does not sign gslb.example.org, and DNS-A has no DS record of it
ok: DNS-B b2.gslb.example.org 127.0.20.4 does not sign gslb.example.org, and DNS-A has no DS record of it
ok: DNS-B b1.gslb.example.org 127.0.20.3 refers 127.0.20.10 for svc.gslb.example.org to par1.lb.gslb.example.org (127.0.20.5), nyc1.lb.gslb.example.org (127.0.20.6), TTL 300
ok: DNS-B b2.gslb.example.org 127.0.20.4 refers 127.0.20.10 for svc.gslb.example.org to par1.lb.gslb.example.org (127.0.20.5), nyc1.lb.gslb.example.org (127.0.20.6), TTL 300
ok: node par1.lb.gslb.example.org 127.0.20.5 answers with authority for www.svc.gslb.example.org over UDP and TCP, with EDNS: 192.0.2.1
ok: node nyc1.lb.gslb.example.org 127.0.20.6 answers with authority for www.svc.gslb.example.org over UDP and TCP, with EDNS: 192.0.2.1
ok: node par1.lb.gslb.example.org 127.0.20.5 does not sign svc.gslb.example.org, and DNS-B has no DS record of it
ok: node nyc1.lb.gslb.example.org 127.0.20.6 does not sign svc.gslb.example.org, and DNS-B has no DS record of it
`
	checks := walkUntil(t, options, port, func(checks []Check) bool { return lines(checks, port, true) == want })
	if got := lines(checks, port, true); got != want {
		t.Errorf("Expected\n%s, got\n%s", want, got)
	}
}

func TestFindings(t *testing.T) {
	const refer = " 3600 IN NS "
	for _, tc := range []struct {
		name    string
		change  func(w map[string]*fake)
		options Options // Zone gslb.example.org, Parents a1
		want    string  // what is not OK
	}{
		{"unknown name", nil, Options{Name: "nix.gslb.example.org"},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 has no node and no record for nix.gslb.example.org: correct the name; 'coredns-dnslb nodes' shows the nodes of gslb.example.org and their cuts\n" +
				"problem: DNS-B b2.gslb.example.org 127.0.20.4 has no node and no record for nix.gslb.example.org: correct the name; 'coredns-dnslb nodes' shows the nodes of gslb.example.org and their cuts\n"},
		{"usual cut", nil, Options{}, ""},
		{"two servers of DNS-A", nil, Options{Parents: addrPorts(0, a1, a2)}, ""},
		{"alias that leads elsewhere", nil, Options{Name: "old.example.org"},
			"problem: DNS-A 127.0.20.1 does not lead old.example.org into gslb.example.org: add the alias 'old.example.org. 60 IN CNAME NAME.gslb.example.org.', with the NAME of a service\n"},
		{"DNS-A is silent", func(w map[string]*fake) { w[a1].silent = "both" }, Options{},
			"problem: DNS-A 127.0.20.1 does not answer (no reply within 2s): start it, check its address, and let UDP and TCP port 53 pass to it\n"},
		{"DNS-A is not started", func(w map[string]*fake) { w[a1] = nil }, Options{},
			"problem: DNS-A 127.0.20.1 does not answer (nothing listens at its port): start it, check its address, and let UDP and TCP port 53 pass to it\n"},
		{"one server of DNS-A is silent", func(w map[string]*fake) { w[a1].silent = "both" }, Options{Parents: addrPorts(0, a1, a2)},
			"problem: DNS-A 127.0.20.1 does not answer (no reply within 2s): start it, check its address, and let UDP and TCP port 53 pass to it\n"},
		{"DNS-A is a resolver", func(w map[string]*fake) { w[a1].recurse = true }, Options{},
			"problem: DNS-A 127.0.20.1 answers as a resolver, without authority for example.org: give a server of the zone above\n"},
		{"DNS-A does not have the zone", func(w map[string]*fake) { delete(w[a1].replies, "example.org. SOA") }, Options{},
			"problem: DNS-A 127.0.20.1 does not serve example.org (REFUSED): give a server of the zone above\n"},
		{"not delegated", func(w map[string]*fake) { w[a1].set("gslb.example.org. NS", reply{rcode: dns.RcodeNameError}) }, Options{},
			"problem: DNS-A 127.0.20.1 does not delegate gslb.example.org: add an NS record of gslb.example.org and the address of the server, as 'init dnsb' has written them to dns-a.zone\n"},
		{"DNS-A has the zone itself", func(w map[string]*fake) {
			w[a1].set("gslb.example.org. NS", reply{answer: []string{"gslb.example.org." + refer + "ns.example.org."}})
		}, Options{},
			"problem: DNS-A 127.0.20.1 has the zone gslb.example.org itself, so that it does not refer to DNS-B: remove that zone from it, and keep the delegation in the zone above\n"},
		{"DNS-A is DNS-B", func(w map[string]*fake) {
			for question, r := range w[b1].replies {
				if !strings.HasPrefix(question, "gslb.example.org. DS") {
					w[a1].set(question, r)
				}
			}
			w[a1].set("gslb.example.org. NS", reply{answer: []string{"gslb.example.org." + refer + "b1.gslb.example.org."}, extra: []string{"b1.gslb.example.org. 3600 IN A " + a1}})
			w[a1].set("b1.gslb.example.org. A", reply{answer: []string{"b1.gslb.example.org. 3600 IN A " + a1}})
		}, Options{}, ""},
		{"delegated above", func(w map[string]*fake) {
			w[a1].set("gslb.example.org. NS", reply{referral: true, ns: []string{"org." + refer + "ns.org."}})
		}, Options{},
			"problem: DNS-A 127.0.20.1 delegates org to ns.org, above gslb.example.org: give a server of the zone that delegates gslb.example.org\n"},
		{"no address", func(w map[string]*fake) {
			r := w[a1].replies["gslb.example.org. NS"]
			r.extra = r.extra[:1]
			w[a1].set("gslb.example.org. NS", r)
		}, Options{},
			"problem: DNS-A 127.0.20.1 delegates gslb.example.org to b2.gslb.example.org without an address: add the A or AAAA record of b2.gslb.example.org. beside the NS record\n" +
				"problem: DNS-B b1.gslb.example.org 127.0.20.3 has other addresses of b2.gslb.example.org (127.0.20.4) than DNS-A (none): write the same in the 'ns' line of dnsb and at DNS-A\n"},
		{"server outside of the zone", func(w map[string]*fake) {
			for _, f := range []*fake{w[a1], w[b1]} {
				r := f.replies["gslb.example.org. NS"]
				r.ns, r.answer, r.extra = slices.Clone(r.ns), slices.Clone(r.answer), r.extra[:0]
				for _, list := range [][]string{r.ns, r.answer} {
					for i := range list {
						list[i] = "gslb.example.org." + refer + "b1.example.org."
					}
				}
				f.set("gslb.example.org. NS", r)
			}
			w[a1].set("b1.example.org. A", reply{answer: []string{"b1.example.org. 60 IN A " + b1}})
		}, Options{}, ""},
		{"short TTL", func(w map[string]*fake) {
			w[a1].set("gslb.example.org. NS", reply{referral: true, ns: []string{"gslb.example.org. 5 IN NS b1.gslb.example.org.", "gslb.example.org. 5 IN NS b2.gslb.example.org."},
				extra: w[a1].replies["gslb.example.org. NS"].extra})
		}, Options{},
			"problem: DNS-A 127.0.20.1 delegates gslb.example.org to b1.gslb.example.org (127.0.20.3), b2.gslb.example.org (127.0.20.4), TTL 5: a TTL below 60 makes resolvers ask DNS-A all the time, use 3600\n"},
		{"servers of DNS-A differ", func(w map[string]*fake) {
			w[a2].set("gslb.example.org. NS", reply{referral: true, ns: []string{"gslb.example.org." + refer + "b1.gslb.example.org."}, extra: []string{"b1.gslb.example.org. 60 IN A " + b1}})
		}, Options{Parents: addrPorts(0, a1, a2)},
			"problem: DNS-A 127.0.20.2 and other servers of DNS-A have different delegations of gslb.example.org: wait for the transfer of the zone, or repair it\n"},
		{"no UDP at a DNS-B", func(w map[string]*fake) { w[b2].silent = "udp" }, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 answers over TCP alone (UDP: no reply within 2s): let UDP port 53 pass to it\n"},
		{"no TCP at a DNS-B", func(w map[string]*fake) { w[b2].silent = "tcp" }, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 answers over UDP alone (TCP: no reply within 2s): let TCP port 53 pass to it, resolvers need it for long answers\n"},
		{"lame DNS-B", func(w map[string]*fake) {
			w[b2].set("gslb.example.org. SOA", reply{referral: true, ns: []string{"." + refer + "a.root-servers.net."}})
		}, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 answers without authority for gslb.example.org: serve the zone gslb.example.org there, or take the server out of the NS records\n"},
		{"DNS-B refuses", func(w map[string]*fake) { w[b2].replies = nil }, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 does not serve gslb.example.org (REFUSED): serve the zone gslb.example.org there, or take the server out of the NS records\n"},
		{"DNS-B fails", func(w map[string]*fake) { w[b2].set("gslb.example.org. SOA", reply{rcode: dns.RcodeServerFailure}) }, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 fails for gslb.example.org (SERVFAIL): its log has the reason\n"},
		{"no SOA at DNS-B", func(w map[string]*fake) { w[b2].set("gslb.example.org. SOA", reply{}) }, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 has no SOA record of gslb.example.org: serve the zone gslb.example.org there, or take the server out of the NS records\n"},
		{"no EDNS", func(w map[string]*fake) { w[b2].noEDNS = true }, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 answers without EDNS: use a server that supports EDNS (RFC 6891), or let its OPT records pass\n"},
		{"EDNS is an error", func(w map[string]*fake) {
			w[b2].set("gslb.example.org. SOA", reply{rcode: dns.RcodeFormatError})
		}, Options{},
			"problem: DNS-B b2.gslb.example.org 127.0.20.4 answers FORMERR to a plain question with EDNS: use a server that supports EDNS (RFC 6891)\n"},
		{"truncated", func(w map[string]*fake) {
			for _, f := range w {
				f.short = true
			}
		}, Options{Name: "www.svc.gslb.example.org"}, ""},
		{"no NS records of one tier", func(w map[string]*fake) {
			for _, addr := range []string{b1, b2} {
				w[addr].set("gslb.example.org. NS", reply{})
				w[addr].set("www.gslb.example.org. A", reply{answer: []string{"www.gslb.example.org. 20 IN A 192.0.2.1"}})
			}
		}, Options{Name: "www.gslb.example.org"}, ""},
		{"server that DNS-A lacks", func(w map[string]*fake) {
			w[b1].set("gslb.example.org. NS", reply{answer: append([]string{"gslb.example.org." + refer + "b3.gslb.example.org."}, w[b1].replies["gslb.example.org. NS"].answer...)})
		}, Options{},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 names the server b3.gslb.example.org, DNS-A does not: add the NS record and the address of b3.gslb.example.org at DNS-A, or remove the 'ns' line of dnsb\n"},
		{"server that DNS-B lacks", func(w map[string]*fake) {
			w[b1].set("gslb.example.org. NS", reply{answer: w[b1].replies["gslb.example.org. NS"].answer[:1]})
		}, Options{},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 does not name the server b2.gslb.example.org, DNS-A does: add an 'ns' line of dnsb, or remove the NS record at DNS-A\n"},
		{"address that DNS-A lacks", func(w map[string]*fake) {
			w[b1].set("b2.gslb.example.org. AAAA", reply{answer: []string{"b2.gslb.example.org. 3600 IN AAAA 2001:db8::2"}})
		}, Options{},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 has other addresses of b2.gslb.example.org (127.0.20.4 2001:db8::2) than DNS-A (127.0.20.4): write the same in the 'ns' line of dnsb and at DNS-A\n"},
		{"no node yet", func(w map[string]*fake) {
			for _, addr := range []string{b1, b2} {
				w[addr].set("www.svc.gslb.example.org. A", reply{referral: true, rcode: dns.RcodeServerFailure})
			}
		}, Options{Name: "www.svc.gslb.example.org"},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 knows no node for www.svc.gslb.example.org yet (SERVFAIL): wait until a node has registered; 'coredns-dnslb nodes' shows the nodes of gslb.example.org, the log of a node why it has not\n" +
				"problem: DNS-B b2.gslb.example.org 127.0.20.4 knows no node for www.svc.gslb.example.org yet (SERVFAIL): wait until a node has registered; 'coredns-dnslb nodes' shows the nodes of gslb.example.org, the log of a node why it has not\n"},
		{"no cut known", func(w map[string]*fake) {
			for _, addr := range []string{b1, b2} {
				w[addr].set("svc.gslb.example.org. SOA", reply{rcode: dns.RcodeNameError})
			}
		}, Options{},
			"not checked: The way to the nodes was not followed, since no cut of gslb.example.org is known: give a name of a service, such as www.svc.gslb.example.org\n"},
		{"cuts that DNS-B explains", func(w map[string]*fake) {
			w[b1].set("_json._explain.gslb.example.org. TXT", reply{answer: []string{explanation("other.gslb.example.org."), explanation("svc.gslb.example.org.")}})
		}, Options{Parents: addrPorts(0, a1)},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 answers REFUSED for other.gslb.example.org: its log has the reason\n" +
				"problem: DNS-B b2.gslb.example.org 127.0.20.4 answers REFUSED for other.gslb.example.org: its log has the reason\n"},
		{"resolver that DNS-B explains", func(w map[string]*fake) {
			for _, addr := range []string{b1, b2} {
				w[addr].set("_json._explain.www.svc.gslb.example.org. TXT", reply{answer: []string{explanation("svc.gslb.example.org.")}})
			}
			w[nyc1] = nil // only par1 is in the explanation
		}, Options{Name: "www.svc.gslb.example.org", From: netip.MustParseAddr("203.0.113.7")}, ""},
		{"resolver that DNS-B does not explain", nil, Options{Name: "www.svc.gslb.example.org", From: netip.MustParseAddr("203.0.113.7")},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 does not tell the referral of 203.0.113.7 (no explanation: the server lacks 'explain' with the address of this machine, does not have the name, or is of an older version): add the address of this machine to 'explain' of dnsb, or run this command at 203.0.113.7\n" +
				"problem: DNS-B b2.gslb.example.org 127.0.20.4 does not tell the referral of 203.0.113.7 (no explanation: the server lacks 'explain' with the address of this machine, does not have the name, or is of an older version): add the address of this machine to 'explain' of dnsb, or run this command at 203.0.113.7\n"},
		{"node without an address", func(w map[string]*fake) {
			for _, addr := range []string{b1, b2} {
				r := w[addr].replies["www.svc.gslb.example.org. A"]
				r.extra = r.extra[:1]
				w[addr].set("www.svc.gslb.example.org. A", r)
			}
		}, Options{Name: "www.svc.gslb.example.org"},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 refers this machine for svc.gslb.example.org to nyc1.lb.gslb.example.org without an address: give the node an address of its own ('node' of dnslb)\n" +
				"problem: DNS-B b2.gslb.example.org 127.0.20.4 refers this machine for svc.gslb.example.org to nyc1.lb.gslb.example.org without an address: give the node an address of its own ('node' of dnslb)\n"},
		{"silent node", func(w map[string]*fake) { w[par1].silent = "both" }, Options{},
			"problem: node par1.lb.gslb.example.org 127.0.20.5 does not answer (no reply within 2s): start it, check its address, and let UDP and TCP port 53 pass to it\n"},
		{"node without TCP", func(w map[string]*fake) { w[par1].silent = "tcp" }, Options{},
			"problem: node par1.lb.gslb.example.org 127.0.20.5 answers over UDP alone (TCP: no reply within 2s): let TCP port 53 pass to it, resolvers need it for long answers\n"},
		{"node without the service", func(w map[string]*fake) {
			w[par1].set("www.svc.gslb.example.org. A", reply{rcode: dns.RcodeNameError})
		}, Options{Name: "www.example.org"},
			"problem: node par1.lb.gslb.example.org 127.0.20.5 does not have the name www.svc.gslb.example.org: add a 'service' line at this node, or correct the name\n"},
		{"lame node", func(w map[string]*fake) { w[par1].replies = nil }, Options{},
			"problem: node par1.lb.gslb.example.org 127.0.20.5 does not serve svc.gslb.example.org (REFUSED): serve the zone svc.gslb.example.org there, or take the server out of the NS records\n"},
		{"DS without keys", func(w map[string]*fake) { w[a1].set("gslb.example.org. DS", reply{answer: []string{digest}}) }, Options{},
			"problem: DNS-B b1.gslb.example.org 127.0.20.3 does not sign gslb.example.org, but DNS-A has a DS record: resolvers that validate fail: remove the DS record, or sign the zone with its key\n" +
				"problem: DNS-B b2.gslb.example.org 127.0.20.4 does not sign gslb.example.org, but DNS-A has a DS record: resolvers that validate fail: remove the DS record, or sign the zone with its key\n"},
		{"servers of DNS-A differ in DS", func(w map[string]*fake) { w[a2].set("gslb.example.org. DS", reply{answer: []string{digest}}) },
			Options{Parents: addrPorts(0, a1, a2)},
			"problem: DNS-A 127.0.20.2 has other DS records of gslb.example.org than another DNS-A: wait for the transfer of the zone, or repair it\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := world()
			if tc.change != nil {
				tc.change(w)
			}
			port := start(t, w)
			options := tc.options
			options.Zone = "gslb.example.org"
			if options.Parents == nil {
				options.Parents = addrPorts(port, a1)
			}
			options.Parents = slices.Clone(options.Parents)
			for i, p := range options.Parents {
				options.Parents[i] = netip.AddrPortFrom(p.Addr(), port)
			}
			checks := walkUntil(t, options, port, func(checks []Check) bool { return lines(checks, port, false) == tc.want })
			if got := lines(checks, port, false); got != tc.want {
				t.Errorf("Expected\n%s, got\n%s, of\n%s", tc.want, got, lines(checks, port, true))
			}
			if len(checks) < 10 && tc.want == "" {
				t.Errorf("Expected checks of all tiers, got\n%s", lines(checks, port, true))
			}
		})
	}
}

const digest = "gslb.example.org. 3600 IN DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000"

// explanation returns a TXT record by which a DNS-B explains the referral of a cut
// to par1.
func explanation(cut string) string {
	return `x. 1 IN TXT "{\"version\":1,\"plugin\":\"dnsb\",\"kind\":\"referral\",\"value\":{\"cut\":\"` + cut +
		`\",\"ns_ttl\":30,\"referral\":[{\"node\":\"par1\",\"name\":\"par1.lb.gslb.example.org.\",\"addresses\":[\"` + par1 + `\"]}]}}"`
}

// zoneKey is a key of gslb.example.org.
func zoneKey(t *testing.T) (*dns.DNSKEY, crypto.Signer) {
	t.Helper()
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "gslb.example.org.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return key, private.(*ecdsa.PrivateKey)
}

func TestChainOfTrust(t *testing.T) {
	key, private := zoneKey(t)
	other, _ := zoneKey(t)
	signed := func(expiration time.Duration) reply {
		sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: 3600}, Algorithm: key.Algorithm, KeyTag: key.KeyTag(), SignerName: "gslb.example.org.",
			Inception: uint32(time.Now().Add(-48 * time.Hour).Unix()), Expiration: uint32(time.Now().Add(expiration).Unix())}
		if err := sig.Sign(private, []dns.RR{key}); err != nil {
			t.Fatal(err)
		}
		return reply{answer: []string{key.String(), sig.String()}}
	}
	ds := func(k *dns.DNSKEY) reply { return reply{answer: []string{k.ToDS(dns.SHA256).String()}} }
	tag := itoa(int(key.KeyTag()))
	for _, tc := range []struct {
		name       string
		ds, dnskey reply
		want       string // after the server
	}{
		{"good", ds(key), signed(time.Hour), "ok signs gslb.example.org with key " + tag + ", of which DNS-A has the DS record"},
		{"one of two keys", reply{answer: []string{ds(other).answer[0], ds(key).answer[0]}}, signed(time.Hour), "ok signs gslb.example.org with key " + tag + ", of which DNS-A has the DS record"},
		{"no DS", reply{}, signed(time.Hour), "problem signs gslb.example.org, but DNS-A has no DS record: no resolver validates: add the DS record at DNS-A, see docs/dnssec.md"},
		{"another key", ds(other), signed(time.Hour), "problem signs gslb.example.org with other keys than those in the DS records at DNS-A: resolvers that validate fail: add the DS record of a key that the server has"},
		{"expired", ds(key), signed(-time.Hour), "problem has no valid signature of its keys of gslb.example.org: resolvers that validate fail: set the clock of the server, or sign the zone again"},
		{"no signature", ds(key), reply{answer: []string{key.String()}}, "problem has no valid signature of its keys of gslb.example.org: resolvers that validate fail: set the clock of the server, or sign the zone again"},
		{"no digest", reply{rcode: dns.RcodeServerFailure}, signed(time.Hour), "problem answers SERVFAIL for the DS records of gslb.example.org: its log has the reason"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := world()
			w[a1].set("gslb.example.org. DS", tc.ds)
			for _, addr := range []string{b1, b2} {
				w[addr].set("gslb.example.org. DNSKEY", tc.dnskey)
			}
			port := start(t, w)
			good := strings.HasPrefix(tc.want, "ok")
			wanted := func(checks []Check) bool {
				return slices.ContainsFunc(checks, func(c Check) bool {
					return strings.TrimSuffix(string(c.Result)+" "+c.Text+": "+c.Remedy, ": ") == tc.want
				}) && (!good || lines(checks, port, false) == "")
			}
			checks := walkUntil(t, Options{Zone: "gslb.example.org", Parents: addrPorts(port, a1)}, port, wanted)
			if !wanted(checks) {
				t.Errorf("Expected %q, got\n%s", tc.want, lines(checks, port, true))
			}
		})
	}
}

func TestResolverFindsDNSA(t *testing.T) {
	w := world()
	const resolver = "127.0.20.9"
	w[resolver] = &fake{recurse: true, replies: map[string]reply{
		"example.org. NS":       {answer: []string{"example.org. 60 IN NS ns1.example.org.", "example.org. 60 IN NS ns2.example.org."}},
		"ns1.example.org. A":    {answer: []string{"ns1.example.org. 60 IN A " + a1}},
		"ns1.example.org. AAAA": {},
		"ns2.example.org. A":    {},
		"ns2.example.org. AAAA": {},
	}}
	port := start(t, w)
	const want = "problem: ns2.example.org, a server of example.org, has no address: add one, or remove the server from the NS records of example.org\n"
	options := Options{Zone: "gslb.example.org", Resolvers: addrPorts(port, "127.0.20.8", resolver)}
	checks := walkUntil(t, options, port, func(checks []Check) bool { return lines(checks, port, false) == want })
	if got := lines(checks, port, false); got != want || len(checks) < 11 {
		t.Errorf("Expected %s, got\n%s", want, lines(checks, port, true))
	}
	for _, tc := range []struct {
		resolvers []netip.AddrPort
		want      string
	}{
		{nil, "problem: This system has no resolver: give a server of DNS-A, such as @192.0.2.1\n"},
		{addrPorts(port, "127.0.20.8"), "problem: The resolver of this system does not find the servers of the zone above gslb.example.org (nothing listens at its port): give a server of DNS-A, such as @192.0.2.1\n"},
		{addrPorts(port, b1), "problem: The resolver of this system does not find the servers of the zone above gslb.example.org (it answers REFUSED): give a server of DNS-A, such as @192.0.2.1\n"},
	} {
		options := Options{Zone: "gslb.example.org", Resolvers: tc.resolvers}
		checks := walkUntil(t, options, port, func(checks []Check) bool { return lines(checks, port, true) == tc.want })
		if got := lines(checks, port, true); got != tc.want {
			t.Errorf("Expected\n%s, got\n%s", tc.want, got)
		}
	}
}

// TestNoRoute is about addresses that this machine cannot reach, such as those of
// IPv6 on many machines.
func TestNoRoute(t *testing.T) {
	if err := plain(t.Context(), fmt.Errorf("dial: %w", syscall.ENETUNREACH)); !errors.Is(err, errNoRoute) {
		t.Errorf("Expected an address without a route, got %v", err)
	}
	servers := []server{{"DNS-B", "b1.", addrPorts(53, b1)[0]}, {"DNS-B", "b1.", addrPorts(53, "2001:db8::1")[0]}}
	noRoute := func(s server) Check { return s.check(Unchecked, "was not asked", errNoRoute.Error()) }
	w := new(walk)
	if good := w.good(servers, []Check{servers[0].check(OK, "answers", ""), noRoute(servers[1])}); len(good) != 1 || len(w.checks) != 2 {
		t.Errorf("Expected one good server and no problem, got %v", w.checks)
	}
	w = new(walk)
	if good := w.good(servers, []Check{noRoute(servers[0]), noRoute(servers[1])}); len(good) != 0 || w.checks[2].Result != Problem {
		t.Errorf("Expected a problem if no server can be asked, got %v", w.checks)
	}
}

// TestManyServersAreBounded has a delegation to more addresses than are asked.
func TestManyServersAreBounded(t *testing.T) {
	w := world()
	many := reply{referral: true, ns: []string{"gslb.example.org. 3600 IN NS b1.gslb.example.org."}}
	for i := range 40 {
		many.extra = append(many.extra, fmt.Sprintf("b1.gslb.example.org. 3600 IN A 127.0.21.%d", i+1))
	}
	w[a1].set("gslb.example.org. NS", many)
	port := start(t, w)
	asked, unchecked := 0, 0
	checks := walkUntil(t, Options{Zone: "gslb.example.org", Parents: addrPorts(port, a1)}, port, func(checks []Check) bool { return len(checks) > maxServers })
	for _, c := range checks {
		if c.Role == "DNS-B" {
			asked++
		}
		if c.Result == Unchecked {
			unchecked++
		}
	}
	if asked != maxServers || unchecked != 1 {
		t.Errorf("Expected %d servers and a word about the others, got %d, %d", maxServers, asked, unchecked)
	}
}

// TestSilenceIsBounded asks many DNS-Bs for an explanation that do not answer: when the
// time of all checks is over, no further one is asked.
func TestSilenceIsBounded(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	silent := slices.Repeat([]server{{"DNS-B", "b1.", netip.MustParseAddrPort(conn.LocalAddr().String())}}, maxServers)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	w := &walk{Options: Options{Zone: "gslb.example.org."}}
	if cuts := w.cuts(ctx, silent); len(cuts) > 0 {
		t.Errorf("Expected no cuts, got %q", cuts)
	}
	if _, err := w.explain(ctx, silent[0], w.Zone); !errors.Is(err, errTime) {
		t.Errorf("Expected error %q, got %v", errTime, err)
	}
	questions := 0
	for b := make([]byte, 512); err == nil; questions++ {
		if err = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err == nil {
			_, _, err = conn.ReadFrom(b)
		}
	}
	if questions--; questions > 1 {
		t.Errorf("Expected one question at most, got %d", questions)
	}
}
