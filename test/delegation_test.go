package test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// startBIND starts a BIND with one zone, at an address of an interface, which ends with the test, and returns a
// function that replaces the zone.
func startBIND(t *testing.T, address, port, zone, text string) (replace func(text string)) {
	t.Helper()
	named := program(t, "named", "bind9")
	dir := t.TempDir()
	write := writerIn(t, dir)
	write("zone", text)
	write("named.conf", fmt.Sprintf(`options {
	directory "%s"; pid-file none; session-keyfile none; recursion no; dnssec-validation no;
	listen-on port %s { %s; }; listen-on-v6 { none; };
};
controls { };
zone "%s" { type primary; file "zone"; };
`, dir, port, address, zone))
	cmd := exec.Command(named, "-g", "-c", filepath.Join(dir, "named.conf"))
	background(t, "BIND", cmd)
	serial := func() uint32 {
		r, err := dns.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA), address+":"+port)
		if err != nil || len(r.Answer) == 0 {
			return 0
		}
		return r.Answer[0].(*dns.SOA).Serial
	}
	wait(t, 20*time.Second, "an answer of BIND", func() bool { return serial() > 0 })
	next := serial()
	return func(text string) {
		t.Helper()
		next++
		write("zone", strings.Replace(text, " 1 7200", fmt.Sprintf(" %d 7200", next), 1))
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		wait(t, 20*time.Second, "BIND to load the zone", func() bool { return serial() == next })
	}
}

// TestCheckDelegation checks the delegation from a BIND to the example, well and
// with faults.
func TestCheckDelegation(t *testing.T) {
	const dnsa, port = "127.0.0.1", "1053"
	e := newExample(t)
	e.addNear()
	e.remove("# ---- 1. ", "# ---- 2. ") // BIND is DNS-A
	s := start(t, "-conf", e.path)
	zone := string(contentOf(t, filepath.Join(root, "example"), "db.example.org"))
	replace := startBIND(t, dnsa, port, "example.org", zone)
	s.waitFor(`Registered node "par1" by key`, 30*time.Second)
	s.waitFor(`Registered node "nyc1" by key`, 30*time.Second)

	// On a busy machine a server may seem to be silent: then ask again.
	expect := func(status int, args string, want ...string) {
		t.Helper()
		for attempt := range 5 {
			out, got := run(t, append([]string{"check-delegation"}, strings.Fields(args)...)...)
			missing := slices.DeleteFunc(slices.Clone(want), func(text string) bool { return strings.Contains(out, text) })
			if got == status && len(missing) == 0 {
				return
			}
			if attempt == 4 {
				t.Errorf("%s: Expected status %d and %q, got status %d:\n%s", args, status, missing, got, out)
			}
		}
	}
	const at = " @" + dnsa + ":" + port
	expect(0, "-from 127.0.1.10 gslb.example.org www.example.org"+at,
		"ok           DNS-A 127.0.0.1:1053 answers for example.org over UDP and TCP, with EDNS\n",
		"ok           DNS-A 127.0.0.1:1053 leads www.example.org to www.svc.gslb.example.org\n",
		"ok           DNS-A 127.0.0.1:1053 delegates gslb.example.org to b1.gslb.example.org (127.0.0.2), TTL 3600\n",
		"ok           DNS-B b1.gslb.example.org 127.0.0.2:1053 names the same servers and addresses as DNS-A\n",
		"refers 127.0.1.10 for svc.gslb.example.org to par1.lb.gslb.example.org (127.0.0.3), nyc1.lb.gslb.example.org (127.0.0.4), TTL 300\n",
		"ok           node par1.lb.gslb.example.org 127.0.0.3:1053 answers with authority for www.svc.gslb.example.org over UDP and TCP, with EDNS: 127.0.0.11\n",
		"\n11 checks, no problems\n")
	expect(0, "-from 127.0.2.10 gslb.example.org"+at, "to nyc1.lb.gslb.example.org (127.0.0.4), par1.lb.gslb.example.org (127.0.0.3), TTL 300\n")
	expect(0, "-from 203.0.113.7 gslb.example.org www.example.org"+at, "refers 203.0.113.7 for svc.gslb.example.org to nyc1.lb.gslb.example.org (127.0.0.4), ")
	expect(1, "gslb.example.org www.example.net"+at, "problem      DNS-A 127.0.0.1:1053 does not lead www.example.net into gslb.example.org: add the alias")
	for args, want := range map[string]string{
		"":                               "expected a zone",
		"a b c":                          "expected a zone",
		".":                              "nothing delegates the root",
		"gslb.example.org @dns-a":        "invalid server '@dns-a'",
		"-from here gslb.example.org":    "invalid address 'here' for -from",
		"-to 192.0.2.1 gslb.example.org": "not defined: -to",
		"gslb.example.org @192.0.2.1 @192.0.2.2:1053": "another port",
	} {
		expect(2, args, want)
	}

	// With IPv6 addresses that this machine may not reach, and a DNS-B that is gone.
	replace(zone + "gslb NS b2.gslb\nb2.gslb A 127.0.0.8\nb2.gslb AAAA ::1\n")
	expect(1, "gslb.example.org"+at,
		"problem      DNS-B b2.gslb.example.org 127.0.0.8:1053 does not answer (nothing listens at its port): start it",
		"problem      DNS-B b1.gslb.example.org 127.0.0.2:1053 does not name the server b2.gslb.example.org, DNS-A does: add an 'ns' line of dnsb, or remove the NS record at DNS-A\n",
		"DNS-B b2.gslb.example.org [::1]:1053 ")
	replace(strings.Replace(zone, "127.0.0.2", "127.0.0.8", 1) + "b1.gslb A 127.0.0.2\n")
	expect(1, "gslb.example.org"+at,
		"problem      DNS-B b1.gslb.example.org 127.0.0.2:1053 has other addresses of b1.gslb.example.org (127.0.0.2) than DNS-A (127.0.0.2 127.0.0.8)")
	replace(zone + "gslb DS 1 13 2 " + strings.Repeat("0", 64) + "\n")
	expect(1, "gslb.example.org"+at, "does not sign gslb.example.org, but DNS-A has a DS record: resolvers that validate fail: remove the DS record")
	replace(strings.Replace(zone, "gslb        NS", "other       NS", 1))
	expect(1, "gslb.example.org"+at, "problem      DNS-A 127.0.0.1:1053 does not delegate gslb.example.org: add an NS record", "\n2 checks, 1 problem\n")

	out, status := run(t, "check-delegation", "-json", "gslb.example.org", strings.TrimSpace(at))
	var got struct {
		Version, Problems, Unchecked int
		Zone                         string
		Checks                       []struct{ Result, Role, Server, Text, Remedy string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != 1 {
		t.Fatalf("Expected JSON and status 1, got %d, %v:\n%s", status, err, out)
	}
	if got.Version != 1 || got.Zone != "gslb.example.org." || got.Problems != 1 || got.Unchecked != 0 || len(got.Checks) != 2 ||
		got.Checks[0].Result != "ok" || got.Checks[1].Result != "problem" || got.Checks[1].Server != dnsa+":"+port || got.Checks[1].Role != "DNS-A" || got.Checks[1].Remedy == "" {
		t.Errorf("Expected a good server and a problem, got\n%s", out)
	}
	replace(zone)
	expect(0, "gslb.example.org"+at)
}
