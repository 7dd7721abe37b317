package test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

// TestPackagesAlone builds a CoreDNS with one of the plugins and nothing else of
// ours, as somebody's own plugin.cfg does, and lists its plugins. A plugin that
// is in the order and not compiled in must do no harm.
func TestPackagesAlone(t *testing.T) {
	if len(dnsserver.Directives) == 0 {
		t.Fatal("No plugin order")
	}
	for _, name := range []string{"latencyprobe", "dnsb", "dnslb"} {
		out, err := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), name), "./testdata/alone/"+name).CombinedOutput()
		if err != nil {
			t.Errorf("Building with plugin %s alone: %v\n%s", name, err, out)
		}
	}
}
