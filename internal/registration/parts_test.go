package registration

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// large returns a registration with n prefixes of both families.
func large(n int) *Registration {
	r := full()
	r.Prefixes = nil
	for i := range n {
		p := Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + i>>16), byte(i >> 8), byte(i), 0}), 24), Negated: i%7 == 0}
		if i%10 == 0 {
			p.Prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 16), byte(i >> 8), byte(i)}), 56)
		}
		r.Prefixes = append(r.Prefixes, p)
	}
	return r
}

func TestMessagesSplitsWhatDoesNotFitOne(t *testing.T) {
	clientSubnets := large(9000)
	clientSubnets.ClientSubnets = true
	manyCuts := large(9000)
	for i := range 300 {
		manyCuts.Cuts = append(manyCuts.Cuts, fmt.Sprintf("%d.%s.gslb.example.org.", i, strings.Repeat("x", 60)))
	}
	for _, tc := range []struct {
		name  string
		r     *Registration
		parts int
	}{
		{"no prefixes", large(0), 1},
		{"one message", large(8000), 1},
		{"two parts", large(9000), 2},
		{"many cuts", manyCuts, 2},
		{"client subnets", clientSubnets, 2},
		{"100,000 prefixes", large(100_000), 12},
		{"most parts allowed", large(170_000), 20},
	} {
		messages, err := tc.r.Messages()
		if err != nil || len(messages) != tc.parts {
			t.Errorf("%s: Expected %d messages, got %d, %v", tc.name, tc.parts, len(messages), err)
			continue
		}
		var parts []*Registration
		for i, m := range messages {
			if n := m.Len(); n > maxMessage {
				t.Errorf("%s: Expected part %d to fit, got %d bytes", tc.name, i, n)
			}
			part, err := Parse(wire(t, m))
			if err != nil {
				t.Fatalf("%s: Expected part %d to parse, got: %v", tc.name, i, err)
			}
			if tc.parts > 1 && (part.Part != i || part.Parts != tc.parts || part.Serial != tc.r.Serial || part.Lease != tc.r.Lease) {
				t.Errorf("%s: Expected part %d of %d with serial and lease, got %d of %d, %d, %s", tc.name, i, tc.parts, part.Part, part.Parts, part.Serial, part.Lease)
			}
			parts = append(parts, part)
		}
		got, err := Join(parts)
		if err != nil {
			t.Fatalf("%s: Expected the parts to join, got: %v", tc.name, err)
		}
		if !slices.Equal(got.Prefixes, tc.r.Prefixes) {
			t.Errorf("%s: Expected all %d prefixes in their order, got %d", tc.name, len(tc.r.Prefixes), len(got.Prefixes))
		}
		got.Prefixes = tc.r.Prefixes
		if !reflect.DeepEqual(got, tc.r) {
			t.Errorf("%s: Expected %.500s, got %.500s", tc.name, fmt.Sprint(tc.r), fmt.Sprint(got))
		}
	}

	if _, err := large(200_000).Messages(); err == nil || !strings.Contains(err.Error(), "do not fit into 20 messages") {
		t.Errorf("Expected an error for too many prefixes, got: %v", err)
	}
	bad := large(10)
	bad.Node = "par.1"
	if _, err := bad.Messages(); err == nil || !strings.Contains(err.Error(), "expected one label") {
		t.Errorf("Expected an error for a bad name, got: %v", err)
	}
}

func TestJoinKeepsEachPrefixOnce(t *testing.T) {
	part := func(prefixes ...string) *Registration {
		r := &Registration{Zone: zone, Node: "par1", Serial: 1, Parts: 2}
		for _, s := range prefixes {
			r.Prefixes = append(r.Prefixes, prefix(s))
		}
		return r
	}
	r, err := Join([]*Registration{part("10.0.0.0/8", "!10.1.0.0/16"), part("11.0.0.0/8", "10.0.0.0/8")})
	if err != nil || r.Parts != 0 || fmt.Sprint(r.Prefixes) != "[10.0.0.0/8 !10.1.0.0/16 11.0.0.0/8]" {
		t.Errorf("Expected each prefix once, got %+v, %v", r, err)
	}
	_, err = Join([]*Registration{part("10.0.0.0/8"), part("!10.0.0.0/8")})
	if e, ok := err.(*Error); !ok || e.Rcode != dns.RcodeFormatError || !strings.Contains(e.Text, "10.0.0.0/8 and !10.0.0.0/8") {
		t.Errorf("Expected FORMERR for a prefix and its negation, got %v", err)
	}
}

func TestSplitPrefixesFitMessages(t *testing.T) {
	r := large(100_000)
	n := 0
	for _, list := range SplitPrefixes(r.Prefixes) {
		size := 0
		for _, p := range list {
			size += p.size()
		}
		if size > maxList || len(list) == 0 {
			t.Errorf("Expected up to %d bytes, got %d", maxList, size)
		}
		n += len(list)
	}
	if n != len(r.Prefixes) {
		t.Errorf("Expected %d prefixes, got %d", len(r.Prefixes), n)
	}
	if lists := SplitPrefixes(nil); len(lists) != 1 {
		t.Errorf("Expected one empty list, got %d", len(lists))
	}
}
