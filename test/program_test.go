// Package test starts the program and uses it as operators and resolvers do.
package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testrace"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
)

var (
	buildFlags []string // -race if this test has it
	binary     string   // path of the built program
)

var wait = testwatch.Wait

// root is the root of the repository.
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
		fmt.Fprintf(os.Stderr, "Failed to build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// run waits for the end of the program and returns its output and exit status.
func run(t *testing.T, args ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
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
	done chan struct{} // closed when the program has ended
}

// output collects what a program prints.
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

// start starts the program, which ends with the test, and waits until it
// serves.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	return startCommand(t, exec.Command(binary, args...))
}

// startCommand starts the program by a command that becomes it.
func startCommand(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := launchCommand(t, cmd)
	s.waitFor("CoreDNS-", time.Minute)
	return s
}

// launch starts the program, which ends with the test if it does not end by
// itself.
func launch(t *testing.T, args ...string) *server {
	t.Helper()
	return launchCommand(t, exec.Command(binary, args...))
}

func launchCommand(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{t: t, cmd: cmd, out: new(output), done: make(chan struct{})}
	if s.cmd.Dir == "" {
		s.cmd.Dir = root
	}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(s.done); _ = s.cmd.Wait() }()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("Output of the program:\n%s", s.out)
		}
		if races := testrace.Find(s.out.String()); len(races) > 0 {
			t.Errorf("Expected no data race in the program, got:\n%s", strings.Join(races, "\n"))
		}
	})
	return s
}

// waitFor waits until the program has printed a text.
func (s *server) waitFor(text string, limit time.Duration) {
	s.t.Helper()
	wait(s.t, limit, fmt.Sprintf("the program to print %q", text), func() bool {
		select {
		case <-s.done:
			s.t.Fatalf("Expected the program to run, but it ended:\n%s", s.out)
		default:
		}
		return strings.Contains(s.out.String(), text)
	})
}

// stop ends the program and returns how long it took to end.
func (s *server) stop() time.Duration {
	watch := testwatch.Start(s.t)
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		s.t.Error("Expected the program to end within a minute")
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	return watch.Elapsed()
}

// scrape returns the samples of a metrics page, by name and labels.
func scrape(t *testing.T, url string) map[string]float64 {
	t.Helper()
	client := http.Client{Timeout: time.Minute}
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

// freePort returns a free port of 127.0.0.1, in digits.
func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(testport.Free(t))
}
