package plural

import "testing"

func TestOf(t *testing.T) {
	for _, tc := range []struct {
		n          int
		noun, want string
	}{
		{0, "node", "0 nodes"}, {1, "node", "1 node"}, {2, "node", "2 nodes"}, {1, "prefix", "1 prefix"}, {3, "registered prefix", "3 registered prefixes"},
		{1, "address", "1 address"}, {2, "address", "2 addresses"}, {2, "switch", "2 switches"}, {2, "latency", "2 latencies"}, {1, "latency", "1 latency"}, {2, "query", "2 queries"}, {2, "way", "2 ways"},
	} {
		if got := Of(tc.n, tc.noun); got != tc.want {
			t.Errorf("Expected %q, got %q", tc.want, got)
		}
	}
}
