package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	runSection = regexp.MustCompile(`(?ms)^## Run$(.*?)^## `)
	// session is a block of commands after prompts, each with its output.
	session = regexp.MustCompile("(?ms)^~~~ txt\n(\\$ .*?)^~~~$")
)

// TestReadmeRuns types what the README says under Run into a shell, with a program
// that is compiled already, and ends it as Ctrl-C does.
func TestReadmeRuns(t *testing.T) {
	program(t, "dig", "bind9-dnsutils")
	newExample(t) // nothing else has its addresses
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	run := runSection.FindSubmatch(text)
	if run == nil {
		t.Fatal("Expected a section about running the example")
	}
	commands := shellBlock.FindAllSubmatch(run[1], -1)
	asked := session.FindSubmatch(run[1])
	if len(commands) != 2 || asked == nil {
		t.Fatalf("Expected two blocks of commands, and what dig says, got %d", len(commands))
	}
	shell := func(command string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", strings.Replace(command, "go run .", binary, 1))
		cmd.Dir = root
		return cmd
	}

	cmd := shell(string(commands[0][1]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a job of a terminal
	s := launchCommand(t, cmd)
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	s.waitFor("CoreDNS-", 20*time.Second)

	questions := strings.Split(string(asked[1]), "$ ")[1:]
	if len(questions) < 2 {
		t.Errorf("Expected questions to DNS-B and a node, got %q", questions)
	}
	for _, question := range questions {
		command, shown, _ := strings.Cut(question, "\n")
		wait(t, time.Minute, command, func() bool {
			out, err := shell(command).Output()
			return err == nil && hasLines(string(out), shown)
		})
	}
	out, err := shell(string(commands[1][1])).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\n  refer to par1 127.0.0.3\n") || !strings.Contains(string(out), "127.0.0.11") {
		t.Errorf("Expected the reasons, got %v:\n%s", err, out)
	}

	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		t.Error("Expected an end within 10s of Ctrl-C")
	}
	for _, node := range []string{"par1", "nyc1"} {
		if !strings.Contains(s.out.String(), `Withdrew node "`+node+`"`) {
			t.Errorf("Expected a withdrawal of %s", node)
		}
	}
}

// hasLines reports whether a text has all lines of another one, but for white space.
func hasLines(text, lines string) bool {
	has := make(map[string]bool)
	for line := range strings.Lines(text) {
		has[words(line)] = true
	}
	for line := range strings.Lines(lines) {
		if line := words(line); line != "" && !has[line] {
			return false
		}
	}
	return true
}
