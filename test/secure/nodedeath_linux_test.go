package secure

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// deathTime is how long resolvers are asked after the death of a node: less than
// the 30 seconds for which they hold its NS records.
const deathTime = 12 * time.Second

// TestNodeInNSRecordsDies asks resolvers for the NS records of the zone of the
// nodes, which they then use in place of the referral. One of the nodes dies. If
// the records did not name another one, BIND and Knot Resolver would have nobody
// to ask.
func TestNodeInNSRecordsDies(t *testing.T) {
	for _, r := range resolvers {
		needs(t, r.program)
	}
	plan := delegationPlan{signed: true}
	d := startDelegation(t, plan)
	var nodes []string
	for _, h := range plan.referred(false) {
		nodes = append(nodes, h.Name)
	}
	for _, r := range resolvers {
		r.start(t, &d.system)
		if m, err := ask(r.addr, "svc.gslb.example.org.", dns.TypeNS); err != nil || !slices.Equal(nameServers(m), nodes) {
			t.Fatalf("Expected %s to know the nodes %q, got %v, %v", r.name, nodes, m, err)
		}
	}
	// A stopped process is as silent as a machine without power.
	par1 := d.nodes["par1"].cmd.Process
	if err := par1.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = par1.Signal(syscall.SIGCONT) })

	var asking sync.WaitGroup
	for _, r := range resolvers {
		for after := time.Duration(0); after < deathTime; after += 100 * time.Millisecond {
			asking.Go(func() {
				time.Sleep(after)
				name := fmt.Sprintf("after%d.wild.svc.gslb.example.org.", after.Milliseconds()) // in no cache
				m, err := ask(r.addr, name, dns.TypeA)
				if err != nil {
					m, err = ask(r.addr, name, dns.TypeA) // as clients do that got no reply
				}
				if err != nil || m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
					t.Errorf("Expected an answer of %s %s after the death of a node, got %v, %v", r.name, after, m, err)
				}
			})
		}
	}
	asking.Wait()
}
