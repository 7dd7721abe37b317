package dnsb

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"

	"github.com/miekg/dns"
)

// needs returns where a program is, and ends the test if it is not installed.
func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Expected %s to be installed", program)
		}
		t.Skipf("%s is not installed", program)
	}
	return path
}

// scripts returns the shell scripts in a document.
func scripts(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path) // #nosec G304 -- a test
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, block := range strings.Split(string(content), "~~~ sh\n")[1:] {
		script, _, _ := strings.Cut(block, "~~~\n")
		found = append(found, script)
	}
	return found
}

// The scripts in the documents do what is said of them.
func TestScripts(t *testing.T) {
	needs(t, "nsupdate")
	needs(t, "dig")
	dir := t.TempDir()
	key := "key \"par1.key\" {\n\talgorithm hmac-sha256;\n\tsecret \"" + parSecret + "\";\n};\n"
	if err := os.WriteFile(filepath.Join(dir, "par1.key"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	for document, want := range map[string][]string{ // the prefixes of par1 after each script
		"README.md": {"1:203.0.113.0/24 !1:203.0.113.128/25", ""},
		"../../docs/registration.md": {
			"1:198.51.100.0/24 !1:198.51.100.128/25", "1:198.51.100.0/25", "1:198.51.100.0/24 1:203.0.113.0/24", "1:198.51.100.0/24", "",
		},
	} {
		t.Run(filepath.Base(document), func(t *testing.T) {
			_, port := serve(t, "accept par1.key. par1 203.0.113.0/24")
			all := scripts(t, document)
			if len(all) != len(want) {
				t.Fatalf("Expected %d scripts, got %d", len(want), len(all))
			}
			for i, script := range all {
				script = strings.NewReplacer("server 192.0.2.1 1053", fmt.Sprintf("server 127.0.0.1 %d", port), "@192.0.2.1 -p 1053", fmt.Sprintf("@127.0.0.1 -p %d", port)).Replace(script)
				cmd := exec.Command("sh", "-e") // #nosec G204 -- from the documents
				cmd.Dir, cmd.Stdin = dir, strings.NewReader(script)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("Expected the script to succeed, got %v, %s\n%s", err, out, script)
				}
				if got := dig(t, port, "+short", "par1.lb.gslb.example.org", "APL"); got != want[i] {
					t.Errorf("Expected the prefixes %q, got %q after\n%s", want[i], got, script)
				}
				if strings.Contains(script, "dig ") && !strings.Contains(string(out), want[i]) {
					t.Errorf("Expected dig to show %q, got %s", want[i], out)
				}
			}
		})
	}
}

// A key is changed by two 'accept' lines: the node is registered all the time.
func TestKeyRotation(t *testing.T) {
	needs(t, "nsupdate")
	const (
		block = "gslb.example.org:%d {\n\tbind 127.0.0.1\n\ttsig {\n%s\t}\n\tdnsb {\n\t\tns b1 127.0.0.1\n%s\t}\n}\n"

		oldSecret, newSecret = "\t\tsecret old.key. " + parSecret + "\n", "\t\tsecret new.key. " + nycSecret + "\n"
		oldLine, newLine     = "\t\taccept old.key. par1 any for svc\n", "\t\taccept new.key. par1 any for svc\n"
		script               = "zone gslb.example.org\nupdate delete par1.lb.gslb.example.org\nupdate add par1.lb.gslb.example.org 0 A %s\n" +
			"update add svc.gslb.example.org 0 NS par1.lb.gslb.example.org"
	)
	port := testport.Free(t)
	input := func(secrets, lines string) caddy.Input {
		return caddy.CaddyfileInput{Contents: fmt.Appendf(nil, block, port, secrets, lines), Filepath: "Corefile", ServerTypeName: "dns"}
	}
	s := &server{t: t, port: port}
	var err error
	if s.instance, err = caddy.Start(input(oldSecret, oldLine)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, err := range s.instance.ShutdownCallbacks() {
			t.Errorf("Expected a clean shutdown, got: %v", err)
		}
		_ = s.instance.Stop()
	})
	last := byte(0)
	for i, step := range []struct {
		name           string
		secrets, lines string
		old, new       string // what is answered
	}{
		{"old key", oldSecret, oldLine, "", "NOTAUTH(BADKEY)"},
		{"new key without a line", oldSecret + newSecret, oldLine, "", "REFUSED"},
		{"both", oldSecret + newSecret, oldLine + newLine, "", ""},
		{"old key without a line", oldSecret + newSecret, newLine, "REFUSED", ""},
		{"new key", newSecret, newLine, "NOTAUTH(BADKEY)", ""},
	} {
		if i > 0 {
			if s.instance, err = s.instance.Restart(input(step.secrets, step.lines)); err != nil {
				t.Fatalf("%s: Expected a restart, got: %v", step.name, err)
			}
		}
		if got := referral(t, port); i > 0 && got != "par1" {
			t.Errorf("%s: Expected the registration to stay over the restart, got %s", step.name, got)
		}
		for _, try := range []struct{ key, secret, want string }{{"old.key", parSecret, step.old}, {"new.key", nycSecret, step.new}} {
			var addr, got string
			right := func() bool { return (got == "") == (try.want == "") && strings.HasSuffix(got, try.want) }
			// The server that ends may take what comes just after a restart.
			for tries := 0; tries == 0 || tries < 5 && !right(); tries++ {
				last++
				addr = net.IPv4(192, 0, 2, last).String()
				got = nsupdate(t, port, try.key, try.secret, fmt.Sprintf(script, addr))
			}
			if !right() {
				t.Errorf("%s: Expected %q for %s, got %q", step.name, try.want, try.key, got)
			}
			m := query(t, port, "udp", "par1.lb.gslb.example.org.", dns.TypeA)
			if len(m.Answer) != 1 || (m.Answer[0].(*dns.A).A.String() == addr) != (try.want == "") {
				t.Errorf("%s: Expected an update by %s to be done if it is answered so (%q), got %v", step.name, try.key, try.want, m.Answer)
			}
		}
	}
}
