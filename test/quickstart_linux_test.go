package test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// shellBlock is a block of commands in a document, with the block of their
// output if one follows.
var shellBlock = regexp.MustCompile("(?ms)^~~~ sh\n(.*?)^~~~$(?:\n\n~~~ txt\n(.*?)^~~~$)?")

// TestQuickstart types docs/quickstart.md into a shell, and compares what the
// shell prints.
func TestQuickstart(t *testing.T) {
	for name, pkg := range map[string]string{"unbound": "unbound", "dig": "bind9-dnsutils", "ip": "iproute2", "bash": "bash"} {
		program(t, name, pkg)
	}
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Expected a network namespace, got %v: %s", err, out)
		}
		t.Skipf("No network namespace: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "quickstart.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlock.FindAllSubmatch(text, -1)
	if len(blocks) < 5 {
		t.Fatalf("Expected blocks of commands, got %d", len(blocks))
	}

	const end = "---- end of block"
	var typed strings.Builder
	for _, block := range blocks {
		typed.Write(block[1])
		typed.WriteString("echo '" + end + "'\n")
	}
	// All programs end with the first process of their namespace.
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-r", "--pid", "--fork", "--kill-child", "bash")
	cmd.Dir = root
	// Through a pipe, so that each shell reads its own lines, as from a terminal.
	cmd.Stdin = bytes.NewReader([]byte(typed.String()))
	cmd.WaitDelay = 10 * time.Second
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("Expected commands that succeed, got %v", err)
	}
	printed := strings.Split(string(out), end+"\n")
	for i, block := range blocks {
		if i >= len(printed)-1 {
			t.Errorf("Expected an end of\n%s", block[1])
			break
		}
		// dig and the shell report an attempt that came too early.
		got := regexp.MustCompile(`(?m)^;;.*\n`).ReplaceAllString(printed[i], "")
		if words(got) != words(string(block[2])) {
			t.Errorf("Expected\n%s, got\n%s, of\n%s", block[2], printed[i], block[1])
		}
	}
	if t.Failed() {
		t.Logf("Messages of the commands:\n%s", &problems)
	}
}

// words returns a text with one space between its words.
func words(s string) string { return strings.Join(strings.Fields(s), " ") }
