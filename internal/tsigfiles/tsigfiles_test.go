package tsigfiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind" // to be found by its name
	_ "github.com/coredns/coredns/plugin/tsig" // likewise

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

const key = "key \"a\" {\n algorithm hmac-sha256;\n secret \"c2VjcmV0\";\n};\n"

// anotherKey is key with another secret.
var anotherKey = strings.Replace(key, "c2VjcmV0", "b3RoZXJz", 1)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// load parses a Corefile of which blocks are watched that have a plugin.
func load(t *testing.T, path, text string) *loaded {
	t.Helper()
	blocks, err := parse(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	l := &loaded{path, blocks, make(map[int]map[string]string)}
	for i := range blocks {
		if len(blocks[i].Tokens["dnsb"]) > 0 {
			l.inForce[i] = nil
		}
	}
	return l
}

func TestPaths(t *testing.T) {
	t.Setenv("KEYS", "from-environment")
	for _, tc := range []struct {
		name, corefile string
		want           []string
	}{
		{"none", "example.org {\n tsig {\n secret k c2VjcmV0\n }\n dnsb\n}\n", nil},
		{"no tsig", "example.org {\n dnsb {\n ns b1 192.0.2.1\n }\n}\n", nil},
		{"a file", "example.org {\n tsig {\n secrets keys\n require all\n }\n dnsb\n}\n", []string{"keys"}},
		{"zones, and two files", "example.org {\n tsig example.org {\n secrets one\n secret k c2VjcmV0\n secrets two\n }\n dnsb\n}\n", []string{"one", "two"}},
		{"the same in two blocks", "example.org {\n tsig {\n secrets keys\n }\n dnsb\n}\nexample.net {\n tsig {\n secrets keys\n }\n dnsb\n}\n", []string{"keys"}},
		{"another plugin", "example.org {\n tsig {\n secrets keys\n }\n file db\n}\nexample.net {\n tsig {\n secrets others\n }\n dnsb\n}\n", []string{"others"}},
		{"environment", "example.org {\n tsig {\n secrets {$KEYS}\n }\n dnsb\n}\n", []string{"from-environment"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := load(t, "Corefile", tc.corefile).paths(); !slices.Equal(got, tc.want) {
				t.Errorf("Expected %q, got %q", tc.want, got)
			}
		})
	}
}

const slow = "slow-plugin"

// setUpSlowly is what that plugin does.
var setUpSlowly func(*caddy.Controller)

func init() {
	dnsserver.Directives = append(dnsserver.Directives, slow)
	caddy.RegisterPlugin(slow, caddy.Plugin{ServerType: "dns", Action: func(c *caddy.Controller) error {
		setUpSlowly(c)
		return nil
	}})
}

// TestChangeDuringStartIsFound starts CoreDNS with a plugin that takes its time, in
// which the file changes.
func TestChangeDuringStartIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	var meanwhile string
	setUpSlowly = func(c *caddy.Controller) {
		write(t, path, meanwhile)
		Watch(c)
		dnsserver.GetConfig(c).TsigSecret["A."] = "c2VjcmV0" // another spelling, as *dnsb* adds it
		Watch(c)
	}
	text := fmt.Sprintf(`example.net:%[1]d {
		bind 127.0.0.1
		tsig {
			secret of-another-plugin no-base64
		}
	}
	example.org:%[1]d {
		bind 127.0.0.1
		tsig {
			secrets %[2]s
		}
		%[3]s
	}
	`, testport.Free(t), path, slow)
	for _, tc := range []struct {
		name, meanwhile string
		want            bool
	}{{"the same", key, false}, {"another secret", anotherKey, true}, {"another name", strings.Replace(key, `"a"`, `"b"`, 1), true}, {"no key", "", true}} {
		t.Run(tc.name, func(t *testing.T) {
			write(t, path, key)
			meanwhile = tc.meanwhile
			inst, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				inst.ShutdownCallbacks()
				if err := inst.Stop(); err != nil {
					t.Error(err)
				}
			}()
			l := inst.Storage[watched{}].(*loaded)
			if got, err := l.differs(); got != tc.want || err != nil {
				t.Errorf("Expected %t, got %t, %v", tc.want, got, err)
			}
			if got := l.paths(); !slices.Equal(got, []string{path}) {
				t.Errorf("Expected %q, got %q", path, got)
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
			write(t, path, "one")
			synctest.Test(t, func(t *testing.T) {
				var differs atomic.Bool
				w, stop := watcher{filewatch.New(path), func() (bool, error) { return differs.Load(), nil }, func() error { return tc.result }}, make(chan struct{})
				go w.run(stop)
				expect := func(after time.Duration, lines ...string) {
					t.Helper()
					time.Sleep(after)
					synctest.Wait()
					log.Expect(t, lines...)
				}
				expect(time.Hour)
				differs.Store(true)
				write(t, path, "another one")
				expect(time.Minute, tc.first)
				write(t, path, "a third one")
				expect(time.Minute, tc.first)
				expect(8 * time.Minute)
				expect(2*time.Minute, tc.repeat)
				close(stop)
				expect(time.Hour)
			})
		})
	}
}

// TestOnlyOtherSecretsReload changes a file in ways that leave the secrets as they are.
func TestOnlyOtherSecretsReload(t *testing.T) {
	log := logtest.Capture(t)
	path := filepath.Join(t.TempDir(), "keys")
	l := load(t, "Corefile", "example.org {\n tsig {\n secrets "+path+"\n }\n dnsb\n}\n")
	l.inForce[0] = map[string]string{"a.": "c2VjcmV0"}
	write(t, path, key)
	synctest.Test(t, func(t *testing.T) {
		var reloads atomic.Int32
		w, stop := watcher{filewatch.New(path), l.differs, func() error { reloads.Add(1); return nil }}, make(chan struct{})
		go w.run(stop)
		expect := func(what string, want int32, lines ...string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			log.Expect(t, lines...)
			if got := reloads.Load(); got != want {
				t.Errorf("%s: Expected %d reloads, got %d", what, want, got)
			}
		}
		expect("the first look", 0)
		if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		expect("another time", 0)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		expect("another mode", 0)
		write(t, path, "\n"+key)
		expect("another line", 0)
		write(t, path, key[:30])
		expect("an error", 0, "Failed to read secrets of tsig")
		write(t, path, key)
		expect("the first keys", 0, `Recovered: secrets of tsig in "`)
		write(t, path, anotherKey)
		expect("other keys", 1, "Found other secrets of tsig")
		close(stop)
	})
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	path, imported := filepath.Join(dir, "keys"), filepath.Join(dir, "imported")
	write(t, imported, "tsig {\n secrets "+path+"\n}\n")
	l := load(t, filepath.Join(dir, "Corefile"), "example.org {\n import "+imported+"\n dnsb\n}\nexample.net {\n dnsb\n}\n")
	remove := func() { _ = os.Remove(path) }
	for _, tc := range []struct {
		name    string
		prepare func()
		want    string
	}{
		{"a key", func() { write(t, path, key) }, ""},
		{"none", func() { write(t, path, "") }, ""},
		{"half a key", func() { write(t, path, key[:30]) }, imported + ":2 - Error during parsing: *tsig* cannot read '" + path + "'"},
		{"another text", func() { write(t, path, "oops\n") }, "expected keys as tsig-keygen writes them"},
		{"a name twice", func() { write(t, path, key+key) }, "each name once"},
		{"no base64", func() { write(t, path, strings.Replace(key, "c2VjcmV0", "c2VjcmV", 1)) }, imported + ":1 - Error during parsing: the secret of key 'a.'"},
		{"no file", remove, imported + ":2 - Error during parsing: stat " + path + ": no such file"},
		{"a directory", func() {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "expected a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			remove()
			tc.prepare()
			if _, err := l.differs(); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Expected %q, got %v", tc.want, err)
			}
		})
	}
}
