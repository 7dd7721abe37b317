package dnslb

import (
	"bytes"
	"strings"
	"testing"
)

func TestCompressed(t *testing.T) {
	for _, text := range []string{"", "service www.example.org a b\n", strings.Repeat("service www.example.org a b\n", 10_000)} {
		c, err := compress([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.text(); !bytes.Equal(got, []byte(text)) || err != nil {
			t.Errorf("Expected the text of %d bytes, got %d bytes, %v", len(text), len(got), err)
		}
		if len(text) > 100_000 && len(c) > len(text)/10 {
			t.Errorf("Expected less than a tenth of %d bytes, got %d", len(text), len(c))
		}
	}
	c, err := compress([]byte("service www.example.org a b\n"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := c[:len(c)/2].text(); err == nil {
		t.Errorf("Expected an error of half a text, got %q", text)
	}
}
