package tcplimit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLimitsFor(t *testing.T) {
	for _, tc := range []struct {
		descriptors, others int
		want                limits
	}{
		{524288, 40, limits{total: 1024, perClient: 128, spare: 131062}},
		{1024, 24, limits{total: 500, perClient: 63, spare: 250}},
		{1024, 824, limits{total: 100, perClient: 13, spare: 50}}, // many probes
		{100, 20, limits{total: 40, perClient: 5, spare: 20}},
		{100, 98, limits{total: 1, perClient: 1}},
		{100, 100, limits{}},
		{50, 100, limits{}}, // the limit was lowered
	} {
		if got := limitsFor(tc.descriptors, tc.others); got != tc.want {
			t.Errorf("%d descriptors, %d for others: Expected %+v, got %+v", tc.descriptors, tc.others, tc.want, got)
		}
	}
}

func TestClient(t *testing.T) {
	for peer, want := range map[string]string{
		"192.0.2.1:1024":              "192.0.2.1/32",
		"192.0.2.1:1025":              "192.0.2.1/32",
		"[2001:db8:1:2:3:4:5:6]:1024": "2001:db8:1:2::/64",
		"[2001:db8:1:2::1]:1024":      "2001:db8:1:2::/64",
		"[2001:db8:1:3::1]:1024":      "2001:db8:1:3::/64",
		"[fe80::1%eth0]:1024":         "fe80::/64",
	} {
		s := socket{peer: netip.MustParseAddrPort(peer)}
		if got := s.client().String(); got != want {
			t.Errorf("%s: Expected client %s, got %s", peer, want, got)
		}
	}
}

// conns makes connections from lines "CLIENT IDLE [new]". The descriptor is the
// number of the line, from 1. The connection is new if it had no answer yet.
func conns(t *testing.T, lines string) (all []socket) {
	t.Helper()
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		idle, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		n := len(all) + 1
		all = append(all, socket{
			descriptor: n,
			peer:       netip.AddrPortFrom(netip.MustParseAddr(words[0]), uint16(1024+n)),
			answered:   len(words) == 2,
			idle:       idle,
		})
	}
	return all
}

func TestChoose(t *testing.T) {
	var flood strings.Builder // of a hundred clients, and one that has just asked
	for i := range 100 {
		fmt.Fprintf(&flood, "192.0.2.%d 10ms new\n", i)
	}
	flood.WriteString("198.51.100.1 900ms\n")

	for name, tc := range map[string]struct {
		conns           string
		limits          limits
		ofClient, ofAll []int // descriptors
	}{
		"none":           {"", limits{total: 1, perClient: 1}, nil, nil},
		"at the limits":  {"192.0.2.1 9s\n192.0.2.1 9s\n192.0.2.2 9s", limits{total: 3, perClient: 2}, nil, nil},
		"one client":     {"192.0.2.1 2s\n192.0.2.1 9s\n192.0.2.1 3s\n192.0.2.2 9s", limits{total: 9, perClient: 2}, []int{2}, nil},
		"one network":    {"2001:db8::1 2s\n2001:db8::2 9s\n2001:db8:0:1::1 9s", limits{total: 9, perClient: 1}, []int{2}, nil},
		"longest idle":   {"192.0.2.1 3s\n192.0.2.2 9s\n192.0.2.3 1s\n192.0.2.4 8s", limits{total: 2, perClient: 2}, nil, []int{2, 4}},
		"idle, not busy": {"192.0.2.1 10ms\n192.0.2.1 20ms\n192.0.2.1 30ms\n192.0.2.2 1s", limits{total: 3, perClient: 3}, nil, []int{4}},
		// The client with most connections loses, though the other one has the
		// older ones.
		"all busy": {
			"192.0.2.1 10ms\n192.0.2.1 20ms\n192.0.2.1 30ms\n192.0.2.2 800ms\n192.0.2.2 900ms",
			limits{total: 3, perClient: 3}, nil, []int{3, 5},
		},
		// A transfer that is being sent has had an answer just now.
		"transfer": {"192.0.2.1 0s\n192.0.2.2 5s new\n192.0.2.3 0s new\n192.0.2.4 500ms new", limits{total: 1, perClient: 1}, nil, []int{2, 4, 3}},
		// Those of a client beyond its limit do not count twice.
		"both limits": {"192.0.2.1 1s\n192.0.2.1 2s\n192.0.2.1 3s\n192.0.2.2 4s\n192.0.2.3 5s", limits{total: 2, perClient: 1}, []int{2, 3}, []int{5}},
		"flood":       {flood.String(), limits{total: 99, perClient: 10}, nil, []int{1, 2}},
		"nothing":     {"192.0.2.1 1s\n192.0.2.2 0s", limits{}, []int{2, 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			all := conns(t, tc.conns)
			before := slices.Clone(all)
			ofClient, ofAll := choose(all, tc.limits)
			if !slices.Equal(all, before) {
				t.Error("Expected the connections to stay in order")
			}
			for limit, want := range map[string][]int{"client": tc.ofClient, "total": tc.ofAll} {
				chosen := ofClient
				if limit == "total" {
					chosen = ofAll
				}
				var got []int
				for _, c := range chosen {
					got = append(got, c.descriptor)
				}
				if !slices.Equal(got, want) {
					t.Errorf("Limit of %s: Expected %v to be closed, got %v", limit, want, got)
				}
			}
		})
	}
}
