package dnsb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testmount"
)

// TestExportToFullFileSystem checks that an export which fails leaves the previous
// file, is logged once, and is made up for.
func TestExportToFullFileSystem(t *testing.T) {
	fs := testmount.Mount(t)
	if fs == nil {
		return
	}
	out := logtest.Capture(t)
	path := filepath.Join(fs.Dir, "map")
	synctest.Test(t, func(t *testing.T) {
		d := started(t, "accept k1 par1 any\nlease 5m 10m\nexport "+path, nil)
		content := func() string {
			time.Sleep(3 * exportEvery)
			synctest.Wait()
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return string(content)
		}
		registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
		previous := content()
		if !strings.Contains(previous, "10.0.0.0/8 par1") {
			t.Fatalf("Expected an exported map, got %q", previous)
		}
		out.Lines()
		errors := testutil.ToFloat64(exportCount.WithLabelValues(testZone, "error"))
		for name, cause := range map[string]struct{ fail, mend func() }{
			"full":      {fs.Fill, fs.Free},
			"read-only": {func() { fs.SetReadOnly(true) }, func() { fs.SetReadOnly(false) }},
		} {
			cause.fail()
			registers(t, d, nodeAt("par1", "192.0.2.1", "11.0.0.0/8"))
			if now := content(); now != previous {
				t.Errorf("%s: Expected the previous file, got %q", name, now)
			}
			out.Expect(t, "Failed to export the map")
			if n := testutil.ToFloat64(exportCount.WithLabelValues(testZone, "error")) - errors; n < 2 {
				t.Errorf("%s: Expected the failures to be counted, got %v", name, n)
			}
			cause.mend()
			if now := content(); !strings.Contains(now, "11.0.0.0/8 par1") {
				t.Errorf("%s: Expected the new map, got %q", name, now)
			}
			out.Expect(t, "Recovered: export of the map")
			registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
			previous, errors = content(), testutil.ToFloat64(exportCount.WithLabelValues(testZone, "error"))
			out.Lines()
		}
	})
	if names, err := filepath.Glob(filepath.Join(fs.Dir, "*")); err != nil || len(names) != 1 {
		t.Errorf("Expected nothing but the file, got %v, %v", names, err)
	}
}
