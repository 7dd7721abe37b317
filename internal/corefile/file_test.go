package corefile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestEachLine(t *testing.T) {
	var got []string
	end := errors.New("end")
	err := EachLine("file", []byte("\n# all of it\na  b\tc # d\r\n"+strings.Repeat("x", 100_000)+" y\nlast"), func(number int, words []string) error {
		got = append(got, fmt.Sprintf("%d: %d words, %s", number, len(words), words[len(words)-1]))
		if number == 5 {
			return end
		}
		return nil
	})
	if want := "3: 3 words, c; 4: 2 words, y; 5: 1 words, last"; strings.Join(got, "; ") != want {
		t.Errorf("Expected %q, got %q", want, got)
	}
	if !errors.Is(err, end) || err.Error() != "file:5 - end" {
		t.Errorf("Expected the error with file and line, got %v", err)
	}
}

func TestErrorsShowUnprintableCharacters(t *testing.T) {
	cause := errors.New("unknown verb '\ufeffdrain\x00'")
	const shown = `unknown verb '\ufeffdrain\x00'`
	err := EachLine("file", []byte("\ufeffdrain"), func(int, []string) error { return cause })
	if err == nil || err.Error() != "file:1 - "+shown || !errors.Is(err, cause) {
		t.Errorf("Expected the characters in the error, got %q", err)
	}
	err = Position{"Corefile", 2}.Errorf("%w", cause)
	if err.Error() != "Corefile:2 - Error during parsing: "+shown || !errors.Is(err, cause) {
		t.Errorf("Expected the characters in the error, got %q", err)
	}
}
