package registration

import (
	"net/netip"
	"testing"
)

func TestParseLocation(t *testing.T) {
	tests := []struct{ lat, lon, want string }{
		{"48.85", "2.35", "48 51 0.000 N 2 21 0.000 E 0m"},
		{"-33.8688", "-70.5", "33 52 7.680 S 70 30 0.000 W 0m"},
		{"90", "-180", "90 0 0.000 N 180 0 0.000 W 0m"},
		{"0", "0", "0 0 0.000 N 0 0 0.000 E 0m"},
		{"90.1", "0", ""},
		{"0", "180.5", ""},
		{"NaN", "0", ""},
		{"48N", "0", ""},
	}
	for _, tc := range tests {
		got, err := ParseLocation(tc.lat, tc.lon)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s %s: expected %q, got %q, %v", tc.lat, tc.lon, tc.want, got, err)
		}
		if err != nil {
			continue
		}
		reg := Registration{
			Zone: "gslb.example.org.", Node: "par1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
			Cuts: []string{"svc.gslb.example.org."}, Location: got,
		}
		if _, err := reg.Message(); err != nil {
			t.Errorf("%s %s: expected a valid registration, got %v", tc.lat, tc.lon, err)
		}
	}
}
