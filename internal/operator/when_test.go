package operator

import (
	"strings"
	"testing"
	"time"
)

func TestResolveTime(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 1, 31, 17, 30, 15, 0, zone)
	for _, tc := range []struct{ words, want, err string }{
		{"drain fra until +90m reason x y", "drain fra until 2026-01-31T18:00:15Z reason x y", ""},
		{"drain fra until +1d reason x", "drain fra until 2026-02-01T16:30:15Z reason x", ""},
		{"drain fra until 18:00 reason x", "drain fra until 2026-01-31T17:00:00Z reason x", ""},
		{"drain fra until 17:30 reason x", "drain fra until 2026-02-01T16:30:00Z reason x", ""},
		{"drain fra until 2026-02-01T08:00 reason x", "drain fra until 2026-02-01T07:00:00Z reason x", ""},
		{"drain fra until 2026-02-01T08:00:30 reason x", "drain fra until 2026-02-01T07:00:30Z reason x", ""},
		{"drain fra until 2026-02-01 reason x", "drain fra until 2026-01-31T23:00:00Z reason x", ""},
		{"drain fra until 2026-02-01T08:00:00-05:00 reason x", "drain fra until 2026-02-01T13:00:00Z reason x", ""},
		{"drain fra reason until +2h", "drain fra reason until +2h", ""}, // the grammar has the error
		{"drain fra", "drain fra", ""},
		{"drain fra until", "drain fra until", ""},
		{"drain fra until +2 reason x", "", "invalid time '+2'"},
		{"drain fra until tomorrow reason x", "", "invalid time 'tomorrow'"},
		{"drain fra until +0s reason x", "", "not in the future"},
		{"drain fra until +-2h reason x", "", "not in the future"},
		{"drain fra until 2026-01-30 reason x", "", "not in the future: now is 2026-01-31T17:30:15+01:00"},
	} {
		got, err := ResolveTime(strings.Fields(tc.words), now)
		if text := strings.Join(got, " "); text != tc.want {
			t.Errorf("%s: Expected %q, got %q", tc.words, tc.want, text)
		}
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: Expected an error with %q, got: %v", tc.words, tc.err, err)
		}
	}
}

// TestResolveTimeOverDaylightSaving checks that a time of day is one of the next day
// where that has 25 hours.
func TestResolveTimeOverDaylightSaving(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	now := time.Date(2026, 10, 24, 20, 0, 0, 0, berlin)
	got, err := ResolveTime(strings.Fields("drain fra until 19:00 reason x"), now)
	if err != nil || got[3] != "2026-10-25T18:00:00Z" {
		t.Errorf("Expected 19:00 of the next day, got %v, %v", got, err)
	}
}
