package dnsb

import (
	"strings"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

func TestAcceptRules(t *testing.T) {
	d, err := parse(controller(`dnsb {
		ns b1 192.0.2.1
		accept k1 any1 any
		accept k1 few  10.0.0.0/8 192.0.2.0/24 2001:db8::/32 for svc
		accept k2 few  11.0.0.0/8 for other
		accept k1 all  any 0.0.0.0/0 ::/0 128.0.0.0/1
		node   st1 192.0.2.4
		cut    fixed st1
	}`))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		key, node string
		cuts      string
		prefixes  string
		want      string // part of the error
	}{
		{"k1.", "any1", "svc x.y", "8.0.0.0/8 !192.0.2.1/32 2000::/16", ""},
		{"k1.", "any1", "fixed", "", ""},
		{"k1.", "any1", "", "8.0.0.0/7", "may not claim the prefix 8.0.0.0/7"},
		{"k1.", "any1", "", "!0.0.0.0/0", "may not claim the prefix 0.0.0.0/0"},
		{"k1.", "any1", "", "2000::/15", "may not claim the prefix 2000::/15"},
		{"k1.", "any1", "a.fixed", "", "below or above the cut fixed."},
		{"k1.", "any1", "b1", "", "is the name of a server"},
		{"k1.", "any1", "x.b1", "", "is the name of a server"},
		{"k1.", "any1", "any1.lb", "", "those of the nodes"},
		{"k1.", "any1", "lb", "", "those of the nodes"},
		{"k1.", "any1", "_explain", "", "asks for an explanation"},
		{"k1.", "any1", "x._explain.y", "", "asks for an explanation"},
		{"k1.", "any1", "*.x", "", "wildcard"},
		{"k2.", "any1", "", "", "the key k2. may not register node any1"},
		{"k1.", "nobody", "", "", "may not register node nobody"},
		{"", "nobody", "", "", "no 'accept' line lets node nobody register"},
		{"k1.", "few", "svc", "10.0.0.0/8 10.1.0.0/16 192.0.2.128/25 2001:db8:1::/48", ""},
		{"k1.", "few", "", "11.0.0.0/8", "may not claim the prefix 11.0.0.0/8"},
		{"k1.", "few", "", "192.0.0.0/16", "may not claim the prefix 192.0.0.0/16"},
		{"k1.", "few", "", "10.0.0.0/24 !203.0.113.0/24", "may not claim the prefix 203.0.113.0/24"},
		{"k1.", "few", "other", "", "may not serve other."},
		{"k2.", "few", "other", "11.1.0.0/16", ""},
		{"", "few", "other svc", "11.1.0.0/16 10.0.0.0/8", ""},
		{"k1.", "all", "", "0.0.0.0/0 ::/0 128.0.0.0/1 8.0.0.0/8", ""},
		{"k1.", "all", "", "0.0.0.0/1", "may not claim the prefix 0.0.0.0/1"},
	}
	for _, tc := range tests {
		r := nodeAt(tc.node, "192.0.2.9", strings.Fields(tc.prefixes)...)
		r.Cuts = nil
		for cut := range strings.FieldsSeq(tc.cuts) {
			r.Cuts = append(r.Cuts, cut+"."+testZone)
		}
		err := d.conf.permits(tc.key, r, nil)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s as %s, %s %s: Expected %q, got: %v", tc.node, tc.key, tc.cuts, tc.prefixes, tc.want, err)
		}
	}

	// A node may give up the cuts that it has, and those that it might have.
	r := &registration.Registration{Zone: testZone, Node: "few", FormerCuts: []string{"old." + testZone, "svc." + testZone}}
	if err := d.conf.permits("k1.", r, []string{"old." + testZone}); err != nil {
		t.Errorf("Expected a node to be allowed to give up its cut, got: %v", err)
	}
	if err := d.conf.permits("k1.", r, nil); err == nil {
		t.Error("Expected a cut that the node does not have to be refused")
	}
}
