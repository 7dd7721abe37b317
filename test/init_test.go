package test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var startLine = regexp.MustCompile(`(?m)^2\. Start: (cd .+ && )(.+)$`)

// TestInit runs what init has written for a DNS-B and two nodes, by the commands
// that it printed.
func TestInit(t *testing.T) {
	tool := tools{t: t, dig: program(t, "dig", "bind9-dnsutils")}
	dir, port := t.TempDir(), freePort(t)
	if err := os.Symlink(binary, filepath.Join(dir, "coredns-dnslb")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	tcpPort := listen(t, "127.0.5.1", "127.0.5.2")

	b1 := filepath.Join(dir, "b1")
	printed, status := run(t, "init", "dnsb", "-zone", "gslb.example.org", "-address", "127.0.5.53", "-port", port, b1, "par1", "nyc1")
	if status != 0 {
		t.Fatalf("Expected status 0, got %d: %s", status, printed)
	}
	for _, record := range []string{"gslb.example.org. 3600 IN NS b1.gslb.example.org.\n", "b1.gslb.example.org. 3600 IN A 127.0.5.53\n"} {
		if !strings.Contains(printed, record) || !bytes.Contains(contentOf(t, b1, "dns-a.zone"), []byte(record)) {
			t.Errorf("Expected %q, got\n%s", record, printed)
		}
	}
	servers := []*server{startPrinted(t, printed)}
	nodes := map[string]string{"par1": "127.0.5.54", "nyc1": "127.0.5.55"}
	for node, near := range map[string]string{"par1": "127.0.6.0/24", "nyc1": "127.0.7.0/24"} {
		home := filepath.Join(dir, node)
		for _, key := range []string{node + ".key", "views.key"} {
			args := []string{"init", "node", "-zone", "gslb.example.org", "-name", node, "-address", nodes[node], "-port", port, "-dnsb", "127.0.5.53",
				"-near", near, "-rtt", "tcp " + tcpPort, home, "fra=127.0.5.1", "iad=127.0.5.2"}
			if out, status := run(t, args...); status != 1 || !strings.Contains(out, "'init dnsb' has made this key") {
				t.Errorf("Expected an error without %s, got %s", key, out)
			}
			if err := os.MkdirAll(home, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(home, key), contentOf(t, b1, key), 0o600); err != nil {
				t.Fatal(err)
			}
			if key == "views.key" {
				if printed, status = run(t, args...); status != 0 {
					t.Fatalf("Expected status 0, got %d: %s", status, printed)
				}
			}
		}
		servers = append(servers, startPrinted(t, printed))
	}
	for _, name := range []string{"Corefile", "services"} {
		if par1, nyc1 := contentOf(t, filepath.Join(dir, "par1"), name), contentOf(t, filepath.Join(dir, "nyc1"), name); !bytes.Equal(par1, nyc1) {
			t.Errorf("Expected the same %s at both nodes, got\n%s and\n%s", name, par1, nyc1)
		}
	}

	for resolver, node := range map[string]string{"127.0.6.10": "par1", "127.0.7.10": "nyc1"} {
		wait(t, 30*time.Second, "a referral to "+node, func() bool {
			out, err := exec.Command(tool.dig, "@127.0.5.53", "-p", port, "-b", resolver, "+norecurse", "www.svc.gslb.example.org").Output()
			return err == nil && strings.Contains(string(out), nodes[node])
		})
		out, err := exec.Command(tool.dig, "@"+nodes[node], "-p", port, "-b", resolver, "+short", "www.svc.gslb.example.org").Output()
		if err != nil || !strings.HasPrefix(string(out), "127.0.5.") {
			t.Errorf("Expected the address of a server, got %s, %v", out, err)
		}
	}
	if out, status := run(t, "nodes", "@127.0.5.53:"+port, "gslb.example.org"); status != 0 || !strings.Contains(out, "par1") || !strings.Contains(out, "nyc1") {
		t.Errorf("Expected both nodes, got %s", out)
	}
	for _, s := range servers {
		s.stop()
	}

	for _, path := range []string{"b1/keys", "b1/par1.key", "b1/nyc1.key", "b1/views.key"} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("Expected %s with mode 0600, got %v, %v", path, info, err)
		}
	}
	before := contentOf(t, b1, "keys")
	if err := os.Remove(filepath.Join(b1, "Corefile")); err != nil {
		t.Fatal(err)
	}
	out, status := run(t, "init", "dnsb", "-zone", "gslb.example.org", "-address", "127.0.5.53", b1, "par1")
	if status != 1 || !strings.Contains(out, "nothing is overwritten") || !bytes.Equal(before, contentOf(t, b1, "keys")) {
		t.Errorf("Expected a refusal, got status %d: %s", status, out)
	}
	if _, err := os.Stat(filepath.Join(b1, "Corefile")); err == nil {
		t.Error("Expected no file at all of a refused configuration")
	}
}

// startPrinted starts a server by the command that init has printed.
func startPrinted(t *testing.T, printed string) *server {
	t.Helper()
	words := startLine.FindStringSubmatch(printed)
	if words == nil {
		t.Fatalf("Expected a command that starts the server, got\n%s", printed)
	}
	return startCommand(t, exec.Command("sh", "-c", words[1]+"exec "+words[2])) // exec, so that a signal reaches it
}

// listen accepts connections at all addresses, at one port.
func listen(t *testing.T, addrs ...string) (port string) {
	t.Helper()
	port = "0"
	for _, addr := range addrs {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if _, port, err = net.SplitHostPort(l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		}()
	}
	return port
}

func contentOf(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestInitRefusesWrongArguments(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b1")
	for _, tc := range []struct{ args, want string }{
		{"", "expected 'init dnsb' or 'init node'"},
		{"both", "expected 'init dnsb' or 'init node'"},
		{"dnsb -zone gslb.example.org -address 192.0.2.53 DIR", "expected a directory, and the names of nodes"},
		{"dnsb -zone org -address 192.0.2.53 DIR par1", "invalid zone 'org'"},
		{"dnsb -zone gslb.{example}.org -address 192.0.2.53 DIR par1", "invalid zone"},
		{"dnsb -zone gslb.example.org -address b1 DIR par1", "invalid address 'b1' for -address"},
		{"dnsb -zone gslb.example.org -address 192.0.2.53 DIR par1.example", "invalid name 'par1.example'"},
		{"dnsb -zone gslb.example.org -address 192.0.2.53 -port 0 DIR par1", "invalid port 0"},
		{"node -zone gslb.example.org -address 192.0.2.53 -dnsb 192.0.2.1 DIR fra=192.0.2.2", "invalid name ''"},
		{"node -zone gslb.example.org -name par1 -address 192.0.2.53 -dnsb 192.0.2.1 DIR fra", "invalid address '' for fra"},
		{"node -zone gslb.example.org -name par1 -address 192.0.2.53 DIR fra=192.0.2.2", "invalid address '' for -dnsb"},
		{"node -zone gslb.example.org -name par1 -address 192.0.2.53 -dnsb 192.0.2.1 -near 192.0.2.1/24 DIR fra=192.0.2.2", "invalid prefix '192.0.2.1/24' for -near"},
	} {
		args := strings.Fields("init " + strings.ReplaceAll(tc.args, "DIR", dir))
		if out, status := run(t, args...); status != 1 || !strings.Contains(out, tc.want) {
			t.Errorf("%v: Expected an error with %q, got status %d: %s", args, tc.want, status, out)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%v: Expected no directory", args)
		}
	}
}
