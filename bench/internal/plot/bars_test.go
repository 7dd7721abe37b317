package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestBarsAreXML(t *testing.T) {
	svg := Bars{Title: "a < b", Axis: "µs & ms", Bars: []Bar{{"one <1>", 1, 2, 3}, {"two", 0, 0, 0}}}.SVG()
	texts := 0
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("Expected XML, got error: %v in %s", err, svg)
		}
		if text, ok := token.(xml.CharData); ok && (string(text) == "one <1>" || string(text) == "a < b" || string(text) == "µs & ms") {
			texts++
		}
	}
	if texts != 3 {
		t.Errorf("Expected the title, the axis and the label, got %d of them in %s", texts, svg)
	}
}
