package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCommands uses the commands of the program against the example, as an operator
// does.
func TestCommands(t *testing.T) {
	e := newExample(t)
	e.addNear()
	dir := t.TempDir()
	dnsbAdmin, nodeAdmin := filepath.Join(dir, "dnsb"), filepath.Join(dir, "par1")
	e.replace("        ns      b1 127.0.0.2\n", "        ns      b1 127.0.0.2\n        admin   "+dnsbAdmin+"\n")
	e.replace("        near     127.0.1.0/24\n", "        near     127.0.1.0/24\n        admin    "+nodeAdmin+"\n")
	s := start(t, "-conf", e.path)
	s.waitFor(`Registered node "par1" by key`, 30*time.Second)
	s.waitFor(`Registered node "nyc1" by key`, 30*time.Second)

	const dnsb, par1 = "@127.0.0.2:1053", "@127.0.0.3:1053"
	expect := func(status int, want string, args ...string) string {
		t.Helper()
		out, got := run(t, args...)
		if got != status || !strings.Contains(out, want) {
			t.Errorf("%v: Expected status %d and %q, got status %d and:\n%s", args, status, want, got, out)
		}
		return out
	}
	for _, tc := range []struct {
		status int
		want   string
		args   []string
	}{
		{0, "\npar1  live   ", []string{"nodes", dnsb, "gslb.example.org"}},
		{0, `"node": "nyc1",` + "\n" + strings.Repeat(" ", 12) + `"state": "live",`, []string{"nodes", "-json", dnsb, "gslb.example.org."}},
		{0, "  nodes: 2 live, 0 stale, 0 dead, 0 drained\n", []string{"status", "-all", dnsb, "svc.gslb.example.org"}},
		{0, "SERVER          NAME               STATE ", []string{"status", "-all", dnsb, "svc.gslb.example.org"}},
		{0, "gslb.example.org. serial ", []string{"status", dnsb, "gslb.example.org"}},
		{0, `"kind": "status",`, []string{"status", "-json", par1, "svc.gslb.example.org"}},
		{0, "par1 127.0.0.3:1053\n  svc.gslb.example.org. on node par1\n", []string{"status", "-all", dnsb, "svc.gslb.example.org"}},
		{0, "svc.gslb.example.org. on node par1\n", []string{"status", par1, "svc.gslb.example.org"}},
		{0, "refer to par1 127.0.0.3\n", []string{"explain", dnsb, "www.svc.gslb.example.org", "127.0.1.10"}},
		{0, "refer to nyc1 127.0.0.4\n", []string{"explain", dnsb, "www.svc.gslb.example.org", "127.0.2.10"}},
		{0, "nyc1 127.0.0.4:1053\n  www.svc.gslb.example.org. A for 127.0.1.10: ", []string{"explain", "-all", dnsb, "www.svc.gslb.example.org", "127.0.1.10"}},
		{1, "failed: the server answered REFUSED\n", []string{"explain", par1, "nothing.example.org"}},
		{1, "no explanation: the server lacks 'explain'", []string{"nodes", par1, "svc.gslb.example.org"}},
		{1, "not all servers have answered", []string{"status", par1, "@127.0.0.99:1053", "svc.gslb.example.org"}},
		{1, "invalid server '@ns.example.org'", []string{"status", "@ns.example.org", "svc.gslb.example.org"}},
		{1, "invalid address 'oops'", []string{"explain", par1, "www.svc.gslb.example.org", "oops"}},
		{1, "wrong arguments", []string{"nodes", dnsb}},
		{2, "usage:", []string{"status", "-oops"}},
		{0, "usage:", []string{"help"}},
		{0, "usage:\n  status ", []string{"drain", "-h"}},
		{0, "usage:\n  check-delegation ", []string{"check-delegation", "-h"}},
		{0, "usage:\n  init dnsb ", []string{"init", "--help"}},
		{1, "has no end: add 'until TIME'", []string{"drain", "-conf", e.path, "fra", "reason", "x"}},
		{1, "has no reason", []string{"down", "-conf", e.path, "fra", "until", "+2h"}},
		{1, "invalid time 'soon'", []string{"down", "-conf", e.path, "fra", "until", "soon", "reason", "x"}},
		{1, "begins a comment", []string{"down", "-conf", e.path, "fra", "until", "+2h", "reason", "ticket #1"}},
		{1, "unknown node 'nobody'", []string{"pin", "-conf", e.path, "127.0.1.0/24", "nobody", "until", "+2h", "reason", "x"}},
		{1, "choose one with -zone gslb.example.org. or -zone svc.gslb.example.org.", []string{"drain", "-conf", e.path, "par1", "until", "+2h", "reason", "x"}},
		{1, "no override begins with 'drain fra'", []string{"undo", "-conf", e.path, "drain", "fra"}},
		{1, "no such file", []string{"undo", "-conf", filepath.Join(dir, "none")}},
	} {
		expect(tc.status, tc.want, tc.args...)
	}
	if _, err := os.Stat(nodeAdmin); err == nil {
		t.Error("Expected a refused override to write no file")
	}
	var answers struct {
		Version int
		Servers []struct {
			Server, Node, Error string
			Objects             []struct {
				Plugin, Zone, Kind string
				Value              struct {
					Referral []struct{ Node string }
					Answer   struct{ Addresses []string }
				}
			}
		}
	}
	out, _ := run(t, "explain", "-json", "-all", dnsb, "@127.0.0.99:1053", "www.svc.gslb.example.org", "127.0.1.10")
	if err := json.Unmarshal([]byte(strings.TrimSuffix(out, "not all servers have answered\n")), &answers); err != nil || answers.Version != 2 || len(answers.Servers) != 4 {
		t.Fatalf("Expected the explanations of four servers, got %v: %s", err, out)
	}
	for i, s := range answers.Servers {
		o := s.Objects
		switch {
		case i == 0 && (len(o) != 1 || o[0].Plugin != "dnsb" || o[0].Kind != "referral" || len(o[0].Value.Referral) != 2 || o[0].Value.Referral[0].Node != "par1"),
			i == 1 && (len(o) != 0 || s.Error == ""),
			i > 1 && (len(o) != 1 || o[0].Kind != "answer" || o[0].Zone != "svc.gslb.example.org." || len(o[0].Value.Answer.Addresses) != 1 || s.Node == ""):
			t.Errorf("Unexpected answer of server %d: %+v", i, s)
		}
	}

	wait(t, 30*time.Second, "par1 to answer with fra", func() bool { return answerTo(t, "127.0.1.10", "127.0.0.3") == "127.0.0.11" })
	expect(0, nodeAdmin+": drain fra for www.svc.gslb.example.org until ", "drain", "-conf", e.path, "fra", "for", "www.svc.gslb.example.org", "until", "+2h", "reason", "new power supply")
	wait(t, 30*time.Second, "par1 to leave fra out", func() bool { return answerTo(t, "127.0.1.10", "127.0.0.3") == "127.0.0.12" })
	expect(0, ": drain fra for www.svc.gslb.example.org until ", "undo", "-conf", e.path)
	expect(0, "removed: drain fra for www.svc.gslb.example.org until ", "undo", "-conf", e.path, "drain", "fra")
	wait(t, 30*time.Second, "par1 to answer with fra again", func() bool { return answerTo(t, "127.0.1.10", "127.0.0.3") == "127.0.0.11" })

	expect(0, dnsbAdmin+": pin 127.0.1.0/24 nyc1 until ", "pin", "-conf", e.path, "127.0.1.0/24", "nyc1", "until", "23:59", "reason", "test")
	wait(t, 30*time.Second, "the pin", func() bool { return referredTo(t, "127.0.1.10") == "127.0.0.4" })
	expect(0, dnsbAdmin+": drain par1 until ", "drain", "-conf", e.path, "-zone", "gslb.example.org", "par1", "until", "+1d", "reason", "test")

	watching := launch(t, "nodes", "-watch", dnsb, "gslb.example.org")
	wait(t, 30*time.Second, "two answers of -watch", func() bool {
		return strings.Count(watching.out.String(), "par1  drained ") > 1
	})
}
