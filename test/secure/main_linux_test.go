package secure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// inside is set in the process that has the namespace.
const inside = "COREDNS_DNSLB_SECURE"

// addresses are all on the loopback interface of the namespace.
var addresses = []string{
	rootAddr, dnsbAddr, nodeAddr, plainAddr, unboundAddr, bindAddr, knotAddr, powerDNSAddr, bindSecondary, nsdSecondary, serverAddr,
}

var binary string // path of the built program

// TestMain runs the tests in a network namespace, where port 53 is free.
func TestMain(m *testing.M) { os.Exit(enter(m)) }

func enter(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // they are skipped
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...) // #nosec G204 -- this test
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "No network namespace:", err)
			return 1
		}
		return cmd.ProcessState.ExitCode()
	}

	dir, err := os.MkdirTemp("", "coredns-dnslb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "coredns-dnslb")
	commands := [][]string{{"go", "build", "-o", binary, "../.."}, {"ip", "link", "set", "lo", "up"}}
	for _, addr := range addresses {
		commands = append(commands, []string{"ip", "addr", "add", addr + "/32", "dev", "lo"})
	}
	for _, c := range commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil { // #nosec G204 -- those above
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", strings.Join(c, " "), err, out)
			return 1
		}
	}
	return m.Run()
}

// needs skips the test without root or programs; with CI set it fails.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	miss := t.Skipf
	if os.Getenv("CI") != "" {
		miss = t.Fatalf
	}
	if os.Getenv(inside) == "" {
		miss("A network namespace needs root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			miss("%s is not installed", p)
		}
	}
}

// daemon is a running server.
type daemon struct {
	cmd    *exec.Cmd
	log    string // its file
	ended  chan struct{}
	ending atomic.Bool
}

// run starts a server and ends it with the test. In its files and arguments DIR
// is its directory.
func run(t *testing.T, files map[string]string, program string, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	d := &daemon{cmd: exec.Command(program, args...), log: filepath.Join(dir, "log"), ended: make(chan struct{})} // #nosec G204 -- a test
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = dir, log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(program)
	go func() {
		err := d.cmd.Wait()
		if !d.ending.Load() {
			t.Errorf("%s ended by itself: %v", name, err)
		}
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.end(t, name)
		text, err := os.ReadFile(d.log)
		if err != nil {
			t.Error(err)
		}
		if bytes.Contains(text, []byte("panic:")) {
			t.Errorf("%s panicked", name)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	return d
}

// end asks the server to end and makes it if it does not.
func (d *daemon) end(t *testing.T, name string) {
	t.Helper()
	d.ending.Store(true)
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Ending %s: %v", name, err)
	}
	select {
	case <-d.ended:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
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
