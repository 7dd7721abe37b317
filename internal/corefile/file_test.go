package corefile

import (
	"errors"
	"fmt"
	"slices"
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

// TestAllErrors checks that the errors of all lines are told, up to a bound, also when
// they are wrapped.
func TestAllErrors(t *testing.T) {
	lines := func(n int) error {
		return EachLine("file", []byte(strings.Repeat("bad\ngood\n", n)), func(_ int, words []string) error {
			if words[0] == "bad" {
				return errors.New("oops")
			}
			return nil
		})
	}
	for n, want := range map[int]int{0: 0, 1: 1, 3: 3, MaxErrors: MaxErrors, 50: MaxErrors} {
		err := lines(n)
		if n == 0 {
			if err != nil {
				t.Errorf("Expected no error, got: %v", err)
			}
			continue
		}
		err = Position{"Corefile", 7}.Errorf("services: %w", err)
		got := Messages(fmt.Errorf("plugin: %w", err))
		if len(got) != want {
			t.Errorf("Expected %d messages of %d errors, got %q", want, n, got)
		}
		for i, message := range got {
			if expected := fmt.Sprintf("plugin: Corefile:7 - Error during parsing: services: file:%d - oops", 2*i+1); message != expected {
				t.Errorf("Expected %q, got %q", expected, message)
			}
		}
	}
	if err := lines(2); err.Error() != "file:1 - oops; file:3 - oops" {
		t.Errorf("Expected one line for the log, got %q", err)
	}
	// Of errors that are joined, and those in one of a line, each is a message of its own.
	joined := fmt.Errorf("plugin: %w", Join(nil, lines(2), errors.New("other"), Position{"Corefile", 9}.Errorf("near: %w", lines(2))))
	if got, want := Messages(joined), []string{
		"plugin: file:1 - oops", "plugin: file:3 - oops", "plugin: other",
		"plugin: Corefile:9 - Error during parsing: near: file:1 - oops", "plugin: Corefile:9 - Error during parsing: near: file:3 - oops",
	}; !slices.Equal(got, want) {
		t.Errorf("Expected %q, got %q", want, got)
	}
	if err := Join(nil, nil); err != nil {
		t.Errorf("Expected no error of none, got: %v", err)
	}
	if got := Messages(errors.New("oops")); !slices.Equal(got, []string{"oops"}) {
		t.Errorf("Expected the error itself, got %q", got)
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
