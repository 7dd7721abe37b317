package tsigfiles

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/coredns/coredns/plugin/tsig" // to be found by its name

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
			blocks, err := parse("Corefile", []byte(tc.corefile))
			if got := secretsFiles(blocks, []string{"dnsb", "dnslb"}); err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("Expected %q, got %q, %v", tc.want, got, err)
			}
		})
	}
}

// TestChangesAreLogged changes a file several times: the log says so each time, and
// again while no reload takes the change up.
func TestChangesAreLogged(t *testing.T) {
	const due = `/keys", using the previous version until the Corefile is reloaded`
	for _, tc := range []struct {
		name          string
		result        error
		first, repeat string
	}{
		{"by hand", errDue, due, due},
		{"with an error", errors.New("bad key"), "using the previous version: bad key", "using the previous version: bad key"},
		{"by itself, without effect", nil, `Found other secrets of tsig in "/`, due},
	} {
		t.Run(tc.name, func(t *testing.T) {
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
				w, stop := watcher{files: filewatch.New(path), renew: func() error { return tc.result }}, make(chan struct{})
				w.files.Changed()
				go w.run(stop)
				expect := func(after time.Duration, lines ...string) {
					t.Helper()
					time.Sleep(after)
					synctest.Wait()
					log.Expect(t, lines...)
				}
				expect(time.Hour)
				write("another one")
				expect(time.Minute, tc.first)
				write("a third one")
				expect(time.Minute, tc.first)
				expect(8 * time.Minute)
				expect(2*time.Minute, tc.repeat)
				close(stop)
				expect(time.Hour)
			})
		})
	}
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	blocks, err := parse("Corefile", []byte("example.org {\n tsig {\n secrets "+path+"\n }\n dnsb\n}\nexample.net {\n dnsb\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	const key = "key \"a\" {\n algorithm hmac-sha256;\n secret \"c2VjcmV0\";\n};\n"
	for _, tc := range []struct{ name, keys, want string }{
		{"a key", key, ""},
		{"none", "", ""},
		{"half a key", key[:30], "cannot read them"},
		{"another text", "oops\n", "cannot read them"},
		{"a name twice", key + key, "cannot read them"},
		{"no base64", strings.Replace(key, "c2VjcmV0", "c2VjcmV", 1), "is not base64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tc.keys), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := check("Corefile", blocks); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Expected %q, got %v", tc.want, err)
			}
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if check("Corefile", blocks) == nil {
		t.Error("Expected an error without the file")
	}
}
