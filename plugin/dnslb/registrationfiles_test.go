package dnslb

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

// TestRegistrationFilesAreFollowed changes the files that a block names for its
// registration: what they hold is registered, and an error keeps the previous version.
func TestRegistrationFilesAreFollowed(t *testing.T) {
	const keyFile = "key \"par1.key.\" { algorithm hmac-sha256; secret \"%s\"; };\n"
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key", fmt.Sprintf(keyFile, "c2VjcmV0c2VjcmV0c2VjcmV0"))
	write("near", "198.51.100.0/24\n")
	conf, err := parse(block(t, "svc.gslb.example.org {\nlatencyprobe {\nrtt tcp 443\n}\ndnslb {\nserver fra 192.0.2.1\nservice www.svc.gslb.example.org fra\n"+
		"node par1 203.0.113.53\nnear 2001:db8::/32\nnear "+filepath.Join(dir, "near")+"\nregister 203.0.113.1\nkey "+filepath.Join(dir, "key")+"\n}\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := newDNSLB(conf, nil)
	configured := 0
	d.configureBlock = func() { configured++ }
	log := logtest.Capture(t)
	// poll looks twice, since a file that has changed may be half written.
	poll := func() { d.pollRegistration(); d.pollRegistration() }
	expect := func(step string, secret, near string, times int) {
		t.Helper()
		got := d.registers()
		if prefixes := fmt.Sprint(got.near); got.key.Secret != secret || prefixes != near || configured != times {
			t.Errorf("%s: Expected secret %s, prefixes %s, configured %d times, got %s, %s, %d", step, secret, near, times, got.key.Secret, prefixes, configured)
		}
	}
	failures := func() float64 { return testutil.ToFloat64(reloads.WithLabelValues(testZone, "registration", "error")) }
	before := failures()
	const one, two = "c2VjcmV0c2VjcmV0c2VjcmV0", "YW5vdGhlcmFub3RoZXJhbm90aGVy"
	poll()
	expect("same files", one, "[2001:db8::/32 198.51.100.0/24]", 0)
	log.Expect(t)

	write("key", fmt.Sprintf(keyFile, two))
	poll()
	expect("another key", two, "[2001:db8::/32 198.51.100.0/24]", 1)
	log.Expect(t, "Reloaded files of the registration")

	write("near", "203.0.113.0/24 !203.0.113.128/25\n")
	poll()
	expect("other prefixes", two, "[2001:db8::/32 203.0.113.0/24 !203.0.113.128/25]", 2)
	log.Expect(t, "Reloaded files of the registration")

	for _, tc := range []struct{ name, file, text, want string }{
		{"bad key", "key", "oops", "Failed to reload files of the registration"},
		{"good key again", "key", fmt.Sprintf(keyFile, one), "Reloaded files"},
		{"prefix twice", "near", "2001:db8::/32\n", "prefix 2001:db8::/32 is given twice"},
		{"bad prefix", "near", "203.0.113.1/24\n", "did you mean 203.0.113.0/24?"},
	} {
		write(tc.file, tc.text)
		poll()
		t.Run(tc.name, func(t *testing.T) { log.Expect(t, tc.want) })
	}
	if status := d.fileStatus()["registration"]; !status.Failed || status.Loaded.IsZero() {
		t.Errorf("Expected the files to differ from what is in force, got %+v", status)
	}
	expect("errors", one, "[2001:db8::/32 203.0.113.0/24 !203.0.113.128/25]", 3)
	if got := failures() - before; got != 3 {
		t.Errorf("Expected 3 failed reloads to be counted, got %v", got)
	}
}
