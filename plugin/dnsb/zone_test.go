package dnsb

import "testing"

// A registration that the accept rules no longer allow is ignored, but stays in
// the registry.
func TestReloadAppliesAcceptRules(t *testing.T) {
	z := newZone(testZone)
	d := startedWith(t, z, "accept k1 par1 any\naccept k1 nyc1 any", nil)
	registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
	registers(t, d, nodeAt("nyc1", "192.0.2.2"))
	for lines, want := range map[string]string{
		"accept k2 par1 any\naccept k1 nyc1 any":                         "par1",
		"accept k1 nyc1 any":                                             "nyc1",
		"accept k1 par1 11.0.0.0/8\naccept k1 nyc1 any":                  "nyc1",
		"accept k1 par1 any for x.gslb.example.org\naccept k1 nyc1 any":  "nyc1",
		"accept k1 par1 10.0.0.0/8 for svc\naccept k1 nyc1 any\nttl 60s": "par1",
	} {
		if got := referredTo(t, startedWith(t, z, lines, nil), "10.0.0.1"); got != want {
			t.Errorf("%s: Expected %s, got %s", lines, want, got)
		}
	}
}
