package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var recipe = regexp.MustCompile("(?ms)^~~~ plugin.cfg\n(.*?)^~~~$.*?^~~~ sh\n(.*?)^~~~$")

// TestReadmeBuildsCoreDNS follows the README in a copy of CoreDNS's source, and
// starts the result with a Corefile of all three plugins and a store.
func TestReadmeBuildsCoreDNS(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	words := recipe.FindSubmatch(text)
	if words == nil {
		t.Fatal("Expected lines of plugin.cfg and commands in the README")
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/coredns/coredns").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "coredns")
	if err := os.CopyFS(source, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		t.Fatal(err)
	}
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(checkout, filepath.Join(dir, "coredns-dnslb")); err != nil {
		t.Fatal(err)
	}

	const next = "\ndynupdate:dynupdate\n"
	plugins := contentOf(t, source, "plugin.cfg")
	if bytes.Count(plugins, []byte(next)) != 1 {
		t.Fatalf("Expected one line %q in plugin.cfg", next)
	}
	plugins = bytes.Replace(plugins, []byte(next), append([]byte("\n"+string(words[1])), next[1:]...), 1)
	for name, content := range map[string][]byte{
		"plugin.cfg": plugins,
		"Corefile": []byte("gslb.example.org {\n bind 127.0.0.1\n latencyprobe\n dnsb {\n  ns b1 127.0.0.1\n  store db registrations.db\n" +
			"  node par1 127.0.0.1\n  default par1\n }\n}\nsvc.example.org {\n bind 127.0.0.1\n latencyprobe\n" +
			" dnslb {\n  server fra 127.0.0.1\n  service www.svc.example.org fra\n }\n}\n"),
	} {
		path := filepath.Join(source, name)
		_ = os.Remove(path) // read-only, as all files of the module cache
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "core/plugin/zplugin.go", "core/dnsserver/zdirectives.go"} {
		if err := os.Chmod(filepath.Join(source, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-ec", string(words[2]))
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command("./coredns", "-conf", "Corefile", "-dns.port", freePort(t))
	cmd.Dir = source
	startCommand(t, cmd)
}
