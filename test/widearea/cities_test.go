package widearea

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"
)

// wonderProxy is where the measured matrix of 217 cities lies beside a checkout of this repository. The variable WONDERPROXY names another place.
const wonderProxy = "../../../shared/data/wonderproxy217.csv.gz"

// Who stands where.
const (
	rootCity = "Washington"
	dnsACity = "Amsterdam"
	dnsBCity = "London"
)

var (
	// serverCities are where the servers of the services stand.
	serverCities = []string{"Frankfurt", "Washington", "Tokyo", "SaoPaulo"}
	// nodeCities are where the DNS-LBs stand.
	nodeCities = []string{"Paris", "NewYork", "Osaka"}
	// ispCities have a resolver and a client each.
	ispCities = []string{"Paris", "London", "Madrid", "Stockholm", "NewYork", "Montreal", "Osaka", "Seoul"}
)

// clearly is by how much the best must be better for the test to insist on it.
const clearly = 5 * time.Millisecond

// rounded are round-trip times between the cities of the test in milliseconds, for those who do not have the measured ones.
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

// cities returns the measured matrix if it is at hand, else the rounded one.
func cities(t *testing.T) *Matrix {
	t.Helper()
	name := wonderProxy
	if set := os.Getenv("WONDERPROXY"); set != "" {
		name = set
	}
	m, err := ReadMatrix(name)
	if errors.Is(err, fs.ErrNotExist) && name == wonderProxy {
		t.Log("Using rounded latencies: there are no measured ones at " + name)
		return roundedMatrix(t)
	}
	if err != nil {
		t.Fatalf("Expected a matrix, got %v", err)
	}
	return m
}

// slowed is the matrix after two cables broke: all ways to Frankfurt and to Tokyo are longer.
func slowed(m *Matrix) *Matrix {
	slow := m
	for _, city := range slices.Concat(nodeCities, ispCities) {
		slow = slow.With(city, "Frankfurt", m.RTT(city, "Frankfurt")+140*time.Millisecond)
		slow = slow.With(city, "Tokyo", m.RTT(city, "Tokyo")+200*time.Millisecond)
	}
	return slow
}

// TestCities checks that each matrix leaves no doubt about what is right: a client and the DNS-LB near it have the same best server, and by far.
func TestCities(t *testing.T) {
	small, used := roundedMatrix(t), cities(t)
	for _, m := range []*Matrix{small, used} {
		if !m.Has(rootCity, dnsACity, dnsBCity) || !m.Has(slices.Concat(serverCities, nodeCities, ispCities)...) {
			t.Fatal("Expected each matrix to have the cities of the test")
		}
	}
	matrices := map[string]*Matrix{"Rounded": small, "Rounded, slowed": slowed(small), "In use": used, "In use, slowed": slowed(used)}
	for _, m := range []*Matrix{small, used} {
		for city, moves := range map[string]bool{"Paris": true, "NewYork": false, "Osaka": true} {
			before, _ := m.Nearest(city, serverCities)
			after, _ := slowed(m).Nearest(city, serverCities)
			if (before != after) != moves {
				t.Errorf("Expected another best server for %s with the slowed matrix: %t, got %s after %s", city, moves, after, before)
			}
		}
		near, _ := m.Nearest("Paris", serverCities)
		if far, _ := m.Nearest("NewYork", serverCities); far == near {
			t.Errorf("Expected a DNS-LB in NewYork to answer otherwise than one in Paris, got %s from both", near)
		}
	}
	for name, m := range matrices {
		for _, city := range ispCities {
			node, gap := m.Nearest(city, nodeCities)
			if gap < clearly {
				t.Errorf("%s: expected one nearest DNS-LB for %s, got %s by %v", name, city, node, gap)
			}
			for _, without := range []string{"", "Washington"} {
				up := slices.DeleteFunc(slices.Clone(serverCities), func(s string) bool { return s == without })
				best, gap := m.Nearest(city, up)
				if gap < clearly {
					t.Errorf("%s, without '%s': expected one best server for %s, got %s by %v", name, without, city, best, gap)
				}
				if seen, gap := m.Nearest(node, up); seen != best || gap < clearly {
					t.Errorf("%s, without '%s': expected %s to find %s as good as %s does, got %s by %v", name, without, node, best, city, seen, gap)
				}
			}
		}
	}
}
