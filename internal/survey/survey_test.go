package survey

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// numbers returns those of all nodes.
func numbers(count int) []int {
	all := make([]int, count)
	for i := range all {
		all[i] = i
	}
	return all
}

// line returns nodes on a line, 10 ms apart.
func line(count int, pools ...[]int) *Nodes {
	latency := make([][]float64, count)
	for i := range latency {
		latency[i] = make([]float64, count)
		for j := range latency[i] {
			latency[i][j] = 10 * math.Abs(float64(i-j))
		}
	}
	return NewNodes(latency, numbers(count), pools)
}

// at returns what nodes measure of a site that is at a place of the line.
func at(place float64, nodes ...int) []Answer {
	var answers []Answer
	for _, n := range nodes {
		answers = append(answers, Answer{n, 10 * math.Abs(float64(n)-place)})
	}
	return answers
}

func TestNext(t *testing.T) {
	silent := func(nodes ...int) []Answer {
		var answers []Answer
		for _, n := range nodes {
			answers = append(answers, Answer{n, Unknown})
		}
		return answers
	}
	for _, tc := range []struct {
		name    string
		nodes   *Nodes
		answers []Answer
		want    []int
	}{
		{"few nodes measure all", line(3), nil, []int{1, 0, 2}},
		{"few nodes measure what is missing", line(3), at(0, 1, 2), []int{0}},
		{"few nodes measured all", line(3), at(0, 0, 1, 2), nil},
		{"no nodes", line(0), nil, nil},
		{"landmarks", line(21), nil, []int{10, 3, 17}},
		{"a landmark is missing", line(21), at(5, 10, 3), []int{17}},
		{"a landmark that is gone counts", line(21), at(5, 10, 4, 3), []int{5, 6, 2}},
		{"nodes like the site", line(21), at(7, 10, 3, 16), []int{7, 6, 8}},
		{"two more", line(21), at(0.5, 10, 3, 16, 5, 2, 4), []int{0, 1}},
		{"near enough", line(21), at(7, 10, 3, 16, 7), nil},
		{"enough", line(21), at(7.5, 10, 3, 16, 1, 2, 4, 5, 6), nil},
		{"a silent site", line(21), silent(10, 3, 16), nil},
		{"a site that one node cannot reach", line(21), append(silent(10), at(7, 3, 16)...), []int{7, 8, 6}},
		{"nodes beside servers", line(21, []int{0, 9, 20}), at(7, 10, 3, 16, 7), []int{9}},
		{"nodes beside the servers of two services", line(21, []int{0, 9, 20}, []int{1, 2, 9}), at(7, 10, 3, 16, 7), []int{9, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.nodes.Next(tc.answers); !reflect.DeepEqual(got, tc.want) && len(got)+len(tc.want) > 0 {
				t.Errorf("Expected %v, got %v", tc.want, got)
			}
		})
	}
}

// TestNextEnds lets sites be measured whose answers follow no geometry.
func TestNextEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(0, 30).Draw(t, "nodes")
		latency := rapid.OneOf(rapid.Float64Range(0, 1000), rapid.Just(Unknown))
		between := make([][]float64, count)
		for i := range between {
			between[i] = rapid.SliceOfN(latency, count, count).Draw(t, "latencies")
		}
		var pools [][]int
		if count > 0 {
			pools = rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, count-1), 0, 12), 0, 4).Draw(t, "pools")
		}
		n := NewNodes(between, numbers(count), pools)
		var answers []Answer
		for {
			next := n.Next(answers)
			if len(next) == 0 {
				break
			}
			for _, node := range next {
				if node < 0 || node >= count || answered(answers, node) {
					t.Fatalf("Expected nodes that have not answered, got %v after %v", next, answers)
				}
				answers = append(answers, Answer{node, latency.Draw(t, "RTT")})
			}
		}
		if len(answers) > Most || count > 0 && len(answers) == 0 {
			t.Fatalf("Expected 1 to %d answers, got %d", Most, len(answers))
		}
		servers := []Server{{Latency: make([]float64, count), Beside: -1}, {Beside: 0}}
		if order := n.Order(answers, servers); len(order) != 2 {
			t.Fatalf("Expected 2 servers, got %v", order)
		}
		n.Implausible(answers)
	})
}

func TestOrder(t *testing.T) {
	n := line(21)
	servers := []Server{
		{Latency: nil, Beside: 0},
		{Latency: n.Latencies[9], Beside: -1},
		{Latency: nil, Beside: 12},
		{Latency: nil, Beside: -1}, // nobody knows it
	}
	got := n.Order(at(7, 12, 5, 8), servers)
	var order []int
	for _, e := range got {
		order = append(order, e.Server)
	}
	if !slices.Equal(order, []int{1, 2, 0, 3}) {
		t.Errorf("Expected servers 1 2 0 3, got %v", got)
	}
	if !got[1].Measured || got[1].RTT != 50 || got[0].Measured || !math.IsNaN(got[3].RTT) {
		t.Errorf("Expected the latency of server 2 as measured, and none of server 3, got %v", got)
	}
	if !math.IsNaN(n.Order(nil, servers)[0].RTT) {
		t.Error("Expected no estimate without answers")
	}
}

func BenchmarkNext(b *testing.B) {
	n := line(100, []int{0, 20, 40, 60, 80})
	answers := at(33.5, n.Next(nil)...)
	b.ReportAllocs()
	for b.Loop() {
		n.Next(answers)
	}
}
