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

func TestQuickstart(t *testing.T) { typeDocument(t, "docs/quickstart.md", 4*time.Minute) }

func TestOperations(t *testing.T) { typeDocument(t, "docs/operations.md", 10*time.Minute) }

func TestDeployAlongside(t *testing.T) { typeDocument(t, "docs/deploy-alongside.md", 8*time.Minute) }

func TestExternalDNS(t *testing.T) { typeDocument(t, "docs/external-dns.md", 5*time.Minute) }

// shellBlock is a block of commands in a document, with the block of their
// output if one follows.
var shellBlock = regexp.MustCompile("(?ms)^~~~ sh\n(.*?)^~~~$(?:\n\n~~~ txt\n(.*?)^~~~$)?")

// typeDocument types the commands in a document into a shell, and compares what
// they print with the document, where … stands for any text.
func typeDocument(t *testing.T, document string, limit time.Duration) {
	t.Helper()
	for name, pkg := range map[string]string{
		"unbound": "unbound", "named": "bind9", "tsig-keygen": "bind9", "dig": "bind9-dnsutils", "nsupdate": "bind9-dnsutils", "ip": "iproute2", "bash": "bash",
	} {
		program(t, name, pkg)
	}
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Expected a network namespace, got %v: %s", err, out)
		}
		t.Skipf("No network namespace: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(root, document))
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
	ctx, cancel := context.WithTimeout(t.Context(), limit)
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
			t.Errorf("Expected an end of\n%s, got\n%s", block[1], printed[i])
			break
		}
		// dig and the shell report an attempt that came too early.
		got := regexp.MustCompile(`(?m)^;;.*\n`).ReplaceAllString(printed[i], "")
		if !shows(got, string(block[2])) {
			t.Errorf("Expected\n%s, got\n%s, of\n%s", block[2], printed[i], block[1])
		}
	}
	if t.Failed() {
		t.Logf("Messages of the commands:\n%s", &problems)
	}
}

// shows reports whether a text is what a document shows, but for white space.
func shows(text, shown string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(words(shown)), "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(words(text))
}

// words returns a text with one space between its words.
func words(s string) string { return strings.Join(strings.Fields(s), " ") }
