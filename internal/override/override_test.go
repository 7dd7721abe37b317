package override

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

var grammar = Grammar[string]{
	{"drain", "drain NODE", func(args []string) (string, error) {
		if len(args) != 1 {
			return "", ErrUsage
		}
		if args[0] == "unknown" {
			return "", errors.New("unknown node 'unknown'")
		}
		return args[0], nil
	}},
	{"pin", "pin PREFIX NODE...", func(args []string) (string, error) { return strings.Join(args, "+"), nil }},
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	if all, err := grammar.ReadFile(path); err != nil || len(all) != 0 {
		t.Errorf("Expected a file that does not exist to have no overrides, got %v: %v", all, err)
	}
	text := "# maintenance\n\n  Drain par1   until 2026-01-31T19:00:00+01:00 reason a new  disk # really\n" +
		"pin 192.0.2.0/24 par1 nyc1 until 2026-02-01T00:00:00Z reason until the link is back, reason known\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := grammar.ReadFile(path)
	if err != nil || len(all) != 2 {
		t.Fatalf("Expected two overrides, got %v: %v", all, err)
	}
	drain := Override[string]{
		Text: "Drain par1 until 2026-01-31T19:00:00+01:00 reason a new disk", File: path, Line: 3,
		Verb: "drain", Until: time.Date(2026, 1, 31, 18, 0, 0, 0, time.UTC), Reason: "a new disk", Action: "par1",
	}
	if all[0] != drain {
		t.Errorf("Expected %+v, got %+v", drain, all[0])
	}
	if got := all[1].Position(); got != path+":4" {
		t.Errorf("Expected the position of line 4, got %s", got)
	}
	if all[1].Reason != "until the link is back, reason known" || all[1].Action != "192.0.2.0/24+par1+nyc1" {
		t.Errorf("Expected a reason that may have any words, got %+v", all[1])
	}
}

func TestParseErrors(t *testing.T) {
	const end = " until 2026-01-31T18:00:00Z reason test"
	for line, want := range map[string]string{
		"move par1" + end:                                       "unknown verb 'move', expected one of: drain, pin",
		"drain par1 until 2026-01-31T18:00:00Z":                 "has no reason",
		"drain par1" + strings.TrimSuffix(end, " test"):         "has no reason",
		"drain par1 reason test":                                "has no end",
		"drain par1 until reason test":                          "expected 'until TIME reason TEXT...'",
		"drain par1 until 2026-01-31T18:00:00Z now reason test": "expected 'until TIME reason TEXT...'",
		"drain par1 until tomorrow reason test":                 "invalid time 'tomorrow'",
		"drain par1 nyc1" + end:                                 "expected 'drain NODE until TIME reason TEXT...'",
		"drain unknown" + end:                                   "unknown node 'unknown'",
		"drain par1" + end + strings.Repeat("x", MaxLength):     "shorten its reason",
	} {
		if _, err := grammar.Parse(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Expected %q for %q, got: %v", want, line, err)
		}
	}
}

func TestErrorNamesFileAndLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	if err := os.WriteFile(path, []byte("\nmove par1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := grammar.ReadFile(path); err == nil || !strings.HasPrefix(err.Error(), path+":2 - ") {
		t.Errorf("Expected file and line, got: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("drain par1 until 2026-01-31T18:00:00Z reason test")
	f.Add("pin 192.0.2.0/24 par1 until 2026-01-31T18:00:00+01:00 reason until reason")
	f.Add("drain par1 until 2026-01-31T18:00:00Z reason \x1b[2J \xff ü\u202e")
	f.Fuzz(func(t *testing.T, line string) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			return
		}
		o, err := grammar.Parse(fields)
		if err != nil {
			return
		}
		again, err := grammar.Parse(strings.Fields(o.Text))
		if err != nil || again != o || o.Reason == "" || o.Until.IsZero() || inputfile.Printable(o.Text) != o.Text || len(o.Text) > MaxLength {
			t.Fatalf("Expected the text of an override to be the same one, got %+v, %+v: %v", o, again, err)
		}
	})
}
