package dnslb

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// servedCounts returns what the metric of answers by server has of snapshots.
func servedCounts(t *testing.T, snapshots ...*snapshot) []string {
	t.Helper()
	ch := make(chan prometheus.Metric, 10_000)
	collectServers(snapshots, ch)
	close(ch)
	var lines []string
	for m := range ch {
		var got dto.Metric
		if err := m.Write(&got); err != nil {
			t.Fatal(err)
		}
		line := ""
		for _, l := range got.Label {
			if l.GetName() == "server" || l.GetName() == "service" {
				line += l.GetValue() + " "
			}
		}
		lines = append(lines, line+fmt.Sprint(got.Counter.GetValue()))
	}
	slices.Sort(lines)
	return lines
}

// TestAnswersByServer checks that answers are counted by their first server, from 0,
// and that a change of the servers continues the counts of those that stay.
func TestAnswersByServer(t *testing.T) {
	d := service4(options{answers: 2}, make([]settings, 2), []float64{20, 10})
	www := "www." + testZone
	if got, want := servedCounts(t, d.snapshot.Load()), []string{"a " + www + " 0", "b " + www + " 0"}; !slices.Equal(got, want) {
		t.Errorf("Expected %q, got %q", want, got)
	}
	for range 5 {
		ask(t, d, "10.0.0.1")
	}
	if got, want := servedCounts(t, d.snapshot.Load()), []string{"a " + www + " 0", "b " + www + " 5"}; !slices.Equal(got, want) {
		t.Errorf("Expected %q, got %q", want, got)
	}

	d.state.setSnapshot(d.snapshot.Load(), d)
	d.inventory.servers["c"] = serverConfig{[]netip.Addr{netip.MustParseAddr("192.0.2.9")}, settings{weight: 1, tier: 1}}
	d.inventory.services[0].servers = labelsOf("b", "c")
	next := d.sources.snapshot()
	d.state.setSnapshot(next, d)
	if got, want := servedCounts(t, next), []string{"b " + www + " 5", "c " + www + " 0"}; !slices.Equal(got, want) {
		t.Errorf("Expected %q, got %q", want, got)
	}
}

// TestAnswersByServerAreBounded checks that a block with many servers has no series
// for each.
func TestAnswersByServerAreBounded(t *testing.T) {
	for _, tc := range []struct{ servers, series int }{{maxServedMembers, maxServedMembers}, {maxServedMembers + 1, 0}} {
		p := &pool{services: []string{"www." + testZone}}
		addr := netip.MustParseAddr("10.0.0.0")
		for i := range tc.servers {
			p.members = append(p.members, &member{label: fmt.Sprint(i), addr: addr})
			addr = addr.Next()
		}
		s := &snapshot{pools: []*pool{p}}
		s.countServed()
		if got := len(servedCounts(t, s)); got != tc.series {
			t.Errorf("Expected %d series of %d servers, got %d", tc.series, tc.servers, got)
		}
	}
}
