package widearea

import (
	"os"
	"slices"
	"testing"
	"time"
)

// Cities of the machines.
const (
	rootCity = "Washington"
	dnsACity = "Amsterdam"
	dnsBCity = "London"
)

var (
	// serverCities have a server of all services each.
	serverCities = []string{"Frankfurt", "Washington", "Tokyo", "SaoPaulo"}
	// nodeCities have a DNS-LB each.
	nodeCities = []string{"Paris", "NewYork", "Osaka"}
	// ispCities have a resolver and a client each.
	ispCities = []string{"Paris", "London", "Madrid", "Stockholm", "NewYork", "Montreal", "Osaka", "Seoul"}
)

// minGap is how much faster the best server or node must be than the second, so
// that tests can rely on it.
const minGap = 5 * time.Millisecond

// rounded has round-trip times between the cities of the test in milliseconds,
// for machines without the measured ones.
var rounded = struct {
	cities []string
	rtt    [][]float64
}{
	[]string{"Amsterdam", "London", "Paris", "Stockholm", "Madrid", "NewYork", "Montreal", "Osaka", "Seoul", "Frankfurt", "Washington", "Tokyo", "SaoPaulo"},
	[][]float64{
		{0, 6, 10, 24, 26, 76, 140, 245, 270, 8, 83, 240, 190},
		{6, 0, 8, 29, 23, 71, 84, 230, 270, 13, 76, 217, 178},
		{10, 8, 0, 31, 18, 74, 83, 230, 275, 10, 79, 235, 205},
		{24, 29, 31, 0, 54, 93, 104, 225, 255, 27, 105, 245, 230},
		{26, 23, 18, 54, 0, 95, 91, 245, 270, 33, 93, 230, 205},
		{76, 71, 74, 93, 95, 0, 9, 173, 187, 82, 8, 176, 127},
		{140, 84, 83, 104, 91, 9, 0, 155, 195, 90, 22, 140, 132},
		{245, 230, 230, 225, 245, 173, 155, 0, 34, 222, 174, 7, 265},
		{270, 270, 275, 255, 270, 187, 195, 34, 0, 275, 191, 33, 297},
		{8, 13, 10, 27, 33, 82, 90, 222, 275, 0, 97, 222, 192},
		{83, 76, 79, 105, 93, 8, 22, 174, 191, 97, 0, 170, 120},
		{240, 217, 235, 245, 230, 176, 140, 7, 33, 222, 170, 0, 280},
		{190, 178, 205, 230, 205, 127, 132, 265, 297, 192, 120, 280, 0},
	},
}

func roundedMatrix(t *testing.T) *Matrix {
	t.Helper()
	m, err := NewMatrix(rounded.cities, rounded.rtt)
	if err != nil {
		t.Fatalf("Expected a matrix, got %v", err)
	}
	return m
}

// cities returns the measured matrix of the file in the environment variable
// WONDERPROXY or, without it, the rounded one.
func cities(t *testing.T) *Matrix {
	t.Helper()
	name := os.Getenv("WONDERPROXY")
	if name == "" {
		t.Log("No measured latencies in WONDERPROXY, using rounded ones")
		return roundedMatrix(t)
	}
	m, err := ReadMatrix(name)
	if err != nil {
		t.Fatalf("Expected a matrix, got %v", err)
	}
	return m
}

// slowed returns the matrix after two cables broke: all paths to Frankfurt and
// to Tokyo are longer.
func slowed(m *Matrix) *Matrix {
	slow := m
	for _, city := range slices.Concat(nodeCities, ispCities) {
		slow = slow.With(city, "Frankfurt", m.RTT(city, "Frankfurt")+140*time.Millisecond)
		slow = slow.With(city, "Tokyo", m.RTT(city, "Tokyo")+200*time.Millisecond)
	}
	return slow
}

// TestNearestServerIsUnambiguous checks that in each matrix a client and its
// nearest DNS-LB have the same nearest server, by more than minGap.
func TestNearestServerIsUnambiguous(t *testing.T) {
	small, current := roundedMatrix(t), cities(t)
	for _, m := range []*Matrix{small, current} {
		if !m.Has(rootCity, dnsACity, dnsBCity) || !m.Has(slices.Concat(serverCities, nodeCities, ispCities)...) {
			t.Fatal("Expected each matrix to have the cities of the test")
		}
	}
	matrices := map[string]*Matrix{"Rounded": small, "Rounded, slowed": slowed(small), "Current": current, "Current, slowed": slowed(current)}
	down := map[string][]string{"Rounded": {"", "Washington", "Tokyo"}, "Rounded, slowed": {"", "Washington"}}
	down["Current"], down["Current, slowed"] = down["Rounded"], down["Rounded, slowed"]
	for _, m := range []*Matrix{small, current} {
		for city, moves := range map[string]bool{"Paris": true, "NewYork": false, "Osaka": true} {
			before, _ := m.Nearest(city, serverCities)
			after, _ := slowed(m).Nearest(city, serverCities)
			if (before != after) != moves {
				t.Errorf("Expected another nearest server for %s in the slowed matrix: %t, got %s before and %s after", city, moves, before, after)
			}
		}
		fromParis, _ := m.Nearest("Paris", serverCities)
		if fromNewYork, _ := m.Nearest("NewYork", serverCities); fromNewYork == fromParis {
			t.Errorf("Expected different nearest servers of NewYork and Paris, got %s for both", fromParis)
		}
	}
	for name, m := range matrices {
		for _, city := range ispCities {
			node, gap := m.Nearest(city, nodeCities)
			if gap < minGap {
				t.Errorf("%s: Expected one nearest DNS-LB of %s, got %s by %v", name, city, node, gap)
			}
			for _, down := range down[name] {
				up := slices.DeleteFunc(slices.Clone(serverCities), func(s string) bool { return s == down })
				best, gap := m.Nearest(city, up)
				if gap < minGap {
					t.Errorf("%s, '%s' down: Expected one nearest server of %s, got %s by %v", name, down, city, best, gap)
				}
				if seen, gap := m.Nearest(node, up); seen != best || gap < minGap {
					t.Errorf("%s, '%s' down: Expected %s to have the nearest server %s of %s, got %s by %v", name, down, node, best, city, seen, gap)
				}
			}
		}
	}
}
