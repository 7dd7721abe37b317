package test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
)

// TestOctetsOfClientSubnets sends client subnets to both tiers, octet by octet, over
// several transports, with the fast path and without. A malformed one is answered
// FORMERR with an OPT record, a valid one comes back from a DNS-LB as it was (RFC
// 7871, sections 6 and 7.2.1).
func TestOctetsOfClientSubnets(t *testing.T) {
	cert, key, _ := testcert.Loopback(t)
	var corefile strings.Builder
	var ways []subnetWay
	for _, tier := range []struct{ name, zone, block string }{
		{"DNS-B", "gslb.example.org.", "dnsb {\n ns b1 192.0.2.1\n node par1 192.0.2.53\n cut svc par1\n default par1\n"},
		{"DNS-LB", "svc.gslb.example.org.", "latencyprobe {\n rtt tcp 80\n }\n dnslb {\n server fra 127.0.0.1\n service www.svc.gslb.example.org fra\n node par1 192.0.2.53\n"},
	} {
		plain, secure, web, off := freePort(t), freePort(t), freePort(t), freePort(t)
		fmt.Fprintf(&corefile, "%[1]s:%[2]s tls://%[1]s:%[3]s https://%[1]s:%[4]s {\n bind 127.0.0.1\n tls %[5]s %[6]s\n %[7]s }\n}\n", tier.zone, plain, secure, web, cert, key, tier.block)
		fmt.Fprintf(&corefile, "%s:%s {\n bind 127.0.0.1\n %s fast-path off\n }\n}\n", tier.zone, off, tier.block)
		for _, w := range []subnetWay{
			{name: "UDP", network: "udp", address: plain}, {name: "UDP without the fast path", network: "udp", address: off},
			{name: "TCP", network: "tcp", address: plain}, {name: "TLS", network: "tcp-tls", address: secure}, {name: "HTTPS", network: "https", address: web},
		} {
			w.name, w.address, w.echoes = tier.name+" over "+w.name, "127.0.0.1:"+w.address, tier.name == "DNS-LB"
			ways = append(ways, w)
		}
	}
	path := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(path, []byte(corefile.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "-conf", path)
	for _, w := range ways {
		t.Run(w.name, w.check)
	}
}

// What the data of a client subnet are.
const (
	valid      = iota
	malformed  // and package dns can read them
	unreadable // package dns cannot read them
)

var subnetOctets = []struct {
	name string
	data []byte
	is   int
}{
	{"none", nil, valid},
	{"IPv4", []byte{0, 1, 24, 0, 198, 51, 100}, valid},
	{"IPv4, 17 bits", []byte{0, 1, 17, 0, 198, 51, 128}, valid},
	{"IPv4, a host", []byte{0, 1, 32, 0, 198, 51, 100, 7}, valid},
	{"IPv4, length 0", []byte{0, 1, 0, 0}, valid},
	{"IPv6", []byte{0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 1}, valid},
	{"IPv6, a host with an address of IPv4", []byte{0, 2, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}, valid},
	{"family 0", []byte{0, 0, 0, 0}, valid},
	{"IPv4, an octet too few", []byte{0, 1, 24, 0, 198, 51}, malformed},
	{"IPv4, no address", []byte{0, 1, 24, 0}, malformed},
	{"IPv4, an octet too many", []byte{0, 1, 24, 0, 198, 51, 100, 0}, malformed},
	{"IPv4, length 0 with an octet", []byte{0, 1, 0, 0, 0}, malformed},
	{"IPv4, as long as IPv6", append([]byte{0, 1, 32, 0, 198, 51, 100, 7}, make([]byte, 12)...), malformed},
	{"IPv6, an octet too few", []byte{0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0}, malformed},
	{"IPv6, an octet too many", []byte{0, 2, 56, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 1, 0}, malformed},
	{"family 0 with an octet", []byte{0, 0, 0, 0, 0}, malformed},
	{"bits beyond the length", []byte{0, 1, 20, 0, 198, 51, 101}, malformed},
	{"a scope", []byte{0, 1, 24, 24, 198, 51, 100}, malformed},
	{"another family", []byte{0, 3, 24, 0, 198, 51, 100}, unreadable},
	{"33 bits of IPv4", []byte{0, 1, 33, 0, 198, 51, 100, 0, 0}, unreadable},
	{"129 bits of IPv6", append([]byte{0, 2, 129, 0}, make([]byte, 17)...), unreadable},
	{"family 0 with a length", []byte{0, 0, 24, 0, 198, 51, 100}, unreadable},
	{"three octets", []byte{0, 1, 24}, unreadable},
	{"no octets", []byte{}, unreadable},
}

// subnetWay is one way to ask a tier.
type subnetWay struct {
	name, network, address string
	echoes                 bool
}

// check sends all client subnets.
func (w subnetWay) check(t *testing.T) {
	for _, tc := range subnetOctets {
		query := w.query(t, tc.data)
		got, err := w.exchange(query)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if want := w.wanted(tc.data, tc.is); describeReply(query, got) != want {
			t.Errorf("%s: Expected %q, got %q: %x", tc.name, want, describeReply(query, got), got)
		}
	}
}

// query returns a query that takes no answer of the fast path, with a client subnet
// unless data is nil.
func (w subnetWay) query(t *testing.T, data []byte) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("wWw.svc.gslb.example.org.", dns.TypeA)
	m.SetEdns0(4096, true)
	if m.IsEdns0().Option = []dns.EDNS0{cookie}; data != nil {
		m.IsEdns0().Option = []dns.EDNS0{cookie, subnetData(data...)}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wanted returns what describeReply is to say.
func (w subnetWay) wanted(data []byte, is int) string {
	const opt = " with OPT 1232 do"
	switch {
	case is == malformed || is == unreadable && w.network == "udp":
		return "FORMERR" + opt
	case is == unreadable && w.network == "https":
		return "no message"
	case is == unreadable:
		return "FORMERR"
	case !w.echoes || data == nil:
		return "NOERROR" + opt
	}
	return "NOERROR" + opt + fmt.Sprintf(" 0008%04x%x", len(data), data)
}

// describeReply tells the RCODE of a reply and, in hexadecimal, the options in it, a
// client subnet without its scope.
func describeReply(query, reply []byte) string {
	if len(reply) < 12 {
		return "no message"
	}
	end := 12 + len(packName("www.svc.gslb.example.org.")) + 4
	r := new(dns.Msg)
	if err := r.Unpack(reply); err != nil {
		return err.Error()
	}
	text := dns.RcodeToString[r.Rcode]
	if !bytes.Equal(reply[:2], query[:2]) || reply[2]&0xf9 != 0x80|query[2]&0xf9 || !bytes.Equal(reply[12:end], query[12:end]) {
		text = "another query: " + text
	}
	if opt := r.IsEdns0(); opt != nil {
		text += fmt.Sprintf(" with OPT %d", opt.UDPSize())
		if opt.Do() {
			text += " do"
		}
		if n := int(opt.Hdr.Rdlength); n > 0 { // the record is the last one
			options := bytes.Clone(reply[len(reply)-n:])
			if len(options) > 7 {
				options[7] = 0
			}
			text += fmt.Sprintf(" %x", options)
		}
	}
	return text
}

// exchange sends a query and returns the reply, none if that is no DNS message.
func (w subnetWay) exchange(query []byte) ([]byte, error) {
	const limit = 10 * time.Second
	config := &tls.Config{InsecureSkipVerify: true} // #nosec G402 -- of this test
	if w.network == "https" {
		client := &http.Client{Timeout: limit, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		r, err := client.Post("https://"+w.address+"/dns-query", "application/dns-message", bytes.NewReader(query))
		if err != nil {
			return nil, err
		}
		defer r.Body.Close()
		if r.StatusCode == http.StatusBadRequest {
			return nil, nil
		}
		return io.ReadAll(r.Body)
	}
	conn, err := (&dns.Client{Net: w.network, Timeout: limit, TLSConfig: config, UDPSize: dns.MaxMsgSize}).Dial(w.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	return conn.ReadMsgHeader(nil)
}
