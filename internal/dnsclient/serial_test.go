package dnsclient

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestSerial(t *testing.T) {
	key, err := NewKey(testKey, "", "c2VjcmV0c2VjcmV0c2VjcmV0")
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("the server has no map yet")
	tests := []struct {
		name, zone string
		check      error
		want       string
	}{
		{"zone", "example.org.", nil, ""},
		{"another zone", "example.net.", nil, "the server has no zone example.net."},
		{"explained", "example.org.", refused, refused.Error()},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var checked *dns.Msg
			serial, err := serveZone(t, key, 0).Serial(t.Context(), nil, tc.zone, key, func(r *dns.Msg) error { checked = r; return tc.check })
			if checked == nil || checked.IsTsig() == nil {
				t.Errorf("Expected a signed reply to be checked, got %v", checked)
			}
			if tc.want == "" && (err != nil || serial != testSerial) {
				t.Errorf("Expected serial %d, got %d, %v", testSerial, serial, err)
			}
			if tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)) {
				t.Errorf("Expected an error with %q, got %v", tc.want, err)
			}
		})
	}
}
