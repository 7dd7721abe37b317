package widearea

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testrace"
)

// logTail is the length in bytes of the end of a log that is printed when a
// test fails.
const logTail = 8000

// daemon is a server program on a host. It may be killed and started again.
type daemon struct {
	name    string
	host    *Host
	dir     string
	log     string // path of the log file
	program string
	args    []string

	mu      sync.Mutex
	current *process
}

// process is one run of a daemon.
type process struct {
	cmd    *exec.Cmd
	ending atomic.Bool
	ended  chan struct{}
}

// run starts a server on a host, which ends with the test. In its files and
// arguments DIR is its directory.
func run(t *testing.T, h *Host, files map[string]string, program string, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{name: filepath.Base(program) + " on " + h.Name, host: h, dir: dir, log: filepath.Join(dir, "log"), program: program, args: slices.Clone(args)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatalf("Expected to write %s, got %v", name, err)
		}
	}
	for i := range d.args {
		d.args[i] = strings.ReplaceAll(d.args[i], "DIR", dir)
	}
	if err := d.start(t); err != nil {
		t.Fatalf("Expected to start %s, got %v", d.name, err)
	}
	t.Cleanup(func() {
		d.end()
		text, err := os.ReadFile(d.log)
		if err != nil {
			t.Errorf("Expected the log of %s, got %v", d.name, err)
		}
		if races := testrace.Find(string(text)); len(races) > 0 || bytes.Contains(text, []byte("panic:")) {
			t.Errorf("Expected no data race and no panic of %s, got:\n%s", d.name, strings.Join(races, "\n"))
		}
		if t.Failed() {
			t.Logf("Log of %s:\n%s", d.name, text[max(0, len(text)-logTail):])
		}
	})
	return d
}

// start starts the program, which must not end by itself.
func (d *daemon) start(t *testing.T) error {
	t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(d.program, d.args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = d.dir, log, log
	if err := d.host.Run(p.cmd); err != nil {
		return err
	}
	go func() {
		err := p.cmd.Wait()
		if !p.ending.Load() {
			t.Errorf("Expected %s to run until the end of the test, got: %v", d.name, err)
		}
		close(p.ended)
	}()
	d.mu.Lock()
	d.current = p
	d.mu.Unlock()
	return nil
}

// process returns the newest run.
func (d *daemon) process() *process {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

// signal sends a signal that does not end the program.
func (d *daemon) signal(s syscall.Signal) { d.process().signal(s) }

func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// kill ends the program without a warning.
func (d *daemon) kill() {
	p := d.process()
	p.ending.Store(true)
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// end terminates the program, and kills it if it does not end.
func (d *daemon) end() {
	p := d.process()
	p.ending.Store(true)
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.ended
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
