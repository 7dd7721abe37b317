package dnsb

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRecentReferrals checks that referrals count for some minutes, across instances,
// and that earlier ones of a node that comes back do not.
func TestRecentReferrals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(testZone)
		d := startedWith(t, z, "accept k1 par1 any\naccept k1 nyc1 any", nil)
		registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "11.0.0.0/8"))
		ask := func(d *DNSB, times int, from string) {
			for range times {
				referredTo(t, d, from)
			}
		}
		expect := func(d *DNSB, par, nyc uint64) {
			t.Helper()
			s := d.State()
			if got := s.Referrals; got.Count != par+nyc || got.Layers[layerRegistration].Referrals != par+nyc || time.Since(got.Since) > (maxReferralSamples+1)*referralSample {
				t.Errorf("Expected %d referrals, got %+v", par+nyc, got)
			}
			for _, n := range s.Nodes {
				want := map[string]uint64{"par1": par, "nyc1": nyc}[n.Node]
				if n.Referrals != want || n.Share != shareOf(want, par+nyc) {
					t.Errorf("Expected %d referrals to %s, got %+v", want, n.Node, n)
				}
			}
		}
		expect(d, 0, 0)
		ask(d, 3, "10.0.0.1")
		ask(d, 1, "11.0.0.1")
		expect(d, 3, 1)
		time.Sleep(2*referralSample + time.Second)
		ask(d, 2, "11.0.0.1")
		expect(d, 3, 3)
		younger := startedWith(t, z, "accept k1 par1 any\naccept k1 nyc1 any", nil)
		ask(younger, 1, "11.0.0.1")
		expect(younger, 3, 4)
		time.Sleep(4 * referralSample)
		expect(younger, 0, 3)
		if _, _, err := younger.registry.Apply(nodeAt("par1", "192.0.2.1"), younger.conf.leaseMax); err != nil {
			t.Fatal(err)
		}
		time.Sleep(maxReferralSamples * referralSample)
		expect(younger, 0, 0)
		z.referrals.mu.Lock()
		defer z.referrals.mu.Unlock()
		if n := len(z.referrals.samples); n != maxReferralSamples {
			t.Errorf("Expected %d samples, got %d", maxReferralSamples, n)
		}
	})
}
