package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// timeout is how long a server may take to answer one question.
const timeout = 3 * time.Second

// Server is a server to ask.
type Server struct {
	Name    string // of the node; "" if it was given by its address
	Address netip.AddrPort
}

// String returns the name, if there is one, and the address.
func (s Server) String() string {
	if s.Name == "" {
		return s.Address.String()
	}
	return s.Name + " " + s.Address.String()
}

// ParseServer parses ADDRESS or ADDRESS:PORT, of port 53 by default.
func ParseServer(text string) (Server, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return Server{Address: netip.AddrPortFrom(addr, 53)}, nil
	}
	address, err := netip.ParseAddrPort(text)
	if err != nil {
		return Server{}, fmt.Errorf("invalid server '@%s': expected @ADDRESS or @ADDRESS:PORT, such as @192.0.2.53", text)
	}
	return Server{Address: address}, nil
}

// Answer is what a server says, as JSON. A server that says nothing has an error.
type Answer struct {
	Server  string           `json:"server"`
	Node    string           `json:"node,omitempty"`
	Name    string           `json:"name"`    // for which it was asked
	Objects []explain.Object `json:"objects"` // as fields; none if lines were asked for
	Lines   []string         `json:"-"`       // the same as text
	Problem string           `json:"error,omitempty"`
}

// Ask asks a server to explain a name for an address; without a valid one, for the
// address that asks. It asks for objects or for lines, until ctx ends.
func Ask(ctx context.Context, s Server, name string, address netip.Addr, objects bool) Answer {
	a := Answer{Server: s.Address.String(), Node: s.Name, Name: name, Objects: []explain.Object{}}
	var err error
	if objects {
		a.Objects, err = askObjects(ctx, s, name, address)
	} else {
		a.Lines, err = texts(ctx, s, name, address)
		for i, line := range a.Lines {
			a.Lines[i] = inputfile.Printable(strings.ToValidUTF8(line, "?"))
		}
	}
	if err != nil {
		a.Problem = err.Error()
	}
	return a
}

// maxMessages bounds the messages that a list of objects takes. 10,000 nodes take
// some 100.
const maxMessages = 1000

// askObjects asks for all objects, one message after the other.
func askObjects(ctx context.Context, s Server, name string, address netip.Addr) ([]explain.Object, error) {
	all := []explain.Object{}
	for first, messages := 0, 0; messages == 0 || first > 0; messages++ {
		if messages == maxMessages {
			return all, fmt.Errorf("more than %d messages", maxMessages)
		}
		lines, err := texts(ctx, s, explain.JSONName(name, first), address)
		if err != nil {
			return all, err
		}
		objects, next, err := explain.ParseObjects(lines)
		if err != nil {
			return all, err
		}
		if next > 0 && next <= first {
			return all, fmt.Errorf("object %d follows object %d", next, first)
		}
		all, first = append(all, objects...), next
	}
	return all, nil
}

// errUnexplained says that a server has answered as if it did not know explanations.
var errUnexplained = errors.New("no explanation: the server lacks 'explain' with the address of this machine, does not have the name, or is of an older version")

func texts(ctx context.Context, s Server, name string, address netip.Addr) ([]string, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	if address.IsValid() {
		subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: net.IP(address.AsSlice())}
		if address.Is6() {
			subnet.Family, subnet.SourceNetmask = 2, 128
		}
		m.IsEdns0().Option = append(m.IsEdns0().Option, subnet)
	}
	r, err := exchange(ctx, s, m)
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("the server answered %s", dnsmsg.RcodeText(r.Rcode))
	}
	var lines []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			lines = append(lines, dnsmsg.Text(txt))
		}
	}
	if len(lines) == 0 {
		return nil, errUnexplained
	}
	return lines, nil
}

// exchange asks over UDP, and again over TCP if the answer is truncated.
func exchange(ctx context.Context, s Server, m *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Timeout: timeout, UDPSize: 1232}
	r, _, err := client.ExchangeContext(ctx, m, s.Address.String())
	if err == nil && r.Truncated {
		client.Net = "tcp"
		r, _, err = client.ExchangeContext(ctx, m, s.Address.String())
	}
	return r, err
}

// Nodes asks a DNS-B for the nodes of its zone and their first addresses, which have
// the port of the DNS-B.
func Nodes(ctx context.Context, dnsb Server, zone string) ([]Server, error) {
	objects, err := askObjects(ctx, dnsb, "nodes."+explain.Label+"."+dns.Fqdn(zone), netip.Addr{})
	if err != nil {
		return nil, err
	}
	var nodes []Server
	for _, o := range objects {
		var n struct {
			Node      string       `json:"node"`
			Addresses []netip.Addr `json:"addresses"`
		}
		if o.Kind == "node" && json.Unmarshal(o.Value, &n) == nil && len(n.Addresses) > 0 {
			nodes = append(nodes, Server{inputfile.Printable(n.Node), netip.AddrPortFrom(n.Addresses[0], dnsb.Address.Port())})
		}
	}
	return nodes, nil
}

// ZoneOf asks a DNS-B in which of its zones a name is.
func ZoneOf(ctx context.Context, dnsb Server, name string) (string, error) {
	for parent := dns.Fqdn(name); parent != "."; parent = dnsmsg.Parent(parent) {
		m := new(dns.Msg).SetQuestion(parent, dns.TypeSOA)
		m.RecursionDesired = false
		r, err := exchange(ctx, dnsb, m)
		if err != nil {
			return "", err
		}
		for _, rr := range append(r.Answer, r.Ns...) {
			if soa, ok := rr.(*dns.SOA); ok && r.Authoritative {
				return strings.ToLower(soa.Hdr.Name), nil
			}
		}
	}
	return "", fmt.Errorf("the server is not authoritative for a zone with %s", name)
}
