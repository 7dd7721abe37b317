package latencyprobe

import (
	"testing"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// TestProbeIDs checks that state files of earlier versions stay readable: they
// contain the IDs of probes.
func TestProbeIDs(t *testing.T) {
	tests := []struct{ lines, want string }{
		{"", "latencyprobe.icmp{} <nil><nil>"},
		{"rtt tcp 443\nhealth icmp", "latencyprobe.tcp{443} latencyprobe.icmp{}"},
		{"rtt tls 465 mail.example.org", "latencyprobe.tlsHandshake{465 mail.example.org false} <nil><nil>"},
		{"rtt tls 443 insecure", "latencyprobe.tlsHandshake{443  true} <nil><nil>"},
		{"rtt dns 53 example.org soa", "latencyprobe.dnsQuery{53 example.org. 6 false} <nil><nil>"},
		{"rtt http://www.example.org/", "latencyprobe.httpGet{http://www.example.org/ 80 false false 0 } <nil><nil>"},
		{"rtt tcp 443\nhealth https://www.example.org:8443/x?y total insecure expect 204 match \"all is well\"", "latencyprobe.tcp{443} latencyprobe.httpGet{https://www.example.org:8443/x?y 8443 true true 204 all is well}"},
	}
	for _, tc := range tests {
		probes, err := parse(caddy.NewTestController("dns", "latencyprobe {\n"+tc.lines+"\n}"))
		if err != nil {
			t.Fatal(err)
		}
		if got := probes[""].id(); got != tc.want {
			t.Errorf("%q: Expected %q, got %q", tc.lines, tc.want, got)
		}
	}
	s := (&settings{rtt: prober.ICMP{}, health: prober.ICMP{}}).forTarget(Target{Check: Check{53, "example.org.", 6}})
	if got, want := s.id(), "latencyprobe.dnsQuery{53 example.org. 6 true} <nil><nil>"; got != want {
		t.Errorf("Expected %q, got %q", want, got)
	}
}
