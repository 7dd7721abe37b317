package latencyprobe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"
)

func init() {
	caddy.Quiet, dnsserver.Quiet = true, true
	i := slices.Index(dnsserver.Directives, "dynupdate")
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), i, pluginName, "watcher")
	plugin.Register("watcher", setupWatcher)
}

// watcher is a plugin with one target: 'watcher [fail]'. With 'fail' its
// startup fails after it has begun to watch.
var watcher struct {
	mu    sync.Mutex
	watch *Watch
}

func setupWatcher(c *caddy.Controller) error {
	c.Next()
	fail := c.NextArg()
	l := ForServerBlock(c)
	c.OnStartup(func() error {
		w := l.Watch()
		w.Set([]Target{local})
		if fail {
			return errors.New("startup fails as configured")
		}
		watcher.mu.Lock()
		defer watcher.mu.Unlock()
		watcher.watch = w
		return nil
	})
	return nil
}

var local = Target{Name: "local", Addr: loopback}

// localStatus returns what the newest instance that has started knows.
func localStatus() Status {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	return watcher.watch.Status(local)
}

func waitFor(t *testing.T, event string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("Expected %s within a minute", event)
}

// TestServerOverReloads runs a server over reloads, some of which fail, and
// over a restart of the process.
func TestServerOverReloads(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	path := filepath.Join(t.TempDir(), "state")
	port := listener.Addr().(*net.TCPAddr).Port
	corefile := func(lines, args string) caddy.Input {
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: fmt.Appendf(nil,
			".:0 {\nbind 127.0.0.1\nlatencyprobe {\nrtt tcp %d\ninterval 1s\n%s\n}\nwatcher %s\n}\n", port, lines, args)}
	}
	state := "state " + path + "\nrecord " + path + ".csv"

	instance, err := caddy.Start(corefile(state, ""))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "samples", func() bool { return localStatus().Samples >= 2 })
	before := localStatus()

	instance, err = instance.Restart(corefile(state+"\ntimeout 900ms", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := localStatus(); got.State != Up || got.Samples < before.Samples || got.Since != before.Since || !got.Estimate.Measured() {
		t.Errorf("Expected %+v to survive a reload, got %+v", before, got)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("Expected a reload not to close the state file")
	}
	before = localStatus()
	waitFor(t, "more samples", func() bool { return localStatus().Samples > before.Samples })

	// What only the failed instance had ends: a target with another source, and
	// other files.
	other := strings.ReplaceAll(state, path, path+".other")
	if _, err := instance.Restart(corefile(other+"\nsource 127.0.0.1", "fail")); err == nil || !strings.Contains(err.Error(), "as configured") {
		t.Fatalf("Expected the restart to fail, got %v", err)
	}
	if n := len(measurements.Values()); n != 1 {
		t.Errorf("Expected only the target of the running instance, got %d", n)
	}
	if files := stateFiles.Values(); len(files) != 1 || files[0].path != path {
		t.Errorf("Expected only the file of the running instance, got %v", files)
	}
	before = localStatus()
	waitFor(t, "samples after a failed restart", func() bool { return localStatus().Samples > before.Samples })
	// What both instances have goes on.
	if _, err := instance.Restart(corefile(state, "fail")); err == nil {
		t.Fatal("Expected the restart to fail")
	}
	if got := localStatus(); got.State != Up || got.Samples < before.Samples {
		t.Errorf("Expected %+v to survive a failed restart, got %+v", before, got)
	}
	before = localStatus()
	waitFor(t, "samples after a failed restart", func() bool { return localStatus().Samples > before.Samples })

	stop(t, instance)
	before = localStatus()
	if all := stateAt(t, path); len(all) != 1 {
		t.Errorf("Expected one target in the file, got %v", all)
	}
	if n := uint64(strings.Count(content(t, path+".csv"), "\n")) - 1; n < before.Samples/2 || n > before.Samples {
		t.Errorf("Expected a trace of some %d samples, got %d", before.Samples, n)
	}

	// The process starts again.
	instance, err = caddy.Start(corefile(state, ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := localStatus(); got.State != Up || got.Since.UnixMilli() != before.Since.UnixMilli() || !got.Estimate.Measured() {
		t.Errorf("Expected %+v to survive a restart, got %+v", before, got)
	}
	stop(t, instance)
}

// stop ends an instance and checks that nothing of it remains.
func stop(t *testing.T, instance *caddy.Instance) {
	t.Helper()
	for _, err := range instance.ShutdownCallbacks() {
		t.Errorf("Expected a clean shutdown, got %v", err)
	}
	if err := instance.Stop(); err != nil {
		t.Errorf("Expected a clean stop, got %v", err)
	}
	waitFor(t, "all goroutines to end", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !strings.Contains(string(stacks), pluginName+".(*") && !strings.Contains(string(stacks), pluginName+"/trace.(*")
	})
	if n := len(measurements.Values()) + len(stateFiles.Values()) + len(traces.Values()); n != 0 {
		t.Errorf("Expected nothing to remain, got %d", n)
	}
}
