package latencyprobe

import (
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"

	"github.com/coredns-dnslb/coredns-dnslb/internal/fuzztest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// FuzzCorefile reads any block of latencyprobe. An error names a line and can be
// shown; what is accepted is within its bounds, and has an ID for state files.
func FuzzCorefile(f *testing.F) {
	for _, text := range []string{
		"", "rtt icmp\n", "rtt tcp 443\nhealth https://www.example.org:8443/x?y total insecure expect 204 match \"all is well\"\ninterval 10s\ntimeout 2s\nsource 192.0.2.1 2001:db8::1\n",
		"rtt tls 443 www.example.org insecure\n", "rtt dns 53 example.org SOA recursive\nstate state\nrecord trace\n", "rtt http://www.example.org/ ttfb\n}\nlatencyprobe b {\nrtt tcp 1\n",
		"rtt http://[::1%25eth0]:80/\n", "rtt https://\x00/\n", "rtt dns 53 \\000..\n", "rtt tls 443 \x1b[2J\n", "rtt tcp 65536\n", "interval 1e9h\n", "interval -1s\n", "source fe80::1%eth0\n", "state /dev/null\n", "record .\n", "}\n}\n", "health https://a@b/\n", "rtt https://x:0/\n", "rtt https://x/ match\n", "import x\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := caddy.NewTestController("dns", "")
		c.Dispenser = caddyfile.NewDispenser("Corefile", strings.NewReader("latencyprobe {\n"+text+"\n}\n"))
		probes, err := parse(c)
		if err != nil {
			fuzztest.CheckPosition(t, err, text)
			return
		}
		for name, s := range probes {
			if s.name != name || s.interval < minInterval || s.timeout < minTimeout || s.timeout > s.interval {
				t.Fatalf("Expected values within their bounds, got %+v", s)
			}
			for _, p := range []prober.Prober{s.rtt, s.health} {
				if p != nil && (p.Method() == "" || p.ID() == "") {
					t.Fatalf("Expected a method with an ID, got %+v", p)
				}
			}
			if s.rtt == nil {
				t.Fatal("Expected a method")
			}
		}
	})
}
