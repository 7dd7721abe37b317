package dnsb

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

func transferred(t *testing.T, d *DNSB, serial uint32) []dns.RR {
	t.Helper()
	ch, err := d.Transfer(testZone, serial)
	if err != nil {
		t.Fatal(err)
	}
	var rrs []dns.RR
	for batch := range ch {
		rrs = append(rrs, batch...)
	}
	return rrs
}

func TestTransfer(t *testing.T) {
	d := started(t, "accept k1 par1 any\nnode nyc1 192.0.2.54\ncut svc nyc1", nil)
	registers(t, d, nodeAt("par1", "2001:db8::53", "198.51.100.0/24"))
	rrs := transferred(t, d, 0)
	var got []string
	for _, rr := range rrs {
		got = append(got, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{
		"gslb.example.org. 3600 IN NS b1.gslb.example.org.",
		"b1.gslb.example.org. 3600 IN A 192.0.2.1",
		"b1.gslb.example.org. 3600 IN AAAA 2001:db8::1",
		"par1.lb.gslb.example.org. 600 IN AAAA 2001:db8::53",
		"par1.lb.gslb.example.org. 600 IN APL 1:198.51.100.0/24",
		"nyc1.lb.gslb.example.org. 600 IN A 192.0.2.54",
		"svc.gslb.example.org. 300 IN NS par1.lb.gslb.example.org.",
		"svc.gslb.example.org. 300 IN NS nyc1.lb.gslb.example.org.",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("Expected %q in\n%s", want, text)
		}
	}
	if len(rrs) != 11 || rrs[0].Header().Rrtype != dns.TypeSOA || rrs[len(rrs)-1].Header().Rrtype != dns.TypeSOA {
		t.Errorf("Expected 11 records between two SOA, got\n%s", text)
	}

	serial := d.snapshot.Load().serial
	for asked, want := range map[uint32]int{serial: 1, serial + 1: 1, serial - 1: 11} {
		if n := len(transferred(t, d, asked)); n != want {
			t.Errorf("Expected %d records for serial %d, got %d", want, int32(asked-serial), n)
		}
	}
	if _, err := d.Transfer("example.net.", 0); !errors.Is(err, transfer.ErrNotAuthoritative) {
		t.Errorf("Expected another zone to be refused, got: %v", err)
	}
}

// The zone goes out by the transfer plugin only if there is one, and is one that
// other servers load.
func TestTransferOverTheWire(t *testing.T) {
	for _, tc := range []struct {
		lines string
		open  bool
	}{{"", false}, {"}\ntransfer {\nto *", true}} {
		t.Run(tc.lines, func(t *testing.T) {
			_, port := serve(t, tc.lines)
			reg := nodeAt("par1", "192.0.2.53")
			reg.Location, reg.Serial = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m", uint64(time.Now().UnixMilli()) // #nosec G115 -- since 1970
			for i := range 4000 {
				prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24) // #nosec G115 -- low bytes
				reg.Prefixes = append(reg.Prefixes, registration.Prefix{Prefix: prefix})
			}
			if r := send(t, port, sent(t, reg), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
				t.Fatalf("Expected par1 to register, got %v", r)
			}
			out := dig(t, port, "+onesoa", "gslb.example.org", "AXFR")
			if !tc.open {
				if !strings.Contains(out, "Transfer failed") {
					t.Errorf("Expected no transfer without the plugin, got %.300s", out)
				}
				return
			}
			file := filepath.Join(t.TempDir(), "zone")
			if err := os.WriteFile(file, []byte(out+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, checker := range []string{"named-checkzone", "nsd-checkzone"} {
				path, err := exec.LookPath(checker)
				if err != nil {
					t.Logf("%s is not installed", checker)
					continue
				}
				if out, err := exec.Command(path, "gslb.example.org", file).CombinedOutput(); err != nil { // #nosec G204 -- a test
					t.Errorf("Expected %s to load the zone, got: %v, %.500s", checker, err, out)
				}
			}
		})
	}
}
