package operator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
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

// Explanation is what a server says, as JSON. A server that says nothing has an error.
type Explanation struct {
	Server  string   `json:"server"`
	Node    string   `json:"node,omitempty"`
	Name    string   `json:"name"` // that was explained
	Lines   []string `json:"lines"`
	Problem string   `json:"error,omitempty"`
}

// Explain asks a server to explain a name for an address; without a valid one, for
// the address that asks.
func Explain(s Server, name string, address netip.Addr) Explanation {
	e := Explanation{Server: s.Address.String(), Node: s.Name, Name: name, Lines: []string{}}
	lines, err := texts(s, name, address)
	if err != nil {
		e.Problem = err.Error()
		return e
	}
	e.Lines = append(e.Lines, lines...)
	return e
}

// errUnexplained says that a server has answered as if it did not know explanations.
var errUnexplained = errors.New("no explanation: the server lacks 'explain' with the address of this machine, or does not have the name")

func texts(s Server, name string, address netip.Addr) ([]string, error) {
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
	r, err := exchange(s, m)
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("the server answered %s", dnsmsg.RcodeText(r.Rcode))
	}
	var lines []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			lines = append(lines, inputfile.Printable(strings.ToValidUTF8(dnsmsg.Text(txt), "?")))
		}
	}
	if len(lines) == 0 {
		return nil, errUnexplained
	}
	return lines, nil
}

// exchange asks over UDP, and again over TCP if the answer is truncated.
func exchange(s Server, m *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Timeout: timeout, UDPSize: 1232}
	r, _, err := client.Exchange(m, s.Address.String())
	if err == nil && r.Truncated {
		client.Net = "tcp"
		r, _, err = client.Exchange(m, s.Address.String())
	}
	return r, err
}

// Nodes asks a DNS-B for the nodes of its zone and their first addresses, which have
// the port of the DNS-B.
func Nodes(dnsb Server, zone string) ([]Server, error) {
	lines, err := texts(dnsb, "nodes."+explain.Label+"."+dns.Fqdn(zone), netip.Addr{})
	if err != nil {
		return nil, err
	}
	var nodes []Server
	for _, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		if _, valid := dns.IsDomainName(name); !valid {
			continue
		}
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			m := new(dns.Msg).SetQuestion(registration.NodeName(name, dns.Fqdn(zone)), qtype)
			m.RecursionDesired = false
			r, err := exchange(dnsb, m)
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(r.Answer, func(rr dns.RR) bool { _, ok := dnsmsg.Address(rr); return ok })
			if i < 0 {
				continue
			}
			addr, _ := dnsmsg.Address(r.Answer[i])
			nodes = append(nodes, Server{name, netip.AddrPortFrom(addr, dnsb.Address.Port())})
			break
		}
	}
	return nodes, nil
}

// ZoneOf asks a DNS-B in which of its zones a name is.
func ZoneOf(dnsb Server, name string) (string, error) {
	for parent := dns.Fqdn(name); parent != "."; parent = dnsmsg.Parent(parent) {
		m := new(dns.Msg).SetQuestion(parent, dns.TypeSOA)
		m.RecursionDesired = false
		r, err := exchange(dnsb, m)
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
