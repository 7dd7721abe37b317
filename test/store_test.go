package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// storeServer is a DNS-B with a store.
const storeServer = `gslb.example.org:%s {
	bind 127.0.0.1
	tsig {
		secret par1.key.example.org. cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
	}
	dnsb {
		ns b1 192.0.2.1
		accept par1.key.example.org par1 any survey
		accept par1.key.example.org nyc1 any
		survey
		explain 127.0.0.0/8
		store %s
	}
}
`

// TestStoreMovesThroughText registers nodes at a DNS-B with a file, moves what it
// stored to etcd and from there to another file, and restores a backup.
func TestStoreMovesThroughText(t *testing.T) {
	tool := tools{t: t, dig: program(t, "dig", "bind9-dnsutils"), nsupdate: program(t, "nsupdate", "bind9-dnsutils")}
	dir := t.TempDir()
	port, url, peer := freePort(t), "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	corefile := func(name, store string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(fmt.Sprintf(storeServer, port, store)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := corefile("file", "db "+filepath.Join(dir, "1.db"))
	shared := corefile("etcd", "etcd "+url)
	other := corefile("other", "db "+filepath.Join(dir, "2.db"))
	must := func(want string, args ...string) string {
		t.Helper()
		out, status := run(t, args...)
		if status != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v: Expected %q, got status %d and\n%s", args, want, status, out)
		}
		return out
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, status := run(t, args...); status != 1 || !strings.Contains(out, want) {
			t.Errorf("%v: Expected an error with %q, got status %d and\n%s", args, want, status, out)
		}
	}

	s := start(t, "-conf", file)
	for _, script := range []string{
		registrationScript("par1", "192.0.2.53", "198.51.100.0/24"), registrationScript("nyc1", "192.0.2.54", "203.0.113.0/24"),
		"update delete nyc1.lb.gslb.example.org",
	} {
		if out := tool.update(port, script); out != "" {
			t.Fatalf("Expected a registration, got %s", out)
		}
	}
	// par1 measures the site of a resolver that nobody mapped.
	tool.ask(port, "www.svc.gslb.example.org", "A")
	wait(t, 30*time.Second, "work for par1", func() bool {
		return strings.Contains(tool.ask(port, "+short", "+tcp", "-y", etcdKey, "par1._survey.gslb.example.org", "TXT"), `"v=1 127.0.0.1 every=`)
	})
	if out := tool.update(port, `update add par1._survey.gslb.example.org 0 TXT "v=1 127.0.0.1 rtt=7.5 method=icmp"`); out != "" {
		t.Fatalf("Expected a report, got %s", out)
	}
	const measured = "survey 127.0.0.0/24 1 127.0.0.1 - icmp "
	wait(t, time.Minute, "the measurement to be stored", func() bool {
		out, _ := run(t, "store", "export", "-conf", file)
		return strings.Contains(out, measured)
	})
	first := filepath.Join(dir, "1.txt")
	must("2 nodes of gslb.example.org. from store db", "store", "export", "-conf", file, first) // while the server runs
	refused("file exists", "store", "export", "-conf", file, first)
	refused("in use", "store", "import", "-conf", file, longer(t, dir, file))
	s.stop()

	refused("etcd", "store", "export", "-conf", shared) // which does not run
	startEtcd(t, filepath.Join(dir, "data"), url, peer)
	wait(t, 20*time.Second, "etcd to answer", func() bool {
		_, status := run(t, "store", "export", "-conf", shared)
		return status == 0
	})
	must("2 nodes would be written, 0 are there already; nothing was changed", "store", "import", "-dry-run", "-conf", shared, first)
	if out := must("end 0\n", "store", "export", "-conf", shared); strings.Contains(out, "node ") || strings.Contains(out, "survey ") {
		t.Errorf("Expected nothing in etcd after a dry run, got\n%s", out)
	}
	must("2 nodes written, 0 were there already; with 1 resolver sites and nodes of the survey\n", "store", "import", "-conf", shared, first)
	must("0 nodes written, 2 were there already", "store", "import", "-conf", shared, first)
	s = start(t, "-conf", shared)
	wait(t, 20*time.Second, "par1 from etcd", func() bool {
		return tool.ask(port, "+short", "par1.lb.gslb.example.org", "A") == "192.0.2.53"
	})
	surveyed := func() bool { // and nothing is left to measure
		site := tool.ask(port, "+short", "+tcp", "_explain.svc.gslb.example.org", "TXT")
		return strings.Contains(site, "layer survey") && strings.Contains(site, "survey: par1 measured 7.5 ms by icmp")
	}
	wait(t, 20*time.Second, "the measurement from etcd", surveyed)
	// The last serial of a node that withdrew was moved, too.
	if out := tool.update(port, "update add nyc1.lb.gslb.example.org 0 A 192.0.2.54\nupdate add nyc1.lb.gslb.example.org 0 TXT \"v=1 serial=5\"\n"+
		"update add svc.gslb.example.org 0 NS nyc1.lb.gslb.example.org"); !strings.Contains(out, "REFUSED") {
		t.Errorf("Expected an old serial to be refused, got %q", out)
	}
	s.stop()

	second := filepath.Join(dir, "2.txt")
	must("2 nodes", "store", "export", "-conf", shared, second)
	must("2 nodes written", "store", "import", "-conf", other, second)
	a, b := must("end 2", "store", "export", "-conf", shared), must("end 2", "store", "export", "-conf", other)
	if a != b || !strings.Contains(a, measured) {
		t.Errorf("Expected the same in both stores, got\n%s and\n%s", a, b)
	}

	s = start(t, "-conf", other)
	if got := tool.ask(port, "+short", "par1.lb.gslb.example.org", "A"); got != "192.0.2.53" {
		t.Errorf("Expected par1 after a restore, got %s", got)
	}
	wait(t, 20*time.Second, "the measurement from the file", surveyed)
	if out := tool.update(port, registrationScript("par1", "192.0.2.55", "198.51.100.0/24")); out != "" {
		t.Errorf("Expected a registration, got %s", out)
	}
	s.stop()
	refused("overwrites nothing", "store", "import", "-conf", other, second)
	refused("cut short", "store", "import", "-conf", other, shorter(t, dir, second))
}

// longer adds a node to an export of the store of a Corefile.
func longer(t *testing.T, dir, conf string) string {
	t.Helper()
	out, _ := run(t, "store", "export", "-conf", conf)
	path := filepath.Join(dir, "more.txt")
	text := strings.Replace(out, "end 2", "node zrh1 serial 5 withdrawn\nend 3", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shorter writes a file without its last line.
func shorter(t *testing.T, dir, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(string(content), "\n")
	path := filepath.Join(dir, "cut.txt")
	if err := os.WriteFile(path, []byte(text[:strings.LastIndexByte(text, '\n')+1]), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
