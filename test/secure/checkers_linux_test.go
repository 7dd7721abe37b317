package secure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	dnsBZone = "gslb.example.org"
	nodeZone = "svc.gslb.example.org"
)

// checkedPlans are the delegations that programs check: between them they have
// everything that such a program could take for a fault.
var checkedPlans = map[string]delegationPlan{
	"signed": {signed: true, backend: true},
	"plain":  {apart: true},
}

// finding is a message of zonemaster-cli that is no fault of the program.
type finding struct {
	zone, tag string
	in        func(delegationPlan) bool
	reason    string
}

func always(delegationPlan) bool      { return true }
func unsigned(p delegationPlan) bool  { return !p.signed }
func apart(p delegationPlan) bool     { return p.apart }
func noBackend(p delegationPlan) bool { return !p.backend }

// steering are the findings that any operator gets. docs/checkers.md has them.
var steering = []finding{
	{dnsBZone, "MULTIPLE_SOA_SERIALS", always, "each DNS-B counts the changes that it has made"},
	{dnsBZone, "SOA_SERIAL_VARIATION", always, "each DNS-B counts the changes that it has made"},
	{dnsBZone, "Z01_MNAME_NOT_MASTER", always, "the SOA record names the first DNS-B, and another one may have made more changes"},
	{dnsBZone, "RNAME_MAIL_DOMAIN_INVALID", always, "the mailbox is hostmaster in the zone, which has no records for mail"},
	{dnsBZone, "Z09_MISSING_MAIL_TARGET", always, "the zone has no records for mail"},

	{nodeZone, "MULTIPLE_NS_SET", apart, "NS records name the nodes for the resolver that asks, here others by IPv6 than by IPv4"},
	{nodeZone, "EXTRA_NAME_CHILD", apart, "the referral by IPv4 lacks the node that the NS records by IPv6 have"},
	{nodeZone, "CAN_NOT_BE_RESOLVED", apart, "zonemaster-cli takes addresses from one referral, which lacks that node; DNS-B has them"},
	{nodeZone, "MULTIPLE_SOA_MNAMES", noBackend, "without a backend zone each node is the primary of its own zone"},
	{nodeZone, "MULTIPLE_SOA_SERIALS", noBackend, "without a backend zone the serial is the time at which the node loaded its configuration"},
	{nodeZone, "SOA_SERIAL_VARIATION", noBackend, "without a backend zone the serial is the time at which the node loaded its configuration"},
	{nodeZone, "Z01_MNAME_NOT_MASTER", noBackend, "without a backend zone each node is the primary of its own zone, and one was loaded first"},
	{nodeZone, "RNAME_MAIL_DOMAIN_INVALID", noBackend, "without a backend zone the mailbox is hostmaster in the zone, which has no records for mail"},
	{nodeZone, "Z09_MISSING_MAIL_TARGET", always, "the zone has no records for mail"},
}

// laboratory are the findings about this test.
var laboratory = []finding{
	{dnsBZone, "NAMESERVER_IP_PRIVATE_NETWORK", always, "the addresses are those for documentation"},
	{nodeZone, "NAMESERVER_IP_PRIVATE_NETWORK", always, "the addresses are those for documentation"},
	{dnsBZone, "NOT_SIGNED", unsigned, "this delegation has no keys"},
	{nodeZone, "NOT_SIGNED", unsigned, "this delegation has no keys"},
	{dnsBZone, "NEITHER_DNSKEY_NOR_DS", unsigned, "this delegation has no keys"},
	{nodeZone, "NEITHER_DNSKEY_NOR_DS", unsigned, "this delegation has no keys"},
}

// TestZonemaster has zonemaster-cli check the zones of DNS-B and of the nodes,
// from the root. The findings of level NOTICE or higher must be those of the
// lists, no more and no fewer.
func TestZonemaster(t *testing.T) {
	needs(t, "zonemaster-cli")
	for name, plan := range checkedPlans {
		t.Run(name, func(t *testing.T) {
			d := startDelegation(t, plan)
			root := write(t, "hints", d.hints)
			for _, zone := range []string{dnsBZone, nodeZone} {
				out := zonemaster(t, root, zone)
				found := make(map[string]string) // message by tag
				for line := range strings.Lines(out) {
					if fields := strings.Fields(line); len(fields) >= 3 {
						found[fields[2]] = strings.Join(fields[1:], " ")
					}
				}
				for _, f := range slices.Concat(steering, laboratory) {
					if f.zone != zone || !f.in(plan) {
						continue
					}
					if found[f.tag] == "" {
						t.Errorf("Expected %s to have the finding %s (%s), remove it from the list if it is gone", zone, f.tag, f.reason)
					}
					delete(found, f.tag)
				}
				for _, message := range found {
					t.Errorf("Expected %s to have no finding that is not in the list, got %s", zone, message)
				}
			}
		})
	}
}

// zonemaster returns the messages of zonemaster-cli while the serial of the
// second DNS-B is larger than that of the first.
func zonemaster(t *testing.T, hints, zone string) string {
	t.Helper()
	for {
		changeSecond(t)
		first, second := serials(t)
		out := check(t, nil, "zonemaster-cli", "--hints", hints, "--level", "NOTICE", "--raw", "--no-time", "--no-progress", zone)
		if f, s := serials(t); f == first && s == second {
			return string(out)
		}
	}
}

// TestDNSViz has dnsviz check the same, and names below the zones. It has no
// finding.
func TestDNSViz(t *testing.T) {
	needs(t, "dnsviz")
	for name, plan := range checkedPlans {
		t.Run(name, func(t *testing.T) {
			startDelegation(t, plan)
			// With addresses dnsviz asks the servers. With a file, or by -N, it
			// would start a server of its own.
			root := fmt.Sprintf(".:%s=%s,%[1]s=[%[3]s]", rootHost.Name, rootHost.IPv4, rootHost.IPv6)
			probed := check(t, nil, "dnsviz", "probe", "-d", "1", "-A", "-E", "-a", ".", "-x", root,
				dnsBZone, "b1."+dnsBZone, "par1.lb."+dnsBZone, "nope."+dnsBZone,
				nodeZone, "www."+nodeZone, "any.wild."+nodeZone, "alias."+nodeZone, "nope."+nodeZone)
			var names map[string]struct {
				Delegation struct{ Status string }
			}
			var tree map[string]any
			out := check(t, probed, "dnsviz", "grok", "-P", "-l", "info")
			for _, into := range []any{&names, &tree} {
				if err := json.Unmarshal(out, into); err != nil {
					t.Fatalf("Expected JSON of dnsviz, got %v:\n%s", err, out)
				}
			}
			want := "INSECURE"
			if plan.signed {
				want = "SECURE"
			}
			for _, zone := range []string{dnsBZone, nodeZone} {
				if got := names[zone+"."].Delegation.Status; got != want {
					t.Errorf("Expected the delegation of %s to be %s, got %q", zone, want, got)
				}
			}
			for name, part := range tree {
				for _, problem := range problems(part) {
					t.Errorf("Expected no finding of dnsviz at %s, got %s", name, problem)
				}
			}
		})
	}
}

// problems returns the errors and warnings anywhere in a part of the output of
// dnsviz.
func problems(part any) (found []string) {
	switch part := part.(type) {
	case []any:
		for _, p := range part {
			found = append(found, problems(p)...)
		}
	case map[string]any:
		for key, p := range part {
			if list, ok := p.([]any); ok && (key == "errors" || key == "warnings") {
				for _, problem := range list {
					found = append(found, fmt.Sprint(problem))
				}
				continue
			}
			found = append(found, problems(p)...)
		}
	}
	return found
}

// check runs a program that ends by itself, and returns its output.
func check(t *testing.T, input []byte, program string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) // #nosec G204 -- a test
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var failure bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("Expected %s to succeed, got %v:\n%s%s", program, err, failure.Bytes(), out)
	}
	return out
}

// TestFindingsAreThoseOfThePage compares the list with the page for people.
func TestFindingsAreThoseOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/checkers.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, described []string
	for _, f := range steering {
		listed = append(listed, f.zone+" "+f.tag)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z.]+)` \\| ((?:`[A-Z0-9_]+`(?:, )?)+) \\|")
	for _, m := range row.FindAllSubmatch(page, -1) {
		for tag := range strings.SplitSeq(string(m[2]), ", ") {
			described = append(described, string(m[1])+" "+strings.Trim(tag, "`"))
		}
	}
	slices.Sort(listed)
	slices.Sort(described)
	if !slices.Equal(listed, described) {
		t.Errorf("Expected docs/checkers.md to have the findings\n%q, got\n%q", listed, described)
	}
}
