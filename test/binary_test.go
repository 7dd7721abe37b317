package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPluginsAreCompiledIn(t *testing.T) {
	out, status := run(t, "-plugins")
	if status != 0 {
		t.Fatalf("Expected status 0, got %d: %s", status, out)
	}
	listed := strings.Fields(out)
	for _, name := range []string{"dnsb", "dnslb", "latencyprobe", "file", "tsig", "transfer", "reload", "prometheus"} {
		if !slices.Contains(listed, name) {
			t.Errorf("Expected plugin %s in %v", name, listed)
		}
	}
	if slices.Contains(listed, "kubernetes") {
		t.Error("Expected no plugin that needs the library of a cluster, got kubernetes")
	}
}

func TestVersionNamesProgramAndCoreDNS(t *testing.T) {
	out, status := run(t, "-version")
	if want := regexp.MustCompile(`^coredns-dnslb-\S+ CoreDNS-1\.\d+\.\d+\nlinux/\S+, go1\.`); status != 0 || !want.MatchString(out) {
		t.Errorf("Expected %s, got status %d and %q", want, status, out)
	}
}

func TestValidateAcceptsExample(t *testing.T) {
	out, status := run(t, "-validate", "-conf", "corefile.example")
	if status != 0 || !strings.Contains(out, "Enabled the fast path of dnsb") || !strings.HasSuffix(out, "\ncorefile.example: ok\n") {
		t.Errorf("Expected the example to be valid, got status %d and %q", status, out)
	}
}

func TestValidateListsAllErrors(t *testing.T) {
	dir := t.TempDir()
	wrong := filepath.Join(dir, "wrong")
	if err := os.WriteFile(wrong, []byte("oops par1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		corefile string
		want     []string // in the output
	}{
		{"example.org {\n  dnslb {\n}\n}\n", []string{"add a line 'latencyprobe'"}},
		// Errors of two server blocks.
		{
			"example.org:1053 {\n  latencyprobe {\n  rtt smtp 25\n  }\n}\nexample.net:1053 {\n  dnsb {\n  nonsense\n  }\n}\n",
			[]string{":3 ", "latencyprobe", ":8 ", "nonsense", "problems found: 2"},
		},
		{"example.org {\n  file " + dir + "/missing\n}\n", []string{"missing"}},
		{"example.org:1053 {\n  whoami\n}\nexample.org:1053 {\n  whoami\n}\n", []string{"already defined"}},
		// Errors between the plugins of a server block.
		{"example.org:1053 {\n  latencyprobe\n  dnslb\n}\n", []string{":3 ", "no service"}},
		{"example.org:1053 {\n  latencyprobe\n  dnslb {\n    service www.example.org\n  }\n}\n", []string{":4 ", "no backend plugin in this server block has the zone"}},
		{"example.org:1053 {\n  latencyprobe\n  dnslb {\n    server fra 192.0.2.1\n    service www.example.org fra\n    observe\n  }\n}\n", []string{":3 ", "'observe' leaves"}},
		{
			"svc.example.org:1053 {\n  tsig other.example.org {\n    secret v c2VjcmV0c2VjcmV0c2VjcmV0\n  }\n  latencyprobe\n  dnslb {\n    server fra 192.0.2.1\n    service svc.example.org fra\n" +
				"    node par1 192.0.2.53\n    register 203.0.113.1\n    key k c2VjcmV0c2VjcmV0c2VjcmV0\n    view-key v\n  }\n}\n",
			[]string{":6 ", "'view-key' needs 'tsig' for zone svc.example.org."},
		},
		{"example.org:1053 {\n  dnssec\n  latencyprobe\n  dnslb {\n    server fra 192.0.2.1\n    service www.example.org fra\n  }\n}\n", []string{":4 ", "dnssec"}},
		{"gslb.example.org:1053 {\n  dnssec\n  dnsb {\n    ns b1.gslb.example.org 192.0.2.53\n    node par1 192.0.2.54\n    cut svc.gslb.example.org par1\n    default par1\n  }\n}\n", []string{":3 ", "dnssec"}},
		// Errors of files, also of those without which a server starts.
		{
			"gslb.example.org:1053 {\n  dnsb {\n    ns b1 192.0.2.53\n    node par1 192.0.2.54\n    cut svc par1\n    map " + wrong + "\n    admin " + wrong + "\n  }\n}\n",
			[]string{wrong + ":1 - unknown verb 'oops'", wrong + ":1 - invalid prefix 'oops'", "problems found: 2"},
		},
		{
			"example.org:1053 {\n  latencyprobe\n  dnslb {\n    services " + wrong + "\n    admin " + wrong + "\n  }\n}\n",
			[]string{wrong + ":1 - unknown verb 'oops'", wrong + ":1 - Error during parsing: unknown property 'oops'", "problems found: 2"},
		},
		{"example.org {\n  whoami\n", []string{":2 ", "Syntax error"}},
		{"example.org {\n  nosuchplugin\n}\n", []string{":2 ", "nosuchplugin"}},
	}
	for _, tc := range tests {
		path := filepath.Join(dir, "Corefile")
		if err := os.WriteFile(path, []byte(tc.corefile), 0o600); err != nil {
			t.Fatal(err)
		}
		out, status := run(t, "-validate", "-conf", path)
		if status != 1 {
			t.Errorf("Expected status 1, got %d for\n%s", status, tc.corefile)
		}
		for _, want := range tc.want {
			if !strings.Contains(out, want) {
				t.Errorf("Expected %q in %q for\n%s", want, out, tc.corefile)
			}
		}
	}
	if _, status := run(t, "-validate", "-conf", filepath.Join(dir, "none")); status != 1 {
		t.Errorf("Expected status 1 for a missing file, got %d", status)
	}
}
