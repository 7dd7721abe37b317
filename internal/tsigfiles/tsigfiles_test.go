package tsigfiles

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

func TestSecretsFiles(t *testing.T) {
	t.Setenv("KEYS", "from-environment")
	for _, tc := range []struct {
		name, corefile string
		want           []string
	}{
		{"none", "example.org {\n tsig {\n secret k c2VjcmV0\n }\n dnsb\n}\n", nil},
		{"no tsig", "example.org {\n dnsb {\n ns b1 192.0.2.1\n }\n}\n", nil},
		{"a file", "example.org {\n tsig {\n secrets keys\n require all\n }\n dnsb\n}\n", []string{"keys"}},
		{"zones, and two files", "example.org {\n tsig example.org {\n secrets one\n secret k c2VjcmV0\n secrets two\n }\n dnslb\n}\n", []string{"one", "two"}},
		{"both plugins", "example.org {\n tsig {\n secrets keys\n }\n dnsb\n dnslb\n}\n", []string{"keys"}},
		{"another plugin", "example.org {\n tsig {\n secrets keys\n }\n file db\n}\nexample.net {\n tsig {\n secrets others\n }\n dnslb\n}\n", []string{"others"}},
		{"environment", "example.org {\n tsig {\n secrets {$KEYS}\n }\n dnsb\n}\n", []string{"from-environment"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			input := caddy.CaddyfileInput{Contents: []byte(tc.corefile), Filepath: "Corefile", ServerTypeName: "dns"}
			if got := secretsFiles(input, []string{"dnsb", "dnslb"}); !slices.Equal(got, tc.want) {
				t.Errorf("Expected %q, got %q", tc.want, got)
			}
		})
	}
}

// TestChangesAreLogged changes a file twice: the log says so each time, and again
// while no reload takes the change up.
func TestChangesAreLogged(t *testing.T) {
	const line = "have changed, using the previous version until the Corefile is reloaded"
	log := logtest.Capture(t)
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	synctest.Test(t, func(t *testing.T) {
		files, stop := filewatch.New(path), make(chan struct{})
		files.Changed()
		go watch(files, stop)
		expect := func(after time.Duration, lines ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			log.Expect(t, lines...)
		}
		expect(time.Hour)
		write("another one")
		expect(time.Minute, line)
		write("a third one")
		expect(time.Minute, line)
		expect(8 * time.Minute)
		expect(2*time.Minute, line)
		close(stop)
		expect(time.Hour)
	})
}
