package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestServerIsTakenOutEverywhere has two DNS-Bs and three nodes, each a process of its
// own. An operator takes a server out of service at all nodes by one command at one
// DNS-B.
func TestServerIsTakenOutEverywhere(t *testing.T) {
	const (
		b1, b2   = "127.31.0.1", "127.31.0.2"
		fra, iad = "127.31.0.21", "127.31.0.22"
		zone     = "svc.gslb.example.org"
		secret   = "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==" // #nosec G101 -- of this test
		limit    = time.Minute                                    // of what takes some seconds
	)
	nodes := map[string]string{"par1": "127.31.0.11", "nyc1": "127.31.0.12", "sin1": "127.31.0.13"}
	dir := t.TempDir()
	corefile := writerIn(t, dir)
	var secrets, accepts strings.Builder
	for node := range nodes {
		fmt.Fprintf(&secrets, "secret %s.key. %s\n", node, secret)
		fmt.Fprintf(&accepts, "accept %s.key. %s any for %s\n", node, node, zone)
	}
	dnsb := func(name, address string) string {
		return corefile(name, fmt.Sprintf(`gslb.example.org:1053 {
bind %s
errors
tsig {
%s}
dnsb {
ns %s %s
%sadmin %s
explain 127.0.0.0/8
}
}`, address, &secrets, name, address, &accepts, filepath.Join(dir, name+".admin")))
	}
	node := func(name string) string {
		return corefile(name, fmt.Sprintf(`%[1]s:1053 {
bind %[2]s
errors
latencyprobe {
rtt dns 1053 probe.example.org
source %[2]s
}
dnslb {
server fra %[3]s
server iad %[4]s
service www.%[1]s fra iad
node %[5]s %[2]s
register %[6]s:1053
register %[7]s:1053
key %[5]s.key. %[8]s
admin %[9]s
explain 127.0.0.0/8
}
}`, zone, nodes[name], fra, iad, name, b1, b2, secret, filepath.Join(dir, name+".admin")))
	}
	start(t, "-conf", corefile("servers", fmt.Sprintf(".:1053 {\nbind %s\nerratic {\ndelay 1 5ms\n}\n}\n.:1053 {\nbind %s\nerratic {\ndelay 1 80ms\n}\n}", fra, iad)))
	first, second := dnsb("b1", b1), dnsb("b2", b2)
	one := start(t, "-conf", first)
	start(t, "-conf", second)
	running := make(map[string]*server)
	for name := range nodes {
		running[name] = start(t, "-conf", node(name))
	}
	answersOf := func(want string) {
		t.Helper()
		took := wait(t, limit, "all nodes to answer with "+want, func() bool {
			for _, address := range nodes {
				if answerTo(t, "127.0.0.1", address) != want {
					return false
				}
			}
			return true
		})
		t.Logf("All nodes answer with %s after %s", want, took.Round(time.Millisecond))
	}
	command := func(want string, args ...string) {
		t.Helper()
		if out, status := run(t, args...); status != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v: Expected %q, got status %d: %s", args, want, status, out)
		}
	}
	shown := func(server, what string, count int, args ...string) {
		t.Helper()
		args = append(args, "@"+server+":1053")
		var out string
		defer func() {
			if t.Failed() {
				t.Logf("%v: %s", args, out)
			}
		}()
		name := zone
		if args[0] == "nodes" {
			name = "gslb.example.org"
		}
		wait(t, limit, what, func() bool {
			out, _ = run(t, append(args, name)...)
			return strings.Count(out, what) == count
		})
	}
	answersOf(fra)
	for name := range nodes {
		one.waitFor(fmt.Sprintf("Registered node %q", name), limit)
	}

	command("at all nodes", "down", "-conf", first, "server", "fra", "until", "+1h", "reason", "new power supply")
	answersOf(iad)
	one.waitFor("All live nodes of gslb.example.org. have fetched the current overrides of servers (1)", limit)
	shown(b1, "fetched (1)", len(nodes), "nodes")
	shown(b1, "new power supply (from DNS-B "+b1+":1053)", len(nodes), "status", "-all")
	running["par1"].waitFor("Override in force: down fra until", limit)

	running["nyc1"].stop()
	running["nyc1"] = start(t, "-conf", node("nyc1"))
	answersOf(iad)

	one.stop()
	shown(nodes["par1"], b1+":1053: 1, the latest at", 1, "status")
	shown(nodes["par1"], "last question failed: dial tcp "+b1, 1, "status")
	answersOf(iad)
	start(t, "-conf", first)
	shown(b1, "fetched (1)", len(nodes), "nodes")
	answersOf(iad)
	command("removed: down server fra", "undo", "-conf", first, "down", "server", "fra")
	answersOf(fra)

	command("at all nodes", "drain", "-conf", second, "server", "f*", "for", "www."+zone, "until", "+20s", "reason", "short")
	answersOf(iad)
	answersOf(fra) // by the end of the override
	running["sin1"].waitFor("Override ended: drain f* for www."+zone+" until", limit)
}
