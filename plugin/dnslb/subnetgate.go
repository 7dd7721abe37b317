package dnslb

import (
	"context"
	"crypto/tls"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// subnetGate is the first handler of the chain, and sees queries as they came: package
// dns fills in what a malformed client subnet lacks, and plugins change options.
//
// With 'client-subnets' it gives each answer the client subnet of its query (RFC 7871,
// section 7.2.1), whichever plugin makes the answer: resolvers take one without the
// option for the answer to all clients.
type subnetGate struct {
	next plugin.Handler
	echo bool // 'client-subnets'
}

var _ plugin.Handler = (*subnetGate)(nil)

func (d *DNSLB) subnetGate(next plugin.Handler) plugin.Handler {
	return &subnetGate{next, d.clientSubnets}
}

// ServeDNS implements the plugin.Handler interface.
func (g *subnetGate) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	subnet := dnsmsg.Subnet(r)
	switch {
	case subnet == nil:
		return g.next.ServeDNS(ctx, w, r)
	case dnsmsg.MalformedSubnet(r):
		dnsmsg.NormalizeEDNS(r)
		return dns.RcodeFormatError, nil
	case !g.echo:
		return g.next.ServeDNS(ctx, w, r)
	}
	sw := &subnetWriter{w, *subnet} // a copy, since plugins change the request
	rcode, err := g.next.ServeDNS(ctx, sw, r)
	if plugin.ClientWrite(rcode) {
		return rcode, err
	}
	// CoreDNS would answer without the option.
	_ = sw.WriteMsg(new(dns.Msg).SetRcode(r, rcode)) // as CoreDNS, which has nobody to tell either
	return dns.RcodeSuccess, err
}

// Name implements the plugin.Handler interface.
func (g *subnetGate) Name() string { return subnetGateName }

const subnetGateName = pluginName + "_subnet"

// subnetWriter gives each answer a client subnet.
type subnetWriter struct {
	dns.ResponseWriter
	subnet dns.EDNS0_SUBNET
}

var _ dns.ConnectionStater = (*subnetWriter)(nil)

// WriteMsg implements the dns.ResponseWriter interface.
func (w *subnetWriter) WriteMsg(m *dns.Msg) error {
	dnsmsg.EchoSubnet(m, &w.subnet)
	return w.ResponseWriter.WriteMsg(m)
}

// ConnectionState implements the dns.ConnectionStater interface.
func (w *subnetWriter) ConnectionState() *tls.ConnectionState {
	if stater, ok := w.ResponseWriter.(dns.ConnectionStater); ok {
		return stater.ConnectionState()
	}
	return nil
}
