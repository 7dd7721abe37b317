package latencyprobe

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
)

func TestParse(t *testing.T) {
	tests := []struct {
		corefile string
		err      string
		check    func(map[string]*probe) bool
	}{
		{"latencyprobe", "", func(p map[string]*probe) bool {
			d := p[""]
			return d.rtt == icmp{} && d.health == nil && d.interval == 5*time.Second && d.timeout == time.Second && !d.explicit
		}},
		{"latencyprobe {\nrtt tcp 443\nhealth https://www.example.org:8443/x?y total\ninterval 10s\ntimeout 2s\nsource 192.0.2.1 2001:db8::1\n}", "", func(p map[string]*probe) bool {
			d := p[""]
			h, ok := d.health.(httpGet)
			return d.rtt == tcp{443} && d.explicit && ok && h.port == "8443" && h.total && d.interval == 10*time.Second && d.source6.IsValid()
		}},
		{"latencyprobe {\nrtt dns 53 example.org soa\n}\nlatencyprobe Mail {\nrtt tls 465 mail.example.org\n}", "", func(p map[string]*probe) bool {
			return p[""].rtt == dnsQuery{53, "example.org.", 6, false} && p["mail"].rtt == tlsHandshake{465, "mail.example.org", false}
		}},
		{"latencyprobe {\nrtt http://www.example.org/ ttfb\n}", "", func(p map[string]*probe) bool { return p[""].rtt.(httpGet).port == "80" }},

		{"latencyprobe {\nrtt tls 443 insecure\nhealth https://www.example.org/ insecure expect 204 match \"all is well\" total\n}", "", func(p map[string]*probe) bool {
			h := p[""].health.(httpGet)
			return p[""].rtt == tlsHandshake{443, "", true} && h.insecure && h.expect == 204 && h.match == "all is well" && h.total
		}},
		{"latencyprobe {\nrtt http://www.example.org/ expect 99\n}", "status code from 200", nil},
		{"latencyprobe {\nrtt http://www.example.org/ match\n}", "'match' needs a value", nil},
		{"latencyprobe {\nrtt tls 443 a b\n}", "expected 'tls PORT", nil},
		{"latencyprobe a b", "expected 'latencyprobe [NAME]'", nil},
		{"latencyprobe\nlatencyprobe", "given twice", nil},
		{"latencyprobe {\nrtt\n}", "expected a method", nil},
		{"latencyprobe {\nrtt smtp 25\n}", "unknown method 'smtp'; known: icmp | tcp PORT", nil},
		{"latencyprobe {\nrtt tcp\n}", "expected 'tcp PORT'", nil},
		{"latencyprobe {\nrtt tcp 0\n}", "no port", nil},
		{"latencyprobe {\nrtt tcp 65536\n}", "no port", nil},
		{"latencyprobe {\nrtt icmp 1\n}", "takes no argument", nil},
		{"latencyprobe {\nrtt dns 53\n}", "expected 'dns PORT NAME [TYPE]'", nil},
		{"latencyprobe {\nrtt dns 53 example.org FOO\n}", "no type", nil},
		{"latencyprobe {\nrtt dns 53 a..b\n}", "no domain name", nil},
		{"latencyprobe {\nrtt tls\n}", "expected 'tls PORT [SNI]", nil},
		{"latencyprobe {\nrtt http:///path\n}", "no URL", nil},
		{"latencyprobe {\nrtt http://www.example.org:99999/\n}", "no port", nil},
		{"latencyprobe {\nrtt http://www.example.org/ median\n}", "unknown word 'median'", nil},
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
			t.Errorf("%q: expected no error, got %v", tc.corefile, err)
		case tc.err == "" && !tc.check(probes):
			t.Errorf("%q: unexpected %+v", tc.corefile, probes)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "Testfile:")):
			t.Errorf("%q: expected an error with a line and %q, got %v", tc.corefile, tc.err, err)
		}
	}
}

func TestOf(t *testing.T) {
	c := caddy.NewTestController("dns", "latencyprobe\nlatencyprobe b {\nrtt tcp 1\n}")
	if Of(c) != nil {
		t.Error("Expected no LatencyProbe before its set-up")
	}
	l := testProbe(t, c)
	if got := l.Probes(); !slices.Equal(got, []string{"", "b"}) || l.HasRTT("") || !l.HasRTT("b") || l.HasRTT("c") {
		t.Errorf("Unexpected probes %v", got)
	}
	other := *c
	other.ServerBlockIndex = 1
	if Of(&other) != nil {
		t.Error("Expected another server block to have none")
	}
}
