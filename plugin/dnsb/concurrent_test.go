package dnsb

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// Queries see each registration in whole or not at all, whatever else changes.
func TestConcurrent(t *testing.T) {
	p := newFakeProber()
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any", func() prober { return p })
	// par1 claims the same ten prefixes in every version, with the version in its address.
	version := func(i int) (string, []string) {
		var prefixes []string
		for n := range 10 {
			prefixes = append(prefixes, fmt.Sprintf("10.%d.0.0/16", n))
		}
		for n := range 50 {
			prefixes = append(prefixes, fmt.Sprintf("11.%d.%d.0/24", i, n))
		}
		return fmt.Sprintf("192.0.2.%d", i+1), prefixes
	}
	addr, prefixes := version(0)
	registers(t, d, nodeAt("par1", addr, prefixes...))
	registers(t, d, nodeAt("nyc1", "198.51.100.1"))

	var (
		done    atomic.Bool
		queries sync.WaitGroup
		newest  atomic.Int64 // version that is registered for sure
	)
	for g := range 4 {
		queries.Go(func() {
			for i := 0; !done.Load(); i++ {
				least := newest.Load()
				m := ask(t, d, fmt.Sprintf("10.%d.0.%d", i%10, g), "www.svc."+testZone, dns.TypeA)
				if len(m.Ns) != 1 || m.Ns[0].(*dns.NS).Ns != "par1.lb."+testZone || len(m.Extra) != 1 {
					t.Errorf("Expected a referral to par1, got %v", m)
					return
				}
				if got := int64(m.Extra[0].(*dns.A).A[3]) - 1; got < least {
					t.Errorf("Expected version %d or later, got %d", least, got)
					return
				}
				ask(t, d, "10.0.0.1", "par1.lb."+testZone, dns.TypeAPL)
			}
		})
	}
	for i := 1; i < 100; i++ {
		addr, prefixes := version(i)
		registers(t, d, nodeAt("par1", addr, prefixes...))
		newest.Store(int64(i))
		p.say("198.51.100.1", probeResult(i%3)) // #nosec G115 -- small
		select {
		case p.changes <- struct{}{}:
		default:
		}
	}
	done.Store(true)
	queries.Wait()
}
