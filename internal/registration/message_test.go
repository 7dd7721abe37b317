package registration

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestMessageParsesToSameRegistration(t *testing.T) {
	bare := &Registration{Zone: zone, Node: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	many := full()
	for i := range 9000 {
		many.Prefixes = append(many.Prefixes, Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	deputies := full()
	deputies.Deputies = nil
	for i := range maxDeputies {
		deputies.Deputies = append(deputies.Deputies, fmt.Sprintf("%d%s", i+10, strings.Repeat("x", 61)))
	}
	for name, r := range map[string]*Registration{"full": full(), "client subnets": withClientSubnets(), "beside": withBeside(), "bare": bare, "many prefixes": many, "long TXT record": deputies} {
		t.Run(name, func(t *testing.T) {
			m, err := r.Message()
			if err != nil {
				t.Fatalf("Expected a message, got error: %v", err)
			}
			got, err := Parse(wire(t, m))
			if err != nil {
				t.Fatalf("Expected the message to parse, got error: %v", err)
			}
			if !reflect.DeepEqual(got, r) {
				t.Errorf("Expected %.500s, got %.500s", fmt.Sprint(r), fmt.Sprint(got))
			}
		})
	}
}

func TestWithdrawalParsesToRegistrationWithoutAddresses(t *testing.T) {
	got, err := Parse(wire(t, full().Withdrawal()))
	if err != nil {
		t.Fatalf("Expected the withdrawal to parse, got error: %v", err)
	}
	want := &Registration{
		Zone: zone, Node: "par1", Serial: 1763800000123,
		FormerCuts: []string{"svc.gslb.example.org.", "a.b.gslb.example.org.", "old.gslb.example.org."},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Expected %+v, got %+v", want, got)
	}
	if lease, ok := GrantedLease(full().Withdrawal()); !ok || lease != 0 {
		t.Errorf("Expected a lease of 0, got %v, %v", lease, ok)
	}
}

func TestMessageRejectsInvalidRegistration(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Registration)
		want   string
	}{
		{"no address", func(r *Registration) { r.Addresses = nil }, "needs at least one address"},
		{"bad node", func(r *Registration) { r.Node = "par.1" }, "expected one label"},
		{"cut outside the zone", func(r *Registration) { r.Cuts = []string{"example.net."} }, "not in the zone"},
		{"host bits", func(r *Registration) { r.Prefixes = []Prefix{prefix("192.0.2.1/24")} }, "did you mean"},
		{"location", func(r *Registration) { r.Location = "Paris" }, "expected the data of a LOC record"},
		{"too many prefixes", func(r *Registration) {
			for i := range 20000 {
				r.Prefixes = append(r.Prefixes, Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
			}
		}, "does not fit"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := full()
			tc.change(r)
			_, err := r.Message()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Expected an error with %q, got: %v", tc.want, err)
			}
		})
	}
}
