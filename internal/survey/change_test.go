package survey

import (
	"slices"
	"testing"
)

func TestBetterAndMoved(t *testing.T) {
	for _, tc := range []struct {
		rtt, before   float64
		better, moved bool
	}{
		{10, 12, false, false},
		{9.9, 12, true, false},
		{91, 100, false, false},
		{89, 100, true, false},
		{79, 100, true, true},
		{121, 100, false, true},
		{8, 4, false, false},
		{10, Unknown, true, true},
		{Unknown, 10, false, true},
		{Unknown, Unknown, false, false},
	} {
		if got := Better(tc.rtt, tc.before); got != tc.better {
			t.Errorf("%v instead of %v: Expected %t, got %t", tc.rtt, tc.before, tc.better, got)
		}
		if got := Moved(tc.rtt, tc.before); got != tc.moved {
			t.Errorf("%v after %v: Expected %t, got %t", tc.rtt, tc.before, tc.moved, got)
		}
	}
}

func TestImplausible(t *testing.T) {
	n := line(21)
	for i := range n.Latencies {
		n.Latencies[i] = append(n.Latencies[i], Unknown)
	}
	n.Latencies = append(n.Latencies, slices.Repeat([]float64{Unknown}, 22))
	lie := func(answers []Answer, node int) []Answer {
		return append(answers, Answer{node, 1})
	}
	for _, tc := range []struct {
		name    string
		answers []Answer
		want    []int
	}{
		{"the truth", at(7, 10, 3, 16, 7), nil},
		{"a node claims that a far site is at its place", lie(at(18, 16, 19, 17, 10), 0), []int{0}},
		{"a node claims that a site nearby is at its place", lie(at(2, 16, 3, 1, 10), 0), nil},
		{"one answer against one", lie(at(18, 18), 0), nil},
		{"one near answer, and one from far away", lie(at(18, 18, 10), 0), []int{0}},
		{"a busy node that measures far too much", lie(append(at(18, 18, 10), Answer{12, 2000}), 0), []int{0}},
		{"a node between others", lie(at(2, 2, 20), 11), []int{11}},
		{"other nodes that fit both", lie(at(18, 18, 9), 0), nil},
		{"a node that others have not measured", append(at(18, 18, 10), Answer{21, 1}), nil},
		{"a node that says it is far", append(at(18, 18, 10, 16), Answer{0, 3000}), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := n.Implausible(tc.answers); !slices.Equal(got, tc.want) {
				t.Errorf("Expected %v, got %v", tc.want, got)
			}
		})
	}
}
