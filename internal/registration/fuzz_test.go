package registration

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func FuzzParse(f *testing.F) {
	m, err := full().Message()
	if err != nil {
		f.Fatal(err)
	}
	var parts [2]*dns.Msg
	for i, r := range []*Registration{full(), {Zone: zone, Node: "par1", Serial: 7, Prefixes: full().Prefixes, Part: 1}} {
		r.Parts = 2
		if parts[i], err = r.Message(); err != nil {
			f.Fatal(err)
		}
	}
	withSubnets, err := withClientSubnets().Message()
	if err != nil {
		f.Fatal(err)
	}
	seeds := []*dns.Msg{m, withSubnets, full().Withdrawal(), parts[0], parts[1], update(f, "x.lb.gslb.example.org. 0 AAAA 2001:db8::1")}
	for _, tc := range parseTests {
		seeds = append(seeds, update(f, tc.text))
	}
	for _, m := range seeds {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		r, err := Parse(m)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Rcode == dns.RcodeSuccess || e.Text == "" {
				t.Fatalf("Expected an *Error with a code and a text, got %#v", err)
			}
			return
		}
		if len(r.Addresses) == 0 && r.Parts == 0 {
			again, err := Parse(wire(t, r.Withdrawal()))
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("Expected %+v, got %+v: %v", r, again, err)
			}
			return
		}
		out, err := r.Message()
		if err != nil {
			if strings.Contains(err.Error(), "does not fit") {
				return
			}
			t.Fatalf("Expected %+v to be sent, got: %v", r, err)
		}
		again, err := Parse(wire(t, out))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("Expected %+v, got %+v: %v", r, again, err)
		}
	})
}
