package test

import (
	"strings"
	"testing"
	"time"
)

// TestSecondProcessIsRefused starts the example twice: the second process ends with
// an error, and what the first one has registered stays.
func TestSecondProcessIsRefused(t *testing.T) {
	e := newExample(t)
	first := start(t, "-conf", e.path)
	first.waitFor(`Registered node "par1" by key`, 30*time.Second)
	first.waitFor(`Registered node "nyc1" by key`, 30*time.Second)
	output, status := run(t, "-conf", e.path)
	if status == 0 || !strings.Contains(output, "another process serves") {
		t.Errorf("Expected an error about another process, got status %d and %s", status, output)
	}
	if out := first.out.String(); strings.Contains(out, "withdrew") || strings.Contains(out, "Refused") {
		t.Errorf("Expected the first process to notice nothing, got:\n%s", out)
	}
	if output, status := run(t, "-validate", "-conf", e.path); status != 0 {
		t.Errorf("Expected the Corefile of a running server to be valid, got %s", output)
	}
}
