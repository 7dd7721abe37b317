//go:build linux

package main

import (
	"context"
	"log"
	"net"
	"net/netip"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind" // a word of its Corefile

	"github.com/miekg/dns"
)

// constantPeer returns this program as a CoreDNS with a plugin that answers a constant:
// an address, or a referral to a name with one.
func constantPeer(kind string) *peer {
	return &peer{
		name:   "CoreDNS constant " + kind,
		reload: reloadBySignal,
		right:  func(int, int) []byte { return loopback4 },
		command: func(_ *workload, dir string, at netip.AddrPort) []string {
			return []string{os.Args[0], "-constant", write(dir, "Corefile", func(line func(string, ...any)) {
				line("%s:%d {\nbind %s\nconstant %s\n}", zone, at.Port(), at.Addr(), kind)
			})}
		},
	}
}

// serveConstant runs a server with a plugin that answers a constant.
func serveConstant(corefile string) {
	plugin.Register("constant", func(c *caddy.Controller) error {
		c.NextArg()
		c.NextArg()
		h := constant(c.Val() == "referral")
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return h })
		return nil
	})
	dnsserver.Directives = append([]string{"constant"}, dnsserver.Directives...)
	dnsserver.Quiet, caddy.Quiet = true, true
	caddy.RegisterCaddyfileLoader("peers", caddy.LoaderFunc(func(serverType string) (caddy.Input, error) {
		text, err := os.ReadFile(corefile)
		return caddy.CaddyfileInput{Contents: text, Filepath: corefile, ServerTypeName: serverType}, err
	}))
	caddy.TrapSignals()
	input, err := caddy.LoadCaddyfile("dns")
	if err != nil {
		log.Fatal(err)
	}
	instance, err := caddy.Start(input)
	if err != nil {
		log.Fatal(err)
	}
	instance.Wait()
}

// constant answers with one address, or refers to a name with one.
type constant bool

func (constant) Name() string { return "constant" }

var loopback4 = []byte{127, 0, 0, 1}

func (referral constant) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	name := r.Question[0].Name
	header := func(name string, rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 60}
	}
	addr := func(name string) dns.RR { return &dns.A{Hdr: header(name, dns.TypeA), A: loopback4} }
	switch {
	case bool(referral):
		target := "n1.lb." + zone + "."
		m.Ns = []dns.RR{&dns.NS{Hdr: header(cut+".", dns.TypeNS), Ns: target}}
		m.Extra = []dns.RR{addr(target)}
		return dns.RcodeSuccess, w.WriteMsg(m)
	case r.Question[0].Qtype == dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: net.IP(loopback4).To16()}}
	case r.Question[0].Qtype == dns.TypeHTTPS:
		m.Answer = []dns.RR{&dns.HTTPS{SVCB: dns.SVCB{Hdr: header(name, dns.TypeHTTPS), Priority: 1, Target: ".", Value: []dns.SVCBKeyValue{
			&dns.SVCBAlpn{Alpn: []string{"h2"}}, &dns.SVCBIPv4Hint{Hint: []net.IP{loopback4}},
		}}}}
	default:
		m.Answer = []dns.RR{addr(name)}
	}
	m.Authoritative = true
	return dns.RcodeSuccess, w.WriteMsg(m)
}
