//go:build unix

package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// surveyCorefile is a DNS-B and three nodes that name no resolvers.
const surveyCorefile = `gslb.example.org:%[1]s {
	bind 127.0.0.1
	tsig {
		secret par1.key.example.org. cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
		secret nyc1.key.example.org. bnljMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
		secret lon1.key.example.org. bG9uMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
		secret probe.key.example.org. cHJvYmUtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=
	}
	dnsb {
		ns b1 127.0.0.1
		accept par1.key.example.org par1 any for svc.gslb.example.org survey
		accept nyc1.key.example.org nyc1 any for svc.gslb.example.org survey
		accept lon1.key.example.org lon1 any for svc.gslb.example.org survey
		accept probe.key.example.org probe any survey
		survey avoid 127.9.0.0/16
		lease 10s 30s
		explain 127.0.0.0/8
		export %[3]s/map
	}
	prometheus 127.0.0.1:%[2]s
}
`

const surveyNode = `svc.gslb.example.org:%[1]s {
	bind %[2]s
	latencyprobe {
		rtt tcp %[1]s
		source %[2]s
	}
	dnslb {
		server a 127.0.0.1 beside par1
		server b 127.0.0.2 beside probe
		service www.svc.gslb.example.org b a
		node %[3]s %[2]s
		register 127.0.0.1:%[1]s
		key %[3]s.key.example.org %[4]s
		survey budget 20
		explain 127.0.0.0/8
	}
}
`

// TestSurvey starts a DNS-B and three nodes without any 'near' line. The network of
// a resolver that asks gets its nodes from what they measure, and the nodes learn
// that from the map. A script takes part with dig and nsupdate.
func TestSurvey(t *testing.T) {
	dir, port, metrics := t.TempDir(), freePort(t), freePort(t)
	path := filepath.Join(dir, "Corefile")
	text := fmt.Sprintf(surveyCorefile, port, metrics, dir)
	for _, n := range [][]any{
		{port, "127.0.0.2", "par1", "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="},
		{port, "127.0.0.3", "nyc1", "bnljMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="},
		{port, "127.0.0.4", "lon1", "bG9uMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="},
	} {
		text += fmt.Sprintf(surveyNode, n...)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "-conf", path)
	explained := func(from, name string) string {
		m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		m.SetEdns0(4096, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: net.ParseIP(from).To4()}}
		r, _, err := (&dns.Client{Net: "tcp"}).Exchange(m, "127.0.0.1:"+port)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(r.Answer)
	}
	asks := func(from string) *dns.Msg {
		m := new(dns.Msg).SetQuestion("www.svc.gslb.example.org.", dns.TypeA)
		client := &dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}}
		r, _, err := client.Exchange(m, "127.0.0.1:"+port)
		if err != nil {
			return new(dns.Msg)
		}
		return r
	}

	const resolver = "127.5.6.7"
	wait(t, 30*time.Second, "a referral", func() bool { return len(asks(resolver).Ns) > 0 })
	if e := explained(resolver, "_explain.svc.gslb.example.org."); !strings.Contains(e, "layer hash") {
		t.Errorf("Expected a referral by hash at first, got %s", e)
	}
	begin := time.Now()
	wait(t, 2*time.Minute, "a referral by what nodes measured", func() bool {
		asks(resolver)
		asks("127.9.6.7") // is avoided
		return strings.Contains(explained(resolver, "_explain.svc.gslb.example.org."), "layer survey")
	})
	t.Logf("Referred by measurements after %s", time.Since(begin))
	var e string
	wait(t, time.Minute, "all nodes to have measured", func() bool {
		e = explained(resolver, "_explain.svc.gslb.example.org.")
		return strings.Contains(e, "par1 measured") && strings.Contains(e, "nyc1 measured") && strings.Contains(e, "lon1 measured")
	})
	if !strings.Contains(e, "prefix 127.5.6.0/24") {
		t.Errorf("Expected the site as the prefix, got %s", e)
	}
	if e := explained("127.9.6.7", "_explain.svc.gslb.example.org."); !strings.Contains(e, "layer hash") || strings.Contains(e, "survey") {
		t.Errorf("Expected the avoided network to be left out, got %s", e)
	}

	value := func(name string) float64 { return scrape(t, "http://127.0.0.1:"+metrics+"/metrics")[name] }
	if n := value(`coredns_dnsb_survey_sites{state="measured",zone="gslb.example.org."}`); n != 1 {
		t.Errorf("Expected one measured site, got %v", n)
	}
	if n := value(`coredns_dnslb_survey_probes_total{method="icmp",node="par1",result="answer"}`); os.Getuid() == 0 && n < 3 {
		t.Errorf("Expected probes of par1, got %v", n)
	}
	// The map tells the nodes.
	wait(t, 2*time.Minute, "a node to learn from the map", func() bool {
		m := new(dns.Msg).SetQuestion("_explain.www.svc.gslb.example.org.", dns.TypeTXT)
		client := &dns.Client{Net: "tcp", Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(resolver)}}}
		r, _, err := client.Exchange(m, "127.0.0.2:"+port)
		return err == nil && strings.Contains(fmt.Sprint(r.Answer), "(survey)")
	})
	wait(t, 2*time.Minute, "an export with the site", func() bool {
		exported, err := os.ReadFile(filepath.Join(dir, "map")) // #nosec G304 -- of this test
		return err == nil && strings.Contains(string(exported), "127.5.6.0/24 ") && strings.Contains(string(exported), "# survey")
	})

	// A script is a node, too.
	dig, err := exec.LookPath("dig")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("Expected dig to be installed")
		}
		t.Skip("dig is not installed")
	}
	const key = "hmac-sha256:probe.key.example.org:cHJvYmUtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24="
	work := func() string {
		out, err := exec.Command(dig, "+short", "+tcp", "-y", key, "@127.0.0.1", "-p", port, "probe._survey.gslb.example.org", "TXT").CombinedOutput() // #nosec G204 -- a test
		if err != nil {
			t.Fatalf("Expected dig to succeed, got %v, %s", err, out)
		}
		return string(out)
	}
	asks("127.7.7.7")
	wait(t, 2*time.Minute, "work for the script", func() bool { return strings.Contains(work(), `"v=1 127.7.7.7 every=`) })
	report := func(record string) string {
		cmd := exec.Command("nsupdate", "-v", "-y", key) // #nosec G204 -- a test
		cmd.Stdin = strings.NewReader("server 127.0.0.1 " + port + "\nzone gslb.example.org\nupdate add " + record + "\nsend\nanswer\n")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	for name, tc := range map[string]struct{ record, want string }{
		"not a number":           {`probe._survey.gslb.example.org 0 TXT "v=1 127.7.7.7 rtt=NaN method=icmp"`, "FORMERR"},
		"another node":           {`par1._survey.gslb.example.org 0 TXT "v=1 127.7.7.7 rtt=1 method=icmp"`, "REFUSED"},
		"an address not asked":   {`probe._survey.gslb.example.org 0 TXT "v=1 127.7.7.8 rtt=1 method=icmp"`, "REFUSED"},
		"what is measured in it": {`probe._survey.gslb.example.org 0 TXT "v=1 127.7.7.7 rtt=200 method=icmp"`, "NOERROR"},
	} {
		if out := report(tc.record); !strings.Contains(out, tc.want) {
			t.Errorf("%s: Expected %s, got %s", name, tc.want, out)
		}
	}
	wait(t, time.Minute, "the script to be known", func() bool {
		return strings.Contains(explained("127.7.7.7", "_explain.svc.gslb.example.org."), "probe measured")
	})
	// Servers beside nodes are ranked by what these measured.
	var lines string
	wait(t, 2*time.Minute, "a ranking by the survey", func() bool {
		m := new(dns.Msg).SetQuestion("_explain.www.svc.gslb.example.org.", dns.TypeTXT)
		client := &dns.Client{Net: "tcp", Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.7.7.7")}}}
		r, _, err := client.Exchange(m, "127.0.0.2:"+port)
		lines = fmt.Sprint(r)
		return err == nil && strings.Contains(lines, "2. b 127.0.0.2: survey: 200.0 ms from node probe, measured ")
	})
	if !strings.Contains(lines, "ranked for the site 127.7.7.0/24 by the survey, rule survey") || !strings.Contains(lines, "1. a 127.0.0.1: survey: ") || !strings.Contains(lines, " ms from node par1, measured ") {
		t.Errorf("Expected server a before server b, got %s", lines)
	}
	m := new(dns.Msg).SetQuestion("www.svc.gslb.example.org.", dns.TypeA)
	client := &dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("127.7.7.7")}}}
	if r, _, err := client.Exchange(m, "127.0.0.2:"+port); err != nil || !strings.Contains(fmt.Sprint(r.Answer), "127.0.0.1") {
		t.Errorf("Expected server a, got %v, %v", r, err)
	}
}
