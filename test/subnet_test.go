package test

import (
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec/nsectest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
)

// TestClientSubnets starts the example with 'client-subnets' instead of deputies. Each
// node answers for the subnets near to the other one by the measurements of that, and
// each answer has the option, whichever plugin makes it, over UDP, TCP and TLS. The
// rest is as in the example: subnets near to par1 get fra, those near to nyc1 iad.
func TestClientSubnets(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("Expected dig to be installed")
		}
		t.Skip("dig is not installed")
	}
	key, _ := nsectest.KeyFiles(t, cut, 257)
	cert, certKey, _ := testcert.Loopback(t)
	e := newExample(t)
	e.addNear()
	e.replace("near     127.0.1.0/24\n", "near     127.0.1.0/24 198.51.100.0/24 2001:db8:1::/48\n client-subnets\n")
	e.replace("near     127.0.2.0/24\n", "near     127.0.2.0/24 203.0.113.0/24\n client-subnets\n")
	e.replace("        deputy   par1\n", "")
	e.replace("        deputy   nyc1                       # answers in place of par1, by the measurements of par1\n", "")
	e.replace("svc.gslb.example.org:1053 {\n    bind 127.0.0.3\n", "svc.gslb.example.org:1053 {\n    bind 127.0.0.3\n    dnssec {\n key file "+key+"\n}\n")
	e.replace("svc.gslb.example.org:1053 {\n    bind 127.0.0.4\n", "svc.gslb.example.org:1053 tls://svc.gslb.example.org:1853 {\n    bind 127.0.0.4\n    tls "+cert+" "+certKey+"\n")
	s := start(t, "-conf", e.path)

	const parResolver, nycResolver, par, nyc, fra, iad = "127.0.1.10", "127.0.2.10", "127.0.0.3", "127.0.0.4", "127.0.0.11", "127.0.0.12"
	// asked returns what dig shows.
	asked := func(from, to, subnet string, args ...string) string {
		args = append([]string{"-b", from, "@" + to, "-p", "1053", "+subnet=" + subnet, "+tries=1"}, args...)
		out, err := exec.Command(dig, args...).CombinedOutput() // #nosec G204 -- a test
		if err != nil {
			t.Logf("dig %v: %v", args, err)
		}
		return string(out)
	}
	const address = "www.svc.gslb.example.org."
	t.Logf("Views of both nodes after %s", wait(t, 75*time.Second, "each node to answer by the measurements of the other", func() bool {
		out := s.out.String() // before this both answer in configured order
		return strings.Contains(out, `Started following the view of node "par1" as node "nyc1"`) && strings.Contains(out, `Started following the view of node "nyc1" as node "par1"`) &&
			strings.Contains(asked(nycResolver, nyc, "198.51.100.0/24", address, "A"), fra) && strings.Contains(asked(parResolver, par, "203.0.113.0/24", address, "A"), iad)
	}))
	if strings.Contains(s.out.String(), "deputy") {
		t.Error("Expected no deputies")
	}

	for _, tc := range []struct {
		name, from, to, subnet string
		args                   []string
		want                   []string // of what dig shows
	}{
		{"near to another node", nycResolver, nyc, "198.51.100.0/24", []string{address, "A"}, []string{"status: NOERROR", "CLIENT-SUBNET: 198.51.100.0/24/24", " 20\tIN\tA\t" + fra}},
		{"a host near to another node", nycResolver, nyc, "198.51.100.7/32", []string{address, "A"}, []string{"CLIENT-SUBNET: 198.51.100.7/32/24", fra}},
		{"near to this node", parResolver, nyc, "203.0.113.0/24", []string{address, "A"}, []string{"CLIENT-SUBNET: 203.0.113.0/24/24", iad}},
		{"shorter than the block", nycResolver, nyc, "198.51.0.0/16", []string{address, "A"}, []string{"CLIENT-SUBNET: 198.51.0.0/16/18", iad, " 5\tIN\tA\t"}},
		{"by default", parResolver, nyc, "20.0.0.0/24", []string{address, "A"}, []string{"CLIENT-SUBNET: 20.0.0.0/24/4", iad}},
		{"IPv6", nycResolver, nyc, "2001:db8:1::/56", []string{address, "A"}, []string{"CLIENT-SUBNET: 2001:db8:1::/56/48", fra}},
		{"over TCP", nycResolver, nyc, "198.51.100.0/24", []string{"+tcp", address, "A"}, []string{"CLIENT-SUBNET: 198.51.100.0/24/24", fra, "(TCP)"}},
		{"private", parResolver, nyc, "10.0.0.0/24", []string{address, "A"}, []string{"CLIENT-SUBNET: 10.0.0.0/24/8", fra, " 5\tIN\tA\t"}},
		{"length 0", parResolver, nyc, "0", []string{address, "A"}, []string{"CLIENT-SUBNET: 0.0.0.0/0/0", fra}},
		{"NXDOMAIN", nycResolver, nyc, "198.51.100.0/24", []string{"none." + cut, "A"}, []string{"status: NXDOMAIN", "CLIENT-SUBNET: 198.51.100.0/24/0"}},
		{"NODATA", nycResolver, nyc, "198.51.100.0/24", []string{address, "AAAA"}, []string{"status: NOERROR", "ANSWER: 0", "CLIENT-SUBNET: 198.51.100.0/24/0"}},
		{"SOA", nycResolver, nyc, "198.51.100.0/24", []string{cut, "SOA"}, []string{"ANSWER: 1", "CLIENT-SUBNET: 198.51.100.0/24/0"}},
		{"NS", nycResolver, nyc, "198.51.100.0/24", []string{cut, "NS"}, []string{"ANSWER: 1", "CLIENT-SUBNET: 198.51.100.0/24/0"}},
		{"a refused transfer", nycResolver, nyc, "198.51.100.0/24", []string{"par1._view." + cut, "SOA"}, []string{"status: REFUSED", "CLIENT-SUBNET: 198.51.100.0/24/0"}},
		{"class CH", nycResolver, nyc, "198.51.100.0/24", []string{"-c", "CH", cut, "TXT"}, []string{"status: REFUSED"}},
		{"signed", parResolver, par, "203.0.113.0/24", []string{"+dnssec", address, "A"}, []string{"CLIENT-SUBNET: 203.0.113.0/24/24", iad, "RRSIG\tA "}},
		{"DNSKEY", parResolver, par, "203.0.113.0/24", []string{cut, "DNSKEY"}, []string{"DNSKEY\t257", "CLIENT-SUBNET: 203.0.113.0/24/0"}},
		{"signed NXDOMAIN", parResolver, par, "203.0.113.0/24", []string{"+dnssec", "none." + cut, "A"}, []string{"NSEC", "CLIENT-SUBNET: 203.0.113.0/24/0"}},
		{"explanation", nycResolver, nyc, "198.51.100.0/24", []string{"+tcp", "_explain." + address, "TXT"}, []string{
			"A for client subnet 198.51.100.0/24 at resolver 127.0.2.10: " + fra, "answered by the client subnet, with scope 24: its node is par1, by layer registration", "measured by par1, in its view of ",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := asked(tc.from, tc.to, tc.subnet, tc.args...)
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("Expected %q, got\n%s", want, out)
				}
			}
		})
	}

	t.Run("over TLS", func(t *testing.T) {
		m := new(dns.Msg).SetQuestion(address, dns.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{198, 51, 100, 0}}}
		client := dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{InsecureSkipVerify: true}} // #nosec G402 -- of this test
		r, _, err := client.Exchange(m, nyc+":1853")
		if err != nil || !strings.Contains(r.String(), "SUBNET: 198.51.100.0/24/24") || !strings.Contains(r.String(), fra) {
			t.Errorf("Expected fra for the subnet, got %v, %v", r, err)
		}
	})

	for _, w := range []subnetWay{
		{name: "octets over UDP", network: "udp", address: nyc + ":1053"}, {name: "octets over UDP with dnssec", network: "udp", address: par + ":1053"},
		{name: "octets over TCP", network: "tcp", address: nyc + ":1053"}, {name: "octets over TLS", network: "tcp-tls", address: nyc + ":1853"},
	} {
		w.echoes = true
		t.Run(w.name, w.check)
	}

	// A resolver that sends no subnet is answered by its address, and gets no option.
	if got := answerTo(t, parResolver, par); got != fra {
		t.Errorf("Expected fra for a resolver near to par1, got %q", got)
	}
	if r := ask(t, parResolver, "127.0.0.2", www, dns.TypeA); r.IsEdns0() != nil {
		t.Errorf("Expected a referral without an option, got %v", r)
	}

	// A reload loses neither the views nor the maps, and the subnets near to a node that
	// stops are answered by its last view, in the same blocks.
	e.remove("# ---- 3.", "# ---- 4.")
	wait(t, 15*time.Second, "par1 to withdraw", func() bool { return strings.Contains(s.out.String(), `Withdrew node "par1"`) })
	for range 10 {
		if out := asked(nycResolver, nyc, "198.51.100.0/24", address, "A"); !strings.Contains(out, "CLIENT-SUBNET: 198.51.100.0/24/24") || !strings.Contains(out, fra) {
			t.Fatalf("Expected fra for the subnet after the withdrawal of par1, got\n%s", out)
		}
		time.Sleep(500 * time.Millisecond)
	}
	for name, value := range scrape(t, metricsURL) {
		if strings.HasPrefix(name, "coredns_dnslb_queries_total") && strings.Contains(name, `node="nyc1"`) && strings.Contains(name, `place="subnet"`) && value > 10 {
			return
		}
	}
	t.Error("Expected queries that are counted as of subnets")
}
