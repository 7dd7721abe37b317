//go:build unix

package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
)

// blockingTime is how long the program may take to start, to reload and to end
// when named pipes are in place of its files: the time of a few file systems that
// do not answer, and of a busy machine.
const blockingTime = 20 * time.Second

// files are those of a Corefile that names one of each kind.
func files(t *testing.T) (dir, corefile string, names []string) {
	t.Helper()
	dir = t.TempDir()
	const secret = "c2VjcmV0LWV4YW1wbGUtb25seS1tYWtlLXlvdXItb3du"
	for name, content := range map[string]string{
		"map":      "198.51.100.0/24 st1\n",
		"admin":    "",
		"ds":       "old.gslb.example.org. IN DS 12345 13 2 " + strings.Repeat("ab", 32) + "\n",
		"services": "server fra 127.0.0.11\nservice www.svc.gslb.example.org fra\n",
		"near":     "203.0.113.0/24\n",
		"key":      `key "k1" { algorithm hmac-sha256; secret "` + secret + `"; };` + "\n",
	} {
		names = append(names, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	corefile = filepath.Join(dir, "Corefile")
	dnsb, dnslb := freePort(t), freePort(t)
	text := fmt.Sprintf(`gslb.example.org:%[1]s {
	bind 127.0.0.1
	root %[3]s
	tsig {
		secret k1. %[4]s
	}
	latencyprobe {
		rtt tcp %[1]s
		state state
		record trace
	}
	dnsb {
		ns b1 127.0.0.1
		accept k1 par1 any
		node st1 127.0.0.9
		cut old st1
		ds old ds
		map map
		admin admin
		export export
		store db store
	}
}
svc.gslb.example.org:%[2]s {
	bind 127.0.0.1
	root %[3]s
	latencyprobe {
		rtt tcp %[1]s
		state state
	}
	dnslb {
		services services
		admin admin
		node par1 127.0.0.1
		near near
		register 127.0.0.1:%[1]s
		key key
	}
}
`, dnsb, dnslb, dir, secret)
	if err := os.WriteFile(corefile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, corefile, append(names, "state", "state.tmp", "trace", "export", "store")
}

// TestNamedPipesDoNotBlockServer puts a named pipe in place of each file of a
// running server: it reloads and ends, and what it has to say is in the log.
func TestNamedPipesDoNotBlockServer(t *testing.T) {
	dir, corefile, names := files(t)
	s := start(t, "-conf", corefile)
	s.waitFor("Registered node", blockingTime)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.waitFor("Failed to reload the map", blockingTime)
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	wait(t, blockingTime, "the end of the reload", func() bool {
		return strings.Contains(s.out.String(), "Reloading complete") || strings.Contains(s.out.String(), "Restart failed")
	})
	if took := s.stop(); took > blockingTime {
		t.Errorf("Expected the server to end, took %s", took)
	}
	for _, want := range []string{"Failed to write state file", "expected a regular file"} {
		if !strings.Contains(s.out.String(), want) {
			t.Errorf("Expected %q in the log", want)
		}
	}
}

// TestNamedPipesDoNotBlockStart puts a named pipe in place of each file by itself
// before the start: it is an error of the Corefile that names the file, or the
// server starts without the file.
func TestNamedPipesDoNotBlockStart(t *testing.T) {
	dir, corefile, names := files(t)
	for _, name := range names {
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		missing := errors.Is(err, os.ErrNotExist)
		if err != nil && !missing {
			t.Fatal(err)
		}
		if !missing {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		watch := testwatch.Start(t)
		out, status := run(t, "-validate", "-conf", corefile)
		if took := watch.Elapsed(); took > blockingTime || name != "state.tmp" && (status != 1 || !strings.Contains(out, path) || !strings.Contains(out, "expected a regular file")) {
			t.Errorf("Expected -validate to refuse %s within %s, got status %d after %s: %s", name, blockingTime, status, took, out)
		}
		s := launch(t, "-conf", corefile)
		// While CoreDNS starts, its own handling of SIGTERM has a data race.
		wait(t, blockingTime, "the start with "+name+", or its end by an error", func() bool {
			select {
			case <-s.done:
				return true
			default:
				return strings.Contains(s.out.String(), "CoreDNS-")
			}
		})
		if !strings.Contains(s.out.String(), path) && name != "state.tmp" {
			t.Errorf("Expected the output to name %s, got: %s", path, s.out)
		}
		if took := s.stop(); took > blockingTime {
			t.Errorf("Expected the server to end with %s, took %s", name, took)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if !missing {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
