package registry

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

// exported returns entries of all kinds: one is longer than a message.
func exported() []Entry {
	long := registrationtest.Node("sin1", "192.0.2.57")
	for i := range 20000 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		long.Prefixes = append(long.Prefixes, registration.Prefix{Prefix: prefix, Negated: i%3 == 0})
	}
	entries := []Entry{{Node: "gone", Serial: 5, ZoneSerial: 7}, {Node: "sin1", Serial: 6, Resets: 2, ZoneSerial: 9, Registration: long}}
	for _, reg := range stored() {
		entries = append(entries, Entry{Node: reg.Node, Serial: 1763800000123, ZoneSerial: 8, Registration: reg})
	}
	return entries
}

// measured is what a survey has stored.
func measured() map[string][]byte {
	return map[string][]byte{
		"198.51.100.0/24":    []byte("1 198.51.100.7 - icmp 491583 1769770000 par1=7.912,icmp,1769769980"),
		"2001:db8:1::/48":    []byte("1 2001:db8:1::53 2001:db8:1::54 - 491583 0 par1=silent,-,1769769980"),
		"par1":               []byte("1 nyc1=78.250,icmp,1769760000"),
		"a-node-of-no-peers": []byte("1"),
	}
}

// anySurvey finds nothing wrong but with one value.
func anySurvey(_ string, value []byte) error {
	if string(value) == "wrong" {
		return errors.New("is wrong")
	}
	return nil
}

func export(t *testing.T, held Contents) string {
	t.Helper()
	var text bytes.Buffer
	if err := WriteExport(&text, testZone, held); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestExportIsComplete(t *testing.T) {
	want := exported()
	text := export(t, Contents{want, measured()})
	zone, held, err := ReadExport(strings.NewReader(text), anySurvey)
	got := held.Entries
	if err != nil || zone != testZone || len(got) != len(want) {
		t.Fatalf("Expected %d nodes of %s, got %d of %s, %v", len(want), testZone, len(got), zone, err)
	}
	for _, w := range want {
		i := slices.IndexFunc(got, func(e Entry) bool { return e.Node == w.Node })
		if i < 0 {
			t.Fatalf("Expected node %s", w.Node)
		}
		g := got[i]
		if g.Serial != w.Serial || g.Resets != w.Resets || g.ZoneSerial != 9 || (g.Registration == nil) != (w.Registration == nil) {
			t.Errorf("Expected %+v, got %+v", w, g)
		}
		if w.Registration != nil {
			before, err := Encode(w.Registration)
			if err != nil {
				t.Fatal(err)
			}
			if after, err := Encode(g.Registration); err != nil || !bytes.Equal(before, after) {
				t.Errorf("%s: Expected the registration that was exported, got %+v, %v", w.Node, g.Registration, err)
			}
		}
	}
	if !reflect.DeepEqual(held.Survey, measured()) {
		t.Errorf("Expected %q, got %q", measured(), held.Survey)
	}
	if again := export(t, held); again != text {
		t.Errorf("Expected the same text again, got %d bytes instead of %d", len(again), len(text))
	}
}

// TestExportWithoutSurvey checks that registrations alone keep version 1, which any version reads.
func TestExportWithoutSurvey(t *testing.T) {
	text := export(t, Contents{Entries: exported()})
	if !strings.HasPrefix(text, "coredns-dnslb-store 1 ") || strings.Contains(text, "survey") {
		t.Errorf("Expected version 1, got %.200s", text)
	}
	if _, held, err := ReadExport(strings.NewReader(text), anySurvey); err != nil || len(held.Survey) != 0 {
		t.Errorf("Expected no measurements, got %q, %v", held.Survey, err)
	}
}

// TestCutExportIsRefused cuts an export at the end of each line.
func TestCutExportIsRefused(t *testing.T) {
	text := export(t, Contents{exported(), measured()})
	for i := strings.IndexByte(text, '\n') + 1; i > 0 && i < len(text); {
		if _, _, err := ReadExport(strings.NewReader(text[:i]), anySurvey); err == nil {
			t.Errorf("Expected an error for an export that ends after %.40q", text[max(0, i-40):i])
		}
		next := strings.IndexByte(text[i:], '\n')
		i += next + 1
	}
}

func TestWrongExports(t *testing.T) {
	const head = "coredns-dnslb-store 1 gslb.example.org. serial 5\n"
	const head2 = "coredns-dnslb-store 2 gslb.example.org. serial 5\n"
	const par1 = "node par1 serial 7\npar1.lb.gslb.example.org. 0 IN A 192.0.2.1\n"
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "cut short"},
		{"something else", "{}\n", "line 1: expected 'coredns-dnslb-store 1'"},
		{"version", "coredns-dnslb-store 3 gslb.example.org.\n", "line 1: the export is of version '3'"},
		{"survey in version 1", head + "survey par1 1\nend 0\n", "line 2: expected a line that begins with 'node' or 'end'"},
		{"survey without a value", head2 + "survey par1\nend 0\n", "line 2: expected 'survey KEY VALUE'"},
		{"survey twice", head2 + "survey par1 1\nsurvey par1 1\nend 0\n", "line 3: what the survey knows of 'par1' is given twice"},
		{"wrong measurements", head2 + "survey par1 wrong\nend 0\n", "line 2: invalid measurements of 'par1': is wrong"},
		{"no zone", "coredns-dnslb-store 1\n", "line 1: expected 'coredns-dnslb-store 1 ZONE serial NUMBER'"},
		{"serial of the zone", "coredns-dnslb-store 1 gslb.example.org. serial x\n", "line 1: invalid serial 'x'"},
		{"count", head + par1 + "end 2\n", "line 4: expected 'end 1'"},
		{"after the end", head + "end 0\n" + par1, "line 3: a line follows"},
		{"record first", head + "par1.lb.gslb.example.org. 0 IN A 192.0.2.1\n", "line 2: expected a line that begins with 'node' or 'end'"},
		{"no record", head + "node par1 serial 7\nend 1\n", "line 3: invalid registration of node 'par1' above"},
		{"record", head + "node par1 serial 7\nnonsense\nend 1\n", "line 3: "},
		{"record after withdrawal", head + "node par1 serial 7 withdrawn\npar1.lb.gslb.example.org. 0 IN A 192.0.2.1\nend 1\n", "line 3: expected a line"},
		{"other node", head + strings.Replace(par1, "node par1", "node nyc1", 1) + "end 1\n", "the records are those of node 'par1'"},
		{"twice", head + par1 + par1 + "end 2\n", "line 4: node 'par1' is given twice"},
		{"serial", head + "node par1 serial -1\n", "line 2: invalid serial '-1'"},
		{"words", head + "node par1 serial 1 gone\n", "line 2: expected 'node NAME serial NUMBER'"},
		{"resets", head + "node par1 serial 1 resets x\n", "line 2: expected 'node NAME serial NUMBER'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := ReadExport(strings.NewReader(tc.text), anySurvey); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Expected an error with %q, got %v", tc.want, err)
			}
		})
	}
	if _, held, err := ReadExport(strings.NewReader(head+par1+"end 1\n"), anySurvey); err != nil || len(held.Entries) != 1 {
		t.Errorf("Expected one node, got %v, %v", held, err)
	}
}

func TestImportOverwritesNothing(t *testing.T) {
	all := exported()
	moved := slices.Clone(all)
	moved[3].Registration = registrationtest.Node(moved[3].Node, "192.0.2.99")
	later := slices.Clone(all)
	later[0].Serial++
	for _, tc := range []struct {
		name   string
		stored []Entry
		want   int // -1: refused
	}{
		{"empty", nil, len(all)},
		{"the same", all, 0},
		{"a part", all[:2], len(all) - 2},
		{"another node", []Entry{{Node: "fra1", Serial: 1}}, -1},
		{"another serial", later, -1},
		{"another address", moved, -1},
		{"withdrawn", []Entry{{Node: "sin1", Serial: 6}}, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			missing, err := Missing(Contents{Entries: tc.stored}, Contents{Entries: all})
			if tc.want < 0 {
				if !errors.Is(err, ErrNotEmpty) {
					t.Errorf("Expected ErrNotEmpty, got %v", err)
				}
				return
			}
			if err != nil || len(missing.Entries) != tc.want {
				t.Errorf("Expected %d nodes, got %d, %v", tc.want, len(missing.Entries), err)
			}
		})
	}

	newer := map[string][]byte{"par1": []byte("1 nyc1=80.000,icmp,1769770000"), "198.51.101.0/24": []byte("1 198.51.101.7 - - 491583 0")}
	missing, err := Missing(Contents{Survey: newer}, Contents{Survey: measured()})
	want := measured()
	delete(want, "par1")
	if err != nil || !reflect.DeepEqual(missing.Survey, want) {
		t.Errorf("Expected what the survey has not measured meanwhile, got %q, %v", missing.Survey, err)
	}
}
