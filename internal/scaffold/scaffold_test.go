package scaffold

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples compares with the examples of the packages.
func TestExamples(t *testing.T) {
	b := DNSB{Server{"", "gslb.example.org", "b1", netip.MustParseAddr("192.0.2.53"), 53}, []string{"par1", "nyc1"}}
	n := Node{
		Server: Server{"", "gslb.example.org", "par1", netip.MustParseAddr("192.0.2.54"), 53}, Method: "tcp 443",
		DNSBs:   []netip.Addr{b.Address},
		Servers: []Backend{{"fra", netip.MustParseAddr("192.0.2.1")}, {"iad", netip.MustParseAddr("198.51.100.1")}},
	}
	b.Dir, n.Dir = filepath.Join(t.TempDir(), "b1"), t.TempDir()
	if _, err := b.Write(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"par1.key", "views.key"} {
		if err := os.Rename(filepath.Join(b.Dir, key), filepath.Join(n.Dir, key)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Write(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(b.Dir, "Corefile"))
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "dnsb.corefile") // as below /etc/coredns-dnslb
	text := strings.Replace(string(written), "registrations.db", "/var/lib/coredns-dnslb/b1/registrations.db", 1)
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, example := range map[string]string{
		unit: "dnsb.corefile", filepath.Join(n.Dir, "Corefile"): "node.corefile",
		filepath.Join(n.Dir, "services"): "services", filepath.Join(n.Dir, "near"): "near", filepath.Join(n.Dir, "environment"): "environment",
	} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("testdata", example))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: Expected\n%s, got\n%s, %v", example, want, got, err)
		}
	}
}

func TestStateOfUnits(t *testing.T) {
	for dir, want := range map[string][2]string{
		"/etc/coredns-dnslb/b1":   {"/var/lib/coredns-dnslb/b1/", "systemctl enable --now coredns-dnslb@b1"},
		"/etc/coredns-dnslb/b1/c": {"", "cd /etc/coredns-dnslb/b1/c && coredns-dnslb -conf Corefile"},
		"/home/b1":                {"", "cd /home/b1 && coredns-dnslb -conf Corefile"},
	} {
		s := Server{Dir: dir}
		if got := [2]string{s.State(), s.start("")}; got != want {
			t.Errorf("%s: Expected %v, got %v", dir, want, got)
		}
	}
}
