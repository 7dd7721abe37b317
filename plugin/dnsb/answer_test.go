package dnsb

import (
	"context"
	"fmt"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// TestLargeAPLIsTruncatedOverUDP checks that a small query with a forged source
// address is not answered with all prefixes of a node.
func TestLargeAPLIsTruncatedOverUDP(t *testing.T) {
	d := started(t, "accept k1 par1 any", nil)
	var prefixes []string
	for i := range 4000 {
		prefixes = append(prefixes, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&0xff))
	}
	registers(t, d, nodeAt("par1", "192.0.2.53", prefixes...))
	asked := func(tcp bool) *dns.Msg {
		t.Helper()
		m := new(dns.Msg).SetQuestion("par1.lb."+testZone, dns.TypeAPL)
		m.SetEdns0(65535, false)
		w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: "198.51.100.1", TCP: tcp})
		if _, err := d.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		return w.Msg
	}
	if m := asked(false); !m.Truncated || len(m.Answer) > 0 || m.Len() > dnsmsg.MaxUDPSize {
		t.Errorf("Expected a truncated answer over UDP, got %d records in %d bytes", len(m.Answer), m.Len())
	}
	items := 0
	for _, rr := range asked(true).Answer {
		items += len(rr.(*dns.APL).Prefixes)
	}
	if items != len(prefixes) {
		t.Errorf("Expected %d prefixes over TCP, got %d", len(prefixes), items)
	}
}
