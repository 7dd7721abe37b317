package secure

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
)

var wait = testwatch.Wait

// daemon is a running server.
type daemon struct {
	cmd    *exec.Cmd
	log    string // path of the log file
	ended  chan struct{}
	ending atomic.Bool
}

// run starts a server, which ends with the test. In its files and arguments DIR
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
			t.Errorf("Expected %s to run until the end of the test, got: %v", name, err)
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
			t.Errorf("Expected no panic of %s", name)
		}
		if t.Failed() {
			t.Logf("Log of %s:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	return d
}

// end terminates the server, and kills it if it does not end.
func (d *daemon) end(t *testing.T, name string) {
	t.Helper()
	d.ending.Store(true)
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Expected to terminate %s, got: %v", name, err)
	}
	select {
	case <-d.ended:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
}
