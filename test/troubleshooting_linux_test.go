package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTroubleshooting runs the commands of docs/troubleshooting.md beside the
// example.
func TestTroubleshooting(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlock.FindAllSubmatch(text, -1)
	want := [][]string{
		{"\npar1  live ", "\n  svc.gslb.example.org. on node nyc1\n", "\n  refer to par1 127.0.0.3\n", "www.svc.gslb.example.org. A for 127.0.1.10: 127.0.0.11"},
		{"corefile.example: ok"},
	}
	if len(blocks) != len(want) {
		t.Fatalf("Expected %d blocks of commands, got %d", len(want), len(blocks))
	}
	s := start(t, "-conf", newExample(t).path)
	s.waitFor(`Registered node "par1" by key`, 30*time.Second)
	s.waitFor(`Registered node "nyc1" by key`, 30*time.Second)
	wait(t, time.Minute, "a referral to the nearest node", func() bool { return referredTo(t, "127.0.1.10") == "127.0.0.3" })
	for i, block := range blocks {
		cmd := exec.Command("sh", "-ec", string(block[1]))
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v, of\n%s\n%s", err, block[1], out)
		}
		for _, part := range want[i] {
			if !strings.Contains(string(out), part) {
				t.Errorf("Expected %q in\n%s, of\n%s", part, out, block[1])
			}
		}
	}
}
