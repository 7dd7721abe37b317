//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestRegistrationIsMeasured(t *testing.T) {
	if _, err := exec.LookPath("ip"); os.Getenv("CI") == "" && (err != nil || os.Geteuid() != 0) {
		t.Skip("Network namespaces need root and the program ip (iproute2)")
	}
	program := filepath.Join(t.TempDir(), "coredns-dnslb")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("Expected to build the program, got error: %v: %s", err, out)
	}
	svg := filepath.Join(t.TempDir(), "reaction.svg")
	var stdout, stderr bytes.Buffer
	if err := run([]string{"-program", program, "-trials", "3", "-only", "node registers", "-svg", svg}, &stdout, &stderr); err != nil {
		t.Fatalf("Expected times, got error: %v: %s", err, &stderr)
	}
	if row := regexp.MustCompile(`(?m)^node registers +3( +\d+\.\d{3}){4}$`); !row.Match(stdout.Bytes()) {
		t.Errorf("Expected a row of three trials, got %s", &stdout)
	}
	if chart, err := os.ReadFile(svg); err != nil || !bytes.Contains(chart, []byte("node registers")) {
		t.Errorf("Expected a chart, got %q, %v", chart, err)
	}
}
