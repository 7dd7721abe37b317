// Package test starts the real binary and asks it as its users do.
package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	buildFlags []string // -race, where the test has it
	binary     string   // path of the built program
)

// root is the repository's root, seen from this package's folder.
const root = ".."

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "coredns-dnslb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "coredns-dnslb")
	cmd := exec.Command("go", slices.Concat([]string{"build"}, buildFlags, []string{"-o", binary, "."})...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "Building the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// run runs the program to its end and returns what it prints.
func run(t *testing.T, args ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// server is a running program.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
}

// output is what a server printed so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start starts the program, which ends with the test, and waits until it serves.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(binary, args...), out: new(output), done: make(chan struct{})}
	s.cmd.Dir = root
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(s.done); _ = s.cmd.Wait() }()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("The program printed:\n%s", s.out)
		}
		if strings.Contains(s.out.String(), "DATA RACE") {
			t.Errorf("The program has a data race:\n%s", s.out)
		}
	})
	s.waitFor("CoreDNS-", 20*time.Second)
	return s
}

func (s *server) waitFor(text string, limit time.Duration) {
	s.t.Helper()
	wait(s.t, limit, fmt.Sprintf("the program to print %q", text), func() bool {
		select {
		case <-s.done:
			s.t.Fatalf("The program ended:\n%s", s.out)
		default:
		}
		return strings.Contains(s.out.String(), text)
	})
}

// stop asks the program to end and returns how long that took.
func (s *server) stop() time.Duration {
	begin := time.Now()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.t.Error("The program does not end")
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	return time.Since(begin)
}

// wait polls until ok, for at most limit.
func wait(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			t.Fatalf("Waited %s for %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin)
}

// scrape returns the samples of a metrics page by name and labels.
func scrape(t *testing.T, url string) map[string]float64 {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	samples := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(line[i:], &v); err == nil {
			samples[line[:i]] = v
		}
	}
	return samples
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestPlugins(t *testing.T) {
	out, status := run(t, "-plugins")
	if status != 0 {
		t.Fatalf("Unexpected status %d: %s", status, out)
	}
	listed := strings.Fields(out)
	for _, name := range []string{"dnsb", "dnslb", "latencyprobe", "file", "tsig", "transfer", "reload", "prometheus"} {
		if !slices.Contains(listed, name) {
			t.Errorf("Expected plugin %s in %v", name, listed)
		}
	}
	if slices.Contains(listed, "kubernetes") {
		t.Error("Expected no plugin that pulls in cluster libraries")
	}
}

func TestVersion(t *testing.T) {
	out, status := run(t, "-version")
	if want := regexp.MustCompile(`^coredns-dnslb-\S+ CoreDNS-1\.\d+\.\d+\nlinux/\S+, go1\.`); status != 0 || !want.MatchString(out) {
		t.Errorf("Expected %s, got status %d and %q", want, status, out)
	}
}

func TestValidate(t *testing.T) {
	out, status := run(t, "-validate", "-conf", "corefile.example")
	if status != 0 || out != "corefile.example: ok\n" {
		t.Errorf("Expected the example to be right, got status %d and %q", status, out)
	}

	dir := t.TempDir()
	tests := []struct {
		corefile string
		want     []string
	}{
		{"example.org {\n  dnslb {\n}\n}\n", []string{"add a line 'latencyprobe'"}},
		// All of the errors, not only the first.
		{
			"example.org:1053 {\n  latencyprobe {\n  rtt smtp 25\n  }\n}\nexample.net:1053 {\n  dnsb {\n  nonsense\n  }\n}\n",
			[]string{":3 ", "latencyprobe", ":8 ", "nonsense", "2 found"},
		},
		{"example.org {\n  file " + dir + "/missing\n}\n", []string{"missing"}},
		{"example.org:1053 {\n  whoami\n}\nexample.org:1053 {\n  whoami\n}\n", []string{"already defined"}},
		// What shows only between the plugins of a block.
		{"example.org:1053 {\n  latencyprobe\n  dnslb\n}\n", []string{":3 ", "no service"}},
		{"example.org:1053 {\n  latencyprobe\n  dnslb {\n    service www.example.org\n  }\n}\n", []string{":4 ", "no plugin behind dnslb"}},
		{"example.org:1053 {\n  latencyprobe\n  dnslb {\n    server fra 192.0.2.1\n    service www.example.org fra\n    observe\n  }\n}\n", []string{":3 ", "'observe' leaves"}},
		{"example.org:1053 {\n  dnssec\n  latencyprobe\n  dnslb {\n    server fra 192.0.2.1\n    service www.example.org fra\n  }\n}\n", []string{":4 ", "dnssec"}},
		{"gslb.example.org:1053 {\n  dnssec\n  dnsb {\n    ns b1.gslb.example.org 192.0.2.53\n    node par1 192.0.2.54\n    cut svc.gslb.example.org par1\n    default par1\n  }\n}\n", []string{":3 ", "dnssec"}},
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
