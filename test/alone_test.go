package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mainWithPlugin is the source of a CoreDNS with one plugin of this project.
const mainWithPlugin = `package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns-dnslb/coredns-dnslb/plugin/%s"
)

func main() {
	i := slices.Index(dnsserver.Directives, "dynupdate")
	if err := dnsserver.SetDirectives(slices.Insert(slices.Clone(dnsserver.Directives), i, "latencyprobe", "dnsb", "dnslb")); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	coremain.Run()
}
`

// TestEachPluginCompilesAlone builds a CoreDNS with each of the plugins but not
// the main package of this project, as plugin.cfg does.
func TestEachPluginCompilesAlone(t *testing.T) {
	for _, name := range []string{"latencyprobe", "dnsb", "dnslb"} {
		dir := t.TempDir()
		source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "coredns")
		if err := os.WriteFile(source, fmt.Appendf(nil, mainWithPlugin, name), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-o", program, source)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("Expected CoreDNS with plugin %s to build, got: %v\n%s", name, err, out)
			continue
		}
		out, err := exec.Command(program, "-plugins").CombinedOutput()
		if err != nil || !slices.Contains(strings.Fields(string(out)), name) {
			t.Errorf("Expected plugin %s to be compiled in, got %v, %s", name, err, out)
		}
		modules, err := exec.Command("go", "version", "-m", program).CombinedOutput()
		if err != nil || strings.Contains(string(modules), "go.etcd.io/") {
			t.Errorf("Expected plugin %s not to link a store, got %v\n%s", name, err, modules)
		}
	}
}
