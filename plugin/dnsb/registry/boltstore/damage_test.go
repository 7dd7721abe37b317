package boltstore

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// within fails the test if f hangs.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("Expected %s not to hang", what)
	}
}

// Whatever happens to the file of a running server, what was acknowledged is in
// the file at its path when the server has stopped, and nothing hangs.
func TestFileDamagedUnderRunningServer(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	overwrite := func(t *testing.T, path string, content func(size int64) []byte) {
		t.Helper()
		info, err := os.Stat(path)
		must(t, err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // #nosec G304 -- a test
		must(t, err)
		_, err = f.WriteAt(content(info.Size()), 0)
		must(t, err)
		must(t, f.Close())
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"truncated":        func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		"cut to two pages": func(t *testing.T, path string) { must(t, os.Truncate(path, 8192)) },
		"cut in half":      func(t *testing.T, path string) { must(t, os.Truncate(path, 32768)) },
		"cut in a page":    func(t *testing.T, path string) { must(t, os.Truncate(path, 10_000)) },
		"longer":           func(t *testing.T, path string) { must(t, os.Truncate(path, 1<<20)) },
		"zeros":            func(t *testing.T, path string) { overwrite(t, path, func(n int64) []byte { return make([]byte, n) }) },
		"noise": func(t *testing.T, path string) {
			overwrite(t, path, func(n int64) []byte { return bytes.Repeat([]byte("x"), int(n)) })
		},
		"noise after metas": func(t *testing.T, path string) {
			content, err := os.ReadFile(path) // #nosec G304 -- a test
			must(t, err)
			overwrite(t, path, func(n int64) []byte { return append(content[:8192], bytes.Repeat([]byte{0xff}, int(n)-8192)...) })
		},
		"unlinked": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"renamed":  func(t *testing.T, path string) { must(t, os.Rename(path, path+".away")) },
		"replaced by text": func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", []byte("not a database"), 0o600))
			must(t, os.Rename(path+".new", path))
		},
		"replaced by another database": func(t *testing.T, path string) {
			r := open(t, path+".new")
			register(t, r, registrationtest.Node("foreign", "192.0.2.66"), 5)
			r.Close()
			must(t, os.Rename(path+".new", path))
		},
	} {
		for _, writes := range []int{0, 1, 3} { // after the damage
			t.Run(fmt.Sprintf("%s, %d writes", name, writes), func(t *testing.T) {
				l := logtest.Capture(t)
				path := filepath.Join(t.TempDir(), "map.db")
				r := open(t, path)
				want := map[string]string{}
				add := func(node, prefix string, serial uint64) {
					t.Helper()
					register(t, r, registrationtest.Node(node, "192.0.2.1", prefix), serial)
					want[node] = prefix
				}
				for i := range 20 {
					add(fmt.Sprintf("n%d", i), fmt.Sprintf("10.%d.0.0/16", i), 1000)
				}
				register(t, r, registrationtest.Node("gone", "192.0.2.9"), 1000)
				register(t, r, &registration.Registration{Zone: testZone, Node: "gone"}, 2000)
				l.Lines()
				damage(t, path)
				within(t, "registrations", func() {
					for i := range writes {
						add(fmt.Sprintf("n%d", i), "11.0.0.0/8", 3000)
						add(fmt.Sprintf("late%d", i), "12.0.0.0/8", 3000)
					}
				})
				within(t, "the end of the server", r.Close)
				lines := strings.Join(l.Lines(), "\n")
				if n := strings.Count(lines, "writing all registrations to a new file"); n != 1 {
					t.Errorf("Expected one line about the damage, got %q", lines)
				}
				if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != strings.Count(lines, "Set aside") {
					t.Errorf("Expected the file to be set aside, got %v", aside)
				}

				again := open(t, path)
				defer again.Close()
				st := again.State()
				if len(st.Records) != len(want) {
					t.Errorf("Expected %d nodes, got %d", len(want), len(st.Records))
				}
				for node, prefix := range want {
					if rec := st.Records[node]; rec == nil || rec.Prefixes[0].String() != prefix {
						t.Errorf("Expected %s with %s, got %v", node, prefix, rec)
					}
				}
				old := registrationtest.Node("gone", "192.0.2.9")
				old.Serial = 1500
				if outcome, _, _ := again.Apply(old, time.Hour); outcome != registry.WrongSerial {
					t.Errorf("Expected the last serial of a withdrawn node to be kept, got %s", outcome)
				}
			})
		}
	}
}

// While no file can be written nothing is acknowledged; when one can be again, the
// server goes on.
func TestDirectoryRemovedUnderRunningServer(t *testing.T) {
	logtest.Capture(t)
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "map.db")
	r := open(t, path)
	register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	reg := registrationtest.Node("b", "192.0.2.2")
	reg.Serial = 1000
	for range 3 {
		if outcome, _, err := r.Apply(reg, time.Hour); outcome != registry.StoreFailed {
			t.Fatalf("Expected nothing to be acknowledged, got %s, %v", outcome, err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	register(t, r, reg, 1000)
	r.Close()
	again := open(t, path)
	defer again.Close()
	if n := len(again.State().Records); n != 2 {
		t.Errorf("Expected both nodes, got %d", n)
	}
}
