package latencyfile

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestReadMatrix(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       string // latencies of 0 to 1 and of 1 to 0, by slice
		err        string
	}{
		{"runs", "i,j,runs(start_slice:rtt_ms)\n0,1,2:10 3:30\n", "2 hosts [NaN 10 30] [NaN NaN NaN]", ""},
		{"slices", "i,j,t1,t2,t3\n0,1,10,,12.5\n1,0,1,2,3\n", "2 hosts [10 NaN 12.5] [1 2 3]", ""},
		{"a square table", ",Paris,Rome\nParis,0,10\nRome,11,0\n", "2 hosts [10] [11]", ""},
		{"a square table with gaps", ",Paris,Rome\nParis,,\nRome,11,\n", "2 hosts [NaN] [11]", ""},

		{"nothing", "", "", "empty file"},
		{"another table", "a,b,c\n1,2,3\n", "", "line 1: expected the header"},
		{"an unknown host", ",Paris,Rome\nParis,0,10\nMilan,11,0\n", "", "line 3: host 'Milan': expected the hosts of the header, in order"},
		{"a host too many", ",Paris\nParis,0\nRome,1\n", "", "line 3: host 'Rome'"},
		{"a host too few", ",Paris,Rome\nParis,0,10\n", "", "1 rows for 2 hosts: expected a square table"},
		{"a short row", ",Paris,Rome\nParis,0\n", "", "line 2: wrong number of fields"},
		{"no latency", ",Paris,Rome\nParis,0,x\n", "", "line 2: invalid latency 'x'"},
		{"a negative latency", "i,j,t1\n0,1,-1\n", "", "line 2: invalid latency '-1'"},
		{"a pair given twice", "i,j,t1\n0,1,1\n0,1,1\n", "", "line 3: hosts 0 and 1 are given twice"},
		{"no number", "i,j,t1\nx,1,1\n", "", "line 2: invalid host 'x'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := ReadMatrix(strings.NewReader(tc.text))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("Expected an error with %q, got %v", tc.err, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%d hosts %v %v", m.Hosts, slicesOf(m, 0, 1), slicesOf(m, 1, 0)); got != tc.want {
				t.Errorf("Expected %s, got %s", tc.want, got)
			}
		})
	}
}

func slicesOf(m *Matrix, from, to int) []float64 {
	all := make([]float64, m.Slices)
	for s := range all {
		all[s] = m.At(from, to, s)
	}
	return all
}

func FuzzReadMatrix(f *testing.F) {
	f.Add([]byte("i,j,runs\n0,1,1:170 3:180\n1,0,2:0\n"))
	f.Add([]byte("i,j,t1,t2\n0,1,170,180\n"))
	f.Add([]byte(",a,b\na,0,1\nb,1,0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadMatrix(bytes.NewReader(b))
		if err != nil {
			return
		}
		for pair, runs := range m.runs {
			if m.Has(pair[0], pair[1]) != (len(runs) > 0) || pair[0] >= m.Hosts || pair[1] >= m.Hosts {
				t.Errorf("Expected hosts below %d with their latencies, got %v", m.Hosts, pair)
			}
			for _, r := range runs {
				if got := m.At(pair[0], pair[1], r.from); got != r.rtt && got == got {
					t.Errorf("Expected %v in slice %d, got %v", r.rtt, r.from, got)
				}
			}
		}
	})
}
