package latencyprobe

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testmount"
)

// TestStateOnFullFileSystem checks that a state file which cannot be written stays
// as it is, and is read and written again when that is possible.
func TestStateOnFullFileSystem(t *testing.T) {
	fs := testmount.Mount(t)
	if fs == nil {
		return
	}
	out := logtest.Capture(t)
	path := filepath.Join(fs.Dir, "state")
	bubble(t, func(t *testing.T) {
		target, f := at("192.0.2.1"), newFake(time.Millisecond)
		measure := func() *LatencyProbe {
			l := withState(t, f, path)
			l.Watch().Set([]Target{target})
			time.Sleep(3 * savePeriod)
			synctest.Wait()
			return l
		}
		modified := func() time.Time {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			return info.ModTime()
		}
		end(measure())
		for name, cause := range map[string]struct{ fail, mend func() }{
			"full":      {fs.Fill, fs.Free},
			"read-only": {func() { fs.SetReadOnly(true) }, func() { fs.SetReadOnly(false) }},
		} {
			out.Lines()
			if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil { // the clock of a file system may be coarse
				t.Fatal(err)
			}
			cause.fail()
			before, failed := modified(), testutil.ToFloat64(stateWrites.WithLabelValues("error"))
			l := measure()
			if now := modified(); !now.Equal(before) {
				t.Errorf("%s: Expected the previous file, got one of %s", name, now)
			}
			if n := testutil.ToFloat64(stateWrites.WithLabelValues("error")) - failed; n < 2 {
				t.Errorf("%s: Expected the failures to be counted, got %v", name, n)
			}
			out.Expect(t, "Read state of 1 target ", "Failed to write state file")
			cause.mend()
			time.Sleep(2 * savePeriod)
			synctest.Wait()
			out.Expect(t, "Recovered: state file")
			if now := modified(); now.Equal(before) {
				t.Errorf("%s: Expected the file to be written again", name)
			}
			end(l)
		}
	})
	if names, err := filepath.Glob(filepath.Join(fs.Dir, "*")); err != nil || len(names) != 1 {
		t.Errorf("Expected nothing but the file, got %v, %v", names, err)
	}
}
