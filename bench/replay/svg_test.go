package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestDrawingShowsChoices(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "set.svg")
	file := write(t, atlas(), false)
	if err := run([]string{"-atlas", file, "-svg", svg}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	count := make(map[string]int)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("Expected well-formed XML, got %v", err)
		}
		if s, ok := token.(xml.StartElement); ok {
			count[s.Name.Local]++
		}
	}
	// Each choice has a title: one at the start, and one from slot 2503 on.
	if count["svg"] != 1 || count["title"] != 2 || count["path"] < 12 {
		t.Errorf("Expected a drawing with two choices, got %v", count)
	}
	err = run([]string{"-atlas", file, "-svg", svg, "-plot", "200"}, io.Discard, io.Discard)
	if !errors.Is(err, errNoSet) {
		t.Errorf("Expected %v, got %v", errNoSet, err)
	}
}
