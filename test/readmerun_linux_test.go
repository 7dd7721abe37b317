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

// TestReadmeRuns types what the README says under Run into a shell in a checkout, and
// ends the program as Ctrl-C does.
func TestReadmeRuns(t *testing.T) {
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
	sessions := session.FindAllSubmatch(run[1], -1)
	if len(commands) != 2 || len(sessions) != 2 {
		t.Fatalf("Expected two blocks of commands, and two with what they print, got %d and %d", len(commands), len(sessions))
	}
	dir := checkout(t, "corefile.example")
	shell := func(command string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		return cmd
	}

	cmd := shell(string(commands[0][1]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a job of a terminal
	s := launchCommand(t, cmd)
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	s.waitFor("CoreDNS-", 10*time.Minute) // it is compiled

	var questions []string
	for _, s := range sessions {
		questions = append(questions, strings.Split(string(s[1]), "$ ")[1:]...)
	}
	if len(questions) != 4 {
		t.Errorf("Expected three questions and a change, got %q", questions)
	}
	for _, question := range questions {
		command, shown, _ := strings.Cut(question, "\n")
		wait(t, 3*time.Minute, command, func() bool {
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

// checkout returns a directory that is as the repository, with a copy of one file,
// which may be edited.
func checkout(t *testing.T, edited string) string {
	t.Helper()
	source, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, e := range entries {
		switch name := e.Name(); {
		case name == edited:
			writerIn(t, dir)(name, string(contentOf(t, source, name)))
		case name != ".git":
			if err := os.Symlink(filepath.Join(source, name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
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
