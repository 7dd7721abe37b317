package widearea

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// logTail is the length in bytes of the end of a log that is printed when a
// test fails.
const logTail = 8000

// daemon is a running server.
type daemon struct {
	name   string
	log    string // path of the log file
	ending atomic.Bool
	cmd    *exec.Cmd
	ended  chan struct{}
}

// run starts a server on a host, which ends with the test. In its files and
// arguments DIR is its directory.
func run(t *testing.T, h *Host, files map[string]string, program string, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{name: filepath.Base(program) + " on " + h.Name, log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatalf("Expected to write %s, got %v", name, err)
		}
	}
	args = slices.Clone(args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatalf("Expected to write a log, got %v", err)
	}
	defer log.Close()
	d.cmd = exec.Command(program, args...)
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = dir, log, log
	if err := h.Run(d.cmd); err != nil {
		t.Fatalf("Expected to start %s, got %v", d.name, err)
	}
	go func() {
		err := d.cmd.Wait()
		if !d.ending.Load() {
			t.Errorf("Expected %s to run until the end of the test, got: %v", d.name, err)
		}
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.end()
		text, err := os.ReadFile(d.log)
		if err != nil {
			t.Errorf("Expected the log of %s, got %v", d.name, err)
		}
		if bytes.Contains(text, []byte("DATA RACE")) || bytes.Contains(text, []byte("panic:")) {
			t.Errorf("Expected no data race and no panic of %s", d.name)
		}
		if t.Failed() {
			t.Logf("Log of %s:\n%s", d.name, text[max(0, len(text)-logTail):])
		}
	})
	return d
}

// end terminates the server, and kills it if it does not end.
func (d *daemon) end() {
	d.ending.Store(true)
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.ended
	}
}

// fill executes a template.
func fill(t *testing.T, text string, values any) string {
	t.Helper()
	tmpl, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		t.Fatalf("Expected a template, got %v", err)
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, values); err != nil {
		t.Fatalf("Expected to fill the template, got %v", err)
	}
	return out.String()
}

// nsd runs an authoritative server with zone files by the name of the zone.
func nsd(t *testing.T, h *Host, zones map[string]string) *daemon {
	t.Helper()
	files := make(map[string]string)
	names := make([]string, 0, len(zones))
	for name, text := range zones {
		files["zone."+name] = text
		names = append(names, name)
	}
	files["conf"] = fill(t, `server:
	server-count: 1
{{- range .Host.Addrs}}
	ip-address: {{.}}
{{- end}}
	username: ""
	chroot: ""
	zonesdir: "DIR"
	database: ""
	pidfile: "DIR/pid"
	xfrdfile: "DIR/xfrd"
	xfrdir: "DIR"
	zonelistfile: "DIR/zones"
	cookie-secret-file: "DIR/cookies"
remote-control:
	control-enable: no
{{range .Zones}}
zone:
	name: "{{.}}"
	zonefile: "DIR/zone.{{.}}"
{{end}}`, map[string]any{"Host": h, "Zones": names})
	return run(t, h, files, "nsd", "-d", "-c", "DIR/conf")
}
