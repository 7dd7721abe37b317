package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// program returns the path of a program that a test needs.
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

// startEtcd starts an etcd with its data in dir, which ends with the test, and
// returns what kills it.
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

// tools ask and change a server as its users do.
type tools struct {
	t             *testing.T
	dig, nsupdate string
}

// ask returns what dig +short prints.
func (s tools) ask(port string, args ...string) string {
	s.t.Helper()
	out, err := exec.Command(s.dig, append([]string{"@127.0.0.1", "-p", port, "+norecurse", "+tries=1", "+time=2"}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("Expected dig to succeed, got: %v, %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// update sends an UPDATE and returns what nsupdate says of it: nothing if it was
// done.
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

func statement(node, addr, prefix string) string {
	return fmt.Sprintf(`update delete %[1]s.lb.gslb.example.org
update add %[1]s.lb.gslb.example.org 0 A %[2]s
update add %[1]s.lb.gslb.example.org 0 APL 1:%[3]s
update add svc.gslb.example.org 0 NS %[1]s.lb.gslb.example.org`, node, addr, prefix)
}

// Two DNS-Bs with one etcd have one map, whatever ends and begins again.
func TestEtcd(t *testing.T) {
	use := tools{t: t, dig: program(t, "dig", "bind9-dnsutils"), nsupdate: program(t, "nsupdate", "bind9-dnsutils")}
	dir := t.TempDir()
	url, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	kill := startEtcd(t, dir, url, peer)
	port, metrics := [2]string{freePort(t), freePort(t)}, [2]string{freePort(t), freePort(t)}
	begin := func(i int) *server {
		path := filepath.Join(dir, "Corefile"+port[i])
		if err := os.WriteFile(path, fmt.Appendf(nil, etcdServer, port[i], metrics[i], url), 0o600); err != nil {
			t.Fatal(err)
		}
		return start(t, "-conf", path)
	}
	servers := [2]*server{begin(0), begin(1)}
	for _, s := range servers {
		s.waitFor("answers and holds 0 nodes", 20*time.Second)
	}

	// show waits until both servers have the address of a node, "" for none.
	show := func(step, node, addr string) {
		t.Helper()
		for _, p := range port {
			took := wait(t, 10*time.Second, fmt.Sprintf("%s: %s to have the address %q", step, node, addr), func() bool {
				return use.ask(p, "+short", node+".lb.gslb.example.org", "A") == addr
			})
			if took > time.Second {
				t.Errorf("%s: Expected both to show it within a second, took %s", step, took)
			}
		}
	}
	last := 0
	calm := func() { // fewer changes than seconds make the serials the same
		t.Helper()
		wait(t, 10*time.Second, "the clock to be ahead of the serials", func() bool {
			now := int(time.Now().Unix())
			return now > use.serial(port[0]) && now > use.serial(port[1])
		})
	}
	grown := func(step string) {
		t.Helper()
		for _, p := range port {
			if serial := use.serial(p); serial <= last {
				t.Errorf("%s: Expected a serial after %d, got %d", step, last, serial)
			}
		}
		last = max(use.serial(port[0]), use.serial(port[1]))
	}
	for _, step := range []struct {
		name, script, node, addr string
		at                       int
	}{
		{"registration", statement("par1", "192.0.2.53", "127.0.0.0/8"), "par1", "192.0.2.53", 0},
		{"registration at the other", statement("nyc1", "198.51.100.53", "203.0.113.0/24"), "nyc1", "198.51.100.53", 1},
		{"change at the other", statement("par1", "192.0.2.54", "127.0.0.0/8"), "par1", "192.0.2.54", 1},
		{"withdrawal", "update delete nyc1.lb.gslb.example.org", "nyc1", "", 0},
	} {
		calm()
		if said := use.update(port[step.at], step.script); said != "" {
			t.Fatalf("%s: Expected success, got %s", step.name, said)
		}
		show(step.name, step.node, step.addr)
		grown(step.name)
		if one, two := use.serial(port[0]), use.serial(port[1]); one != two {
			t.Errorf("%s: Expected the same serial at both after a quiet time, got %d and %d", step.name, one, two)
		}
	}
	for _, p := range port {
		if got := use.ask(p, "www.svc.gslb.example.org"); !strings.Contains(strings.Join(strings.Fields(got), " "), "IN A 192.0.2.54") {
			t.Errorf("Expected a referral to par1, got %s", got)
		}
	}

	kill()
	for i, p := range port {
		if said := use.update(p, statement("par1", "192.0.2.55", "127.0.0.0/8")); !strings.Contains(said, "SERVFAIL") {
			t.Errorf("Expected SERVFAIL while etcd is away, got %q", said)
		}
		servers[i].waitFor("does not answer: the map is that from before", 10*time.Second)
		if up := scrape(t, "http://127.0.0.1:"+metrics[i]+"/metrics")[`coredns_dnsb_store_up{zone="gslb.example.org."}`]; up != 0 {
			t.Errorf("Expected the metric to be 0, got %v", up)
		}
	}
	show("away", "par1", "192.0.2.54")

	// One that starts now knows its own names only.
	servers[1].stop()
	servers[1] = begin(1)
	if got := use.ask(port[1], "www.svc.gslb.example.org"); !strings.Contains(got, "SERVFAIL") {
		t.Errorf("Expected SERVFAIL from one that started without etcd, got %s", got)
	}
	if got := use.ask(port[1], "+short", "b1.gslb.example.org"); got != "192.0.2.1" {
		t.Errorf("Expected its own names, got %s", got)
	}
	servers[1].waitFor("does not answer", 10*time.Second)

	startEtcd(t, dir, url, peer)
	calm()
	wait(t, 20*time.Second, "registrations to be taken again", func() bool {
		return use.update(port[1], statement("par1", "192.0.2.55", "127.0.0.0/8")) == ""
	})
	wait(t, 10*time.Second, "both to show it", func() bool {
		return use.ask(port[0], "+short", "par1.lb.gslb.example.org") == "192.0.2.55" && use.ask(port[1], "+short", "par1.lb.gslb.example.org") == "192.0.2.55"
	})
	grown("back")
	for i, p := range port {
		if got := use.ask(p, "nyc1.lb.gslb.example.org"); !strings.Contains(got, "NXDOMAIN") && !strings.Contains(got, "ANSWER: 0") {
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
