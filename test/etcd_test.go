package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	etcdKey    = "hmac-sha256:par1.key.example.org:cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="
	etcdServer = `gslb.example.org:%s {
	bind 127.0.0.1
	prometheus 127.0.0.1:%s
	tsig {
		secret par1.key.example.org. cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
	}
	dnsb {
		ns b1 192.0.2.1
		ns b2 192.0.2.2
		accept par1.key.example.org par1 any
		accept par1.key.example.org nyc1 any
		store etcd %s
	}
}
`
)

// program returns the path of a program. Without it the test is skipped, and
// fails in CI.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed (%s)", name, pkg)
		}
		t.Skipf("%s is not installed (%s)", name, pkg)
	}
	return path
}

// background starts a program that ends with the test. Its output is logged if the test
// fails.
func background(t *testing.T, name string, cmd *exec.Cmd) {
	t.Helper()
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Output of %s:\n%s", name, out)
		}
	})
}

// writerIn returns a function that writes a file in a directory, and returns its path.
func writerIn(t *testing.T, dir string) func(name, text string) string {
	t.Helper()
	return func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// startEtcd starts an etcd with its data in dir, which ends with the test, and
// returns a function that kills it.
func startEtcd(t *testing.T, dir, url, peer string) (kill func()) {
	t.Helper()
	cmd := exec.Command(program(t, "etcd", "etcd-server"), "--data-dir", dir, "--name", "one", "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one="+peer)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	return kill
}

// tools runs the programs that operators tool.
type tools struct {
	t             *testing.T
	dig, nsupdate string
}

// ask returns what dig +short prints.
func (s tools) ask(port string, args ...string) string {
	s.t.Helper()
	out, err := exec.Command(s.dig, append([]string{"@127.0.0.1", "-p", port, "+norecurse", "+tries=1", "+time=60"}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("Expected dig to succeed, got: %v, %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// update sends an UPDATE and returns the output of nsupdate, which is empty
// after a success.
func (s tools) update(port, script string) string {
	s.t.Helper()
	cmd := exec.Command(s.nsupdate, "-y", etcdKey)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("server 127.0.0.1 %s\nzone gslb.example.org\n%s\nsend\n", port, script))
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out))
}

// serial returns the serial of the zone.
func (s tools) serial(port string) int {
	s.t.Helper()
	serial := 0
	fields := strings.Fields(s.ask(port, "+short", "gslb.example.org", "SOA"))
	if len(fields) != 7 {
		s.t.Fatalf("Expected a SOA, got %q", fields)
	}
	if _, err := fmt.Sscan(fields[2], &serial); err != nil {
		s.t.Fatal(err)
	}
	return serial
}

// registrationScript returns the lines of nsupdate that register a node.
func registrationScript(node, addr, prefix string) string {
	return fmt.Sprintf(`update delete %[1]s.lb.gslb.example.org
update add %[1]s.lb.gslb.example.org 0 A %[2]s
update add %[1]s.lb.gslb.example.org 0 APL 1:%[3]s
update add svc.gslb.example.org 0 NS %[1]s.lb.gslb.example.org`, node, addr, prefix)
}

// TestServersShareMapInEtcd has two DNS-Bs with one etcd. Both show each
// change, keep the last map while etcd is stopped, and share the map again
// afterwards.
func TestServersShareMapInEtcd(t *testing.T) {
	tool := tools{t: t, dig: program(t, "dig", "bind9-dnsutils"), nsupdate: program(t, "nsupdate", "bind9-dnsutils")}
	dir := t.TempDir()
	url, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	kill := startEtcd(t, dir, url, peer)
	port, metrics := [2]string{freePort(t), freePort(t)}, [2]string{freePort(t), freePort(t)}
	startServer := func(i int) *server {
		path := filepath.Join(dir, "Corefile"+port[i])
		if err := os.WriteFile(path, fmt.Appendf(nil, etcdServer, port[i], metrics[i], url), 0o600); err != nil {
			t.Fatal(err)
		}
		return start(t, "-conf", path)
	}
	servers := [2]*server{startServer(0), startServer(1)}
	for _, s := range servers {
		s.waitFor("Connected to store \"etcd "+url+"\": 0 nodes", 20*time.Second)
	}

	// expectAddr waits until both servers have the address of a node, "" for
	// none.
	expectAddr := func(step, node, addr string) {
		t.Helper()
		for _, p := range port {
			took := wait(t, 10*time.Second, fmt.Sprintf("%s: %s to have the address %q", step, node, addr), func() bool {
				return tool.ask(p, "+short", node+".lb.gslb.example.org", "A") == addr
			})
			if took > time.Second {
				t.Errorf("%s: Expected both servers to have it within 1s, took %s", step, took)
			}
		}
	}
	last := 0
	// settle waits until each server has had fewer changes than seconds: then
	// their serials are the same.
	settle := func() {
		t.Helper()
		wait(t, 10*time.Second, "the clock to be ahead of the serials", func() bool {
			now := int(time.Now().Unix())
			return now > tool.serial(port[0]) && now > tool.serial(port[1])
		})
	}
	expectHigherSerial := func(step string) {
		t.Helper()
		for _, p := range port {
			if serial := tool.serial(p); serial <= last {
				t.Errorf("%s: Expected a serial after %d, got %d", step, last, serial)
			}
		}
		last = max(tool.serial(port[0]), tool.serial(port[1]))
	}
	for _, step := range []struct {
		name, script, node, addr string
		server                   int
	}{
		{"registration", registrationScript("par1", "192.0.2.53", "127.0.0.0/8"), "par1", "192.0.2.53", 0},
		{"registration at the other server", registrationScript("nyc1", "198.51.100.53", "203.0.113.0/24"), "nyc1", "198.51.100.53", 1},
		{"change at the other server", registrationScript("par1", "192.0.2.54", "127.0.0.0/8"), "par1", "192.0.2.54", 1},
		{"withdrawal", "update delete nyc1.lb.gslb.example.org", "nyc1", "", 0},
	} {
		settle()
		if output := tool.update(port[step.server], step.script); output != "" {
			t.Fatalf("%s: Expected success, got %s", step.name, output)
		}
		expectAddr(step.name, step.node, step.addr)
		expectHigherSerial(step.name)
		if one, two := tool.serial(port[0]), tool.serial(port[1]); one != two {
			t.Errorf("%s: Expected the same serial at both servers, got %d and %d", step.name, one, two)
		}
	}
	for _, p := range port {
		if got := tool.ask(p, "www.svc.gslb.example.org"); !strings.Contains(strings.Join(strings.Fields(got), " "), "IN A 192.0.2.54") {
			t.Errorf("Expected a referral to par1, got %s", got)
		}
	}

	kill()
	for i, p := range port {
		if output := tool.update(p, registrationScript("par1", "192.0.2.55", "127.0.0.0/8")); !strings.Contains(output, "SERVFAIL") {
			t.Errorf("Expected SERVFAIL while etcd is stopped, got %q", output)
		}
		servers[i].waitFor("Failed to reach store \"etcd "+url+"\", serving the last known map", 10*time.Second)
		if up := scrape(t, "http://127.0.0.1:"+metrics[i]+"/metrics")[`coredns_dnsb_store_up{zone="gslb.example.org."}`]; up != 0 {
			t.Errorf("Expected the metric to be 0, got %v", up)
		}
	}
	expectAddr("etcd is stopped", "par1", "192.0.2.54")

	// A server that starts now has only the names in its Corefile.
	servers[1].stop()
	servers[1] = startServer(1)
	if got := tool.ask(port[1], "www.svc.gslb.example.org"); !strings.Contains(got, "SERVFAIL") || !strings.Contains(got, "the store of registrations cannot be reached since the start") {
		t.Errorf("Expected SERVFAIL and its reason from a server that started without etcd, got %s", got)
	}
	if got := tool.ask(port[1], "+short", "b1.gslb.example.org"); got != "192.0.2.1" {
		t.Errorf("Expected the name in its Corefile, got %s", got)
	}
	servers[1].waitFor("Failed to reach store", 10*time.Second)

	startEtcd(t, dir, url, peer)
	settle()
	wait(t, 20*time.Second, "registrations to be accepted again", func() bool {
		return tool.update(port[1], registrationScript("par1", "192.0.2.55", "127.0.0.0/8")) == ""
	})
	wait(t, 10*time.Second, "both servers to have the new address", func() bool {
		return tool.ask(port[0], "+short", "par1.lb.gslb.example.org") == "192.0.2.55" && tool.ask(port[1], "+short", "par1.lb.gslb.example.org") == "192.0.2.55"
	})
	expectHigherSerial("etcd is back")
	for i, p := range port {
		if got := tool.ask(p, "nyc1.lb.gslb.example.org"); !strings.Contains(got, "NXDOMAIN") && !strings.Contains(got, "ANSWER: 0") {
			t.Errorf("Expected nyc1 to stay withdrawn, got %s", got)
		}
		wait(t, 5*time.Second, "the metric to be 1", func() bool {
			return scrape(t, "http://127.0.0.1:"+metrics[i]+"/metrics")[`coredns_dnsb_store_up{zone="gslb.example.org."}`] == 1
		})
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err != nil {
		t.Errorf("Expected etcd to be up at the end, got: %v", err)
	} else {
		_ = conn.Close()
	}
	for i, s := range servers {
		if took := s.stop(); took > 5*time.Second {
			t.Errorf("Expected server %d to end within 5s, took %s", i, took)
		}
	}
}

const etcdNode = `svc.gslb.example.org:%s {
	bind 127.0.0.1
	latencyprobe {
		rtt tcp %[1]s
		health tcp %[1]s
	}
	dnslb {
		node par1 192.0.2.53
		near 198.51.100.0/%[4]d
		register 127.0.0.1:%[2]s 127.0.0.1:%[3]s
		key par1.key.example.org. cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
		server fra 127.0.0.1
		service www.svc.gslb.example.org fra
	}
}
`

// TestNodeRegistersWhereEtcdIsShared edits a node that registers at two DNS-Bs
// with one etcd: both take each state, whichever gets it first.
func TestNodeRegistersWhereEtcdIsShared(t *testing.T) {
	dir := t.TempDir()
	url, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	startEtcd(t, dir, url, peer)
	port := [2]string{freePort(t), freePort(t)}
	var servers [2]*server
	for i := range servers {
		path := filepath.Join(dir, "Corefile"+port[i])
		if err := os.WriteFile(path, fmt.Appendf(nil, etcdServer, port[i], freePort(t), url), 0o600); err != nil {
			t.Fatal(err)
		}
		servers[i] = start(t, "-conf", path)
		servers[i].waitFor("Connected to store", 20*time.Second)
	}
	own, path := freePort(t), filepath.Join(dir, "Corefile.node")
	edit := func(length int) {
		t.Helper()
		if err := os.WriteFile(path, fmt.Appendf(nil, etcdNode, own, port[0], port[1], length), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit(24)
	node := start(t, "-conf", path)
	for _, p := range port {
		node.waitFor(`Registered node "par1" at DNS-B 127.0.0.1:`+p, 20*time.Second)
	}
	tool := tools{t: t, dig: program(t, "dig", "bind9-dnsutils")}
	for length := 25; length <= 32; length++ {
		edit(length)
		if err := node.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("1:198.51.100.0/%d", length)
		for _, p := range port {
			wait(t, 20*time.Second, p+" to have "+want, func() bool {
				return tool.ask(p, "+short", "par1.lb.gslb.example.org", "APL") == want
			})
		}
	}
	node.stop()
	for _, s := range append(servers[:], node) {
		for _, text := range []string{"Refused", "Failed to register", "Failed to withdraw"} {
			if strings.Contains(s.out.String(), text) {
				t.Errorf("Expected no refusal, got:\n%s", s.out)
			}
		}
	}
}

// TestVersionsShareEtcd has a DNS-B of the commit that UPGRADE_FROM names, which does
// not know 'client-subnets' in registrations, and one of this version with one etcd.
// Each reads what the other one wrote. The earlier one drops the word when anything
// else of the registration changes, and keeps it when the lease is renewed; the next
// serial brings it back.
func TestVersionsShareEtcd(t *testing.T) {
	commit := os.Getenv("UPGRADE_FROM")
	if commit == "" {
		t.Skip("This test needs an earlier version: set UPGRADE_FROM to a commit of this repository, such as 304ea2b")
	}
	tool := tools{t: t, dig: program(t, "dig", "bind9-dnsutils"), nsupdate: program(t, "nsupdate", "bind9-dnsutils")}
	dir := t.TempDir()
	earlier := filepath.Join(dir, "earlier")
	build := exec.Command("sh", "-ec", `mkdir "$1.src"; git archive "$0" | tar -x -C "$1.src"; cd "$1.src"; go build -o "$1" .`, commit, earlier) // #nosec G204 -- a test
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("Expected to build the program of %s, got error: %v: %s", commit, err, out)
	}
	url, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	startEtcd(t, dir, url, peer)
	corefile := func(port string) string {
		path := filepath.Join(dir, "Corefile"+port)
		if err := os.WriteFile(path, fmt.Appendf(nil, etcdServer, port, freePort(t), url), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	without, with := freePort(t), freePort(t)
	startCommand(t, exec.Command(earlier, "-conf", corefile(without))).waitFor("Connected to store", 20*time.Second) // #nosec G204 -- a test
	current := corefile(with)
	s := start(t, "-conf", current)
	s.waitFor("Connected to store", 20*time.Second)

	serial := time.Now().UnixMilli()
	for _, step := range []struct {
		name, port string
		later      int64 // than the serial of the step before
		addr       string
		refused    string
		word       bool // afterwards at this version
	}{
		{"registration at this version", with, 1, "192.0.2.53", "", true},
		{"renewal at the earlier version", without, 1, "192.0.2.53", "", true},
		{"the same at this version", with, 0, "192.0.2.53", "", true},
		{"change at the earlier version", without, 1, "192.0.2.54", "", false},
		{"the same serial at this version", with, 0, "192.0.2.54", "REFUSED", false},
		{"renewal at this version", with, 1, "192.0.2.54", "", true},
		{"another renewal at the earlier version", without, 1, "192.0.2.54", "", true},
	} {
		serial += step.later
		word := fmt.Sprintf("serial=%d ", serial)
		output := tool.update(step.port, registrationScript("par1", step.addr, "127.0.0.0/8")+
			fmt.Sprintf("\nupdate add par1.lb.gslb.example.org 0 TXT \"v=1 %sclient-subnets\"", word))
		if step.refused == "" && output != "" || !strings.Contains(output, step.refused) {
			t.Fatalf("%s: Expected %q, got %q", step.name, step.refused, output)
		}
		for _, port := range []string{without, with} {
			wait(t, 10*time.Second, step.name+": both to have it", func() bool {
				txt := tool.ask(port, "+short", "par1.lb.gslb.example.org", "TXT")
				return tool.ask(port, "+short", "par1.lb.gslb.example.org", "A") == step.addr && strings.Contains(txt, word) &&
					strings.Contains(txt, "client-subnets") == (step.word && port == with)
			})
		}
	}
	s.stop()
	start(t, "-conf", current).waitFor("Connected to store", 20*time.Second)
	if txt := tool.ask(with, "+short", "par1.lb.gslb.example.org", "TXT"); !strings.Contains(txt, "client-subnets") {
		t.Errorf("Expected the word after a restart, got %s", txt)
	}
}
