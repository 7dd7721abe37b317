package corefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

func TestAddresses(t *testing.T) {
	const invalid = "expected the IP address of a host, such as 192.0.2.53 or 2001:db8::53"
	tests := []struct{ text, want, err string }{
		{"192.0.2.1", "192.0.2.1", ""},
		{"2001:db8::1", "2001:db8::1", ""},
		{"::ffff:192.0.2.1", "192.0.2.1", ""},
		{"127.0.0.1", "127.0.0.1", ""},
		{"0.0.0.0", "", invalid},
		{"224.0.0.1", "", invalid},
		{"fe80::1%eth0", "", invalid},
		{"www.example.org", "", "invalid address 'www.example.org': " + invalid},
	}
	for _, tc := range tests {
		addr, err := address(tc.text, dnsmsg.IsHost)
		check(t, tc.text, addr.String(), tc.want, err, tc.err)
	}
	if _, err := Addresses([]string{"192.0.2.1", "::ffff:192.0.2.1"}, dnsmsg.IsHost); err == nil || err.Error() != "address 192.0.2.1 is given twice, name it once" {
		t.Errorf("Expected an error for an address that is given twice, got %v", err)
	}
}

func TestPrefix(t *testing.T) {
	tests := []struct{ text, want, err string }{
		{"192.0.2.0/24", "192.0.2.0/24", ""},
		{"2001:db8::/48", "2001:db8::/48", ""},
		{"par1", "", "invalid prefix 'par1': expected an address prefix such as 192.0.2.0/24 or 2001:db8::/48"},
		{"192.0.2.1", "", "did you mean 192.0.2.1/32?"},
		{"192.0.2.1/24", "", "bits are set beyond its length, did you mean 192.0.2.0/24?"},
		{"::ffff:192.0.2.0/120", "", "expected IPv4 prefixes in the form 192.0.2.0/24"},
	}
	for _, tc := range tests {
		prefix, err := Prefix(tc.text)
		check(t, tc.text, prefix.String(), tc.want, err, tc.err)
	}
}

func TestDuration(t *testing.T) {
	tests := []struct{ text, want, err string }{
		{"1s", "1s", ""},
		{"24h", "24h0m0s", ""},
		{"0s", "", "invalid duration '0s' for 'ttl': expected 1s to 24h, such as 300s"},
		{"25h", "", "expected 1s to 24h"},
		{"300", "", "expected 1s to 24h"},
	}
	for _, tc := range tests {
		d, err := Durations{time.Second, 24 * time.Hour, "300s"}.Parse("ttl", tc.text)
		check(t, tc.text, d.String(), tc.want, err, tc.err)
	}
	for d, want := range map[time.Duration]string{90 * time.Minute: "1h30m", time.Minute: "1m", 10 * time.Second: "10s", 1: "1ns"} {
		if got := short(d); got != want {
			t.Errorf("Expected %s, got %s", want, got)
		}
	}
}

func check(t *testing.T, text, got, want string, err error, wantErr string) {
	t.Helper()
	if wantErr == "" && (err != nil || got != want) || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
		t.Errorf("Expected %q or error %q for '%s', got %q, %v", want, wantErr, text, got, err)
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "map"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := caddy.NewTestController("dns", "")
	dnsserver.GetConfig(c).Root = dir
	if got := Path(c, "/etc/map"); got != "/etc/map" {
		t.Errorf("Expected an absolute path to stay, got %s", got)
	}
	for name, want := range map[string]string{"map": "", "missing": "invalid file for 'map': stat " + dir + "/missing: no such file"} {
		path, err := InputPath(c, Line{Property: "map", Args: []string{name}})
		check(t, name, path, filepath.Join(dir, name), err, want)
	}
	for name, want := range map[string]string{"new": "", "missing/new": "invalid file 'missing/new' for 'export': no directory '" + dir + "/missing'"} {
		path, err := OutputPath(c, "export", name)
		check(t, name, path, filepath.Join(dir, name), err, want)
	}
}
