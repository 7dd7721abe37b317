package serveroverride

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const later = " until 2100-01-01T00:00:00Z reason new disk"

func TestReadAdminFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	tests := []struct{ name, text, err string }{
		{"none", "", ""},
		{"comments", "# nothing\n\n   # down fra\n", ""},
		{"all verbs", "up fra" + later + "\ndown fra" + later + " # soon\n\tdrain\tfra" + later + "\n", ""},
		{"an offset", "down fra until 2100-01-01T00:00:00+02:00 reason x\n", ""},
		{"for a service", "down fra for www.example.org" + later, ""},
		{"globs", "down f?a-[0-9]* for *.example.org." + later, ""},
		{"no end", "# one\ndown fra reason x\n", ":2 - 'down fra reason x' has no end: add 'until TIME'"},
		{"no reason", "down fra until 2100-01-01T00:00:00Z\n", ":1 - 'down fra until 2100-01-01T00:00:00Z' has no reason"},
		{"empty reason", "down fra until 2100-01-01T00:00:00Z reason\n", ":1 - 'down fra until 2100-01-01T00:00:00Z reason' has no reason"},
		{"commented reason", "down fra until 2100-01-01T00:00:00Z reason # new disk\n", "' has no reason"},
		{"unknown verb", "stop fra" + later, ":1 - unknown verb 'stop', expected one of: down, up, drain"},
		{"no server", "down" + later, ":1 - expected 'down SERVER [for SERVICE] until TIME reason TEXT...'"},
		{"two servers", "down fra iad" + later, ":1 - expected 'down SERVER"},
		{"no service", "down fra for" + later, ":1 - expected 'down SERVER"},
		{"time", "\n\ndown fra until tomorrow reason x\n", ":3 - invalid time 'tomorrow': expected date, time and zone, such as 2026-01-31T18:00:00Z"},
		{"time without offset", "down fra until 2100-01-01T00:00:00 reason x\n", "invalid time"},
		{"glob", "down fra[" + later, ":1 - invalid pattern 'fra['"},
		{"long", "\ndown fra" + strings.TrimSpace(later) + strings.Repeat("x", 70_000), ":2 - the line has 700"},
		{"server that is not ASCII", "down bücher-?" + later, ":1 - invalid pattern 'bücher-?': expected ASCII characters"},
		{"service that is not ASCII", "down fra for *.bücher.example.org" + later, ":1 - invalid pattern '*.bücher.example.org': names in the DNS are ASCII, write '*.xn--bcher-kva.example.org'"},
		{"glob of a service", "down fra for [" + later, "invalid pattern"},
	}
	for _, tc := range tests {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Grammar.ReadFile(path)
		switch {
		case tc.err == "" && err != nil:
			t.Errorf("%s: expected no error, got %v", tc.name, err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !strings.HasPrefix(err.Error(), path+":")):
			t.Errorf("%s: expected an error with the file and %q, got %v", tc.name, tc.err, err)
		}
	}
	if overrides, err := Grammar.ReadFile(path + ".missing"); err != nil || overrides != nil {
		t.Errorf("Expected no overrides of a file that does not exist, got %v, %v", overrides, err)
	}
	if _, err := Grammar.ReadFile(filepath.Dir(path)); err == nil {
		t.Error("Expected an error for a directory")
	}
}

// FuzzParse looks for overrides that nothing could match, and for panics.
func FuzzParse(f *testing.F) {
	f.Add("down fra for www.example.org" + later)
	f.Add("up *" + later)
	f.Fuzz(func(t *testing.T, text string) {
		fields := strings.Fields(text)
		if len(fields) == 0 {
			return
		}
		o, err := Grammar.Parse(fields)
		a := o.Action
		if err == nil && (a.Server == "" || o.Until.IsZero() || a.Verb == None || a.Service != "" && !strings.HasSuffix(a.Service, ".")) {
			t.Errorf("Expected an error for %q, got %+v", text, o)
		}
	})
}
