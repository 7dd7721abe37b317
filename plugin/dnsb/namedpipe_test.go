//go:build unix

package dnsb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

// Who opens a named pipe waits until another process writes to it.
func TestNamedPipesBlockNothing(t *testing.T) {
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path, admin := filepath.Join(dir, "map"), filepath.Join(dir, "admin")
		writeMap(t, path, "10.0.0.0/8 st1\n")
		writeMap(t, admin, "")
		d := started(t, fourNodes+"map "+path+"\nadmin "+admin, nil)
		for _, file := range []string{path, admin} {
			if err := errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(filewatch.Interval + filewatch.SettleTime)
		synctest.Wait()
		lines := strings.Join(log.Lines(), "\n")
		if strings.Count(lines, "expected a regular file") != 2 || strings.Count(lines, "Failed to reload") != 2 {
			t.Errorf("Expected one error for each pipe, got %s", lines)
		}
		if got := referredTo(t, d, "10.0.0.1"); got != "st1" {
			t.Errorf("Expected the previous map, got %s", got)
		}
		writeMap(t, path+".new", "10.0.0.0/8 par1\n")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(filewatch.Interval + filewatch.SettleTime)
		synctest.Wait()
		if n := d.resolvers.prefixes.Operators(); n != 1 || d.resolvers.prefixes.Names()[0] != "par1" {
			t.Errorf("Expected the file in place of the pipe to be read, got %v", d.resolvers.prefixes.Names())
		}
	})
}
