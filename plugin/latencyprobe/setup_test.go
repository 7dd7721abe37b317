package latencyprobe

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

func TestParse(t *testing.T) {
	tests := []struct {
		corefile string
		err      string
		check    func(map[string]*settings) bool
	}{
		{"latencyprobe", "", func(p map[string]*settings) bool {
			d := p[""]
			return (d.rtt == prober.ICMP{}) && d.health == nil && d.interval == 5*time.Second && d.timeout == time.Second && !d.rttGiven
		}},
		{"latencyprobe {\nrtt tcp 443\nhealth https://www.example.org:8443/x?y total\ninterval 10s\ntimeout 2s\nsource 192.0.2.1 2001:db8::1\n}", "", func(p map[string]*settings) bool {
			d := p[""]
			h, ok := d.health.(prober.HTTP)
			return (d.rtt == prober.TCP{Port: 443}) && d.rttGiven && ok && h.Port == "8443" && h.Total && d.interval == 10*time.Second && d.source6.IsValid()
		}},
		{"latencyprobe {\nrtt dns 53 example.org soa\n}\nlatencyprobe Mail {\nrtt tls 465 mail.example.org\n}", "", func(p map[string]*settings) bool {
			return (p[""].rtt == prober.DNS{Port: 53, Name: "example.org.", Type: 6}) && (p["mail"].rtt == prober.TLS{Port: 465, ServerName: "mail.example.org"})
		}},
		{"latencyprobe {\nrtt http://www.example.org/ ttfb\n}", "", func(p map[string]*settings) bool { return p[""].rtt.(prober.HTTP).Port == "80" }},

		{"latencyprobe {\nrtt tls 443 insecure\nhealth https://www.example.org/ insecure expect 204 match \"all is well\" total\n}", "", func(p map[string]*settings) bool {
			h := p[""].health.(prober.HTTP)
			return (p[""].rtt == prober.TLS{Port: 443, Insecure: true}) && h.Insecure && h.Expect == 204 && h.Match == "all is well" && h.Total
		}},
		{"latencyprobe a b", "expected 'latencyprobe [NAME]'", nil},
		{"latencyprobe\nlatencyprobe", "given twice", nil},
		{"latencyprobe {\nrtt\n}", "expected a method", nil},
		{"latencyprobe {\nrtt smtp 25\n}", "unknown method 'smtp', expected one of: icmp, tcp PORT", nil},
		{"latencyprobe {\nrtt tcp\n}", "expected 'tcp PORT'", nil},
		{"latencyprobe {\nrtt tcp 1\nrtt tcp 2\n}", "given twice", nil},
		{"latencyprobe {\ninterval 10ms\n}", "invalid duration '10ms' for 'interval': expected 1s to 1h, such as 5s", nil},
		{"latencyprobe {\ninterval\n}", "expected 'interval DURATION'", nil},
		{"latencyprobe {\ninterval 5\n}", "invalid duration '5' for 'interval'", nil},
		{"latencyprobe {\ninterval 1s\ntimeout 2s\n}", "longer than interval", nil},
		{"latencyprobe {\nsource\n}", "expected 'source ADDRESS...'", nil},
		{"latencyprobe {\nsource eth0\n}", "invalid address 'eth0': expected an IP address", nil},
		{"latencyprobe {\nsource 192.0.2.1 192.0.2.2\n}", "two addresses of one family", nil},
		{"latencyprobe {\nsorce 192.0.2.1\n}", "unknown property 'sorce', expected one of: rtt, health", nil},
	}
	for _, tc := range tests {
		probes, err := parse(caddy.NewTestController("dns", tc.corefile))
		switch {
		case tc.err == "" && err != nil:
			t.Errorf("%q: Expected no error, got %v", tc.corefile, err)
		case tc.err == "" && !tc.check(probes):
			t.Errorf("%q: Unexpected %+v", tc.corefile, probes)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "Testfile:")):
			t.Errorf("%q: Expected an error with a line and %q, got %v", tc.corefile, tc.err, err)
		}
	}
}

func TestForServerBlock(t *testing.T) {
	c := caddy.NewTestController("dns", "latencyprobe\nlatencyprobe b {\nrtt tcp 1\n}")
	if ForServerBlock(c) != nil {
		t.Error("Expected no LatencyProbe before its setup")
	}
	l := testProbe(t, c)
	if got := l.ProbeNames(); !slices.Equal(got, []string{"", "b"}) || l.HasRTT("") || !l.HasRTT("b") || l.HasRTT("c") {
		t.Errorf("Unexpected probes %v", got)
	}
	other := *c
	other.ServerBlockIndex = 1
	if ForServerBlock(&other) != nil {
		t.Error("Expected another server block to have none")
	}
}

// TestAllErrorsOfBlocks checks that each fault of all blocks is told at once, with its
// line, and nothing that follows from another one.
func TestAllErrorsOfBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	probes, err := parse(caddy.NewTestController("dns", "latencyprobe {\nrtt smtp 25\ninterval 5\nsource eth0\nrecord "+path+"\n}\n"+
		"latencyprobe a b {\nrtt icmp\n}\nlatencyprobe c {\nrtt icmp\ninterval 1s\ntimeout 2s\nstate "+path+"\n}\nlatencyprobe C {\ntimeout 1\n}"))
	if err == nil {
		t.Fatal("Expected errors")
	}
	want := []string{
		"Testfile:2 - Error during parsing: unknown method 'smtp'",
		"Testfile:3 - Error during parsing: invalid duration '5' for 'interval'",
		"Testfile:4 - Error during parsing: invalid address 'eth0'",
		"Testfile:7 - Error during parsing: expected 'latencyprobe [NAME]'",
		"Testfile:13 - Error during parsing: timeout 2s is longer than interval 1s, shorten it",
		"Testfile:14 - Error during parsing: file '" + path + "' is given for two purposes",
		"Testfile:16 - Error during parsing: latencyprobe 'c' is given twice",
		"Testfile:17 - Error during parsing: invalid duration '1' for 'timeout'",
	}
	if got := corefile.Messages(err); !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("Expected the errors\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	if len(probes) != 3 {
		t.Errorf("Expected the names of all probes for the plugins that need them, got %v", probes)
	}
}
