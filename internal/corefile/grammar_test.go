package corefile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/coredns/caddy/caddyfile"
)

func TestReader(t *testing.T) {
	tests := []struct{ name, lines, want string }{
		{"all", "a 1 2\nb\na 3\nc", ""},
		{"unknown property", "a 1\nd", "Testfile:2 - Error during parsing: unknown property 'd', expected one of: a, b, c"},
		{"wrong shape with an example", "a", "Testfile:1 - Error during parsing: expected 'a NUMBER...', for example 'a 1 2'"},
		{"wrong shape", "b 1", "Testfile:1 - Error during parsing: expected 'b'"},
		{"value", "b\na x", "Testfile:2 - Error during parsing: invalid number 'x' for 'a': expected 1 to 9"},
		{"twice", "b\n\nb", "Testfile:3 - Error during parsing: 'b' is given twice, keep one line"},
		{"missing property that may be misspelled", "c\nd", "Testfile:2 - Error during parsing: unknown property 'd', expected one of: a, b, c"},
		{"missing property", "\nc", "Testfile:2 - Error during parsing: 'c' needs 'a': add 'a NUMBER...'"},
	}
	for _, tc := range tests {
		for form, text := range map[string]string{"file": tc.lines, "block": "x {" + tc.lines + "\n}"} {
			t.Run(tc.name+"/"+form, func(t *testing.T) {
				sum := 0
				r := NewReader([]Property{
					{Name: "a", Usage: "a NUMBER...", Example: "a 1 2", Many: true, Parse: func(l Line) error {
						if len(l.Args) == 0 {
							return ErrUsage
						}
						for _, arg := range l.Args {
							n, err := Number(l.Property, arg, 9)
							if err != nil {
								return err
							}
							sum += n
						}
						return nil
					}},
					{Name: "b", Usage: "b", Parse: NoArguments(func() { sum += 10 })},
					{Name: "c", Usage: "c", Needs: []string{"a"}, Parse: NoArguments(func() {})},
				})
				var err error
				if form == "block" {
					d := caddyfile.NewDispenser("Testfile", strings.NewReader(strings.Replace(text, "{", "{\n", 1)))
					d.Next()
					err = r.ReadBlock(&d)
				} else {
					err = r.ReadFile("Testfile", []byte(text))
				}
				err = Join(err, r.CheckNeeds())
				want := tc.want
				if form == "block" { // the lines begin on the second one
					want = strings.NewReplacer(":1 ", ":2 ", ":2 ", ":3 ", ":3 ", ":4 ").Replace(want)
				}
				if want == "" && (err != nil || sum != 16) || want != "" && (err == nil || err.Error() != want) {
					t.Errorf("Expected %q, got %v with sum %d", want, err, sum)
				}
				if _, ok := r.Given("b"); ok != strings.Contains(tc.lines, "b") {
					t.Errorf("Expected 'b' to be given: %v, got %v", !ok, ok)
				}
			})
		}
	}
}

// FuzzReadFile checks that a file has the same lines whether its words are tokens of a
// Dispenser or what is between spaces.
func FuzzReadFile(f *testing.F) {
	for _, content := range []string{
		"a 1\n\n a\t2 3 \n", "a 1", "# none\na 1#comment\na # 2\n#\na", "a 1\r\na 2\r\n", "a 1\ra 2\r\n", "a\u00a01\u20282\u00851\n",
		"a \\ \\n $x {$HOME} %x% }\n", "a { 1\n}\n", "a \"1\n2\" 3\n", "a \xff\n", "a é\n", "b\na x\nb\n", "", "\n", "a \x00 \v1\f2", "\ufeffa 1\n", "a 1\n\ufeffa\n",
	} {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content string) {
		read := func(read func(*Reader) error) string {
			var got []string
			err := read(NewReader([]Property{{Name: "a", Many: true, Parse: func(l Line) error { got = append(got, fmt.Sprintf("%s %q", l.At, l.Args)); return nil }}}))
			return fmt.Sprintf("%v %v", err, got)
		}
		got := read(func(r *Reader) error { return r.ReadFile("Testfile", []byte(content)) })
		want := read(func(r *Reader) error {
			d := caddyfile.NewDispenser("Testfile", strings.NewReader(content))
			return r.readAll(&d, d.Next).asError()
		})
		if got != want {
			t.Errorf("Expected as by a Dispenser %s, got %s", want, got)
		}
	})
}

// TestReaderOfLargeFile reads a large file, and one with a word of several lines.
func TestReaderOfLargeFile(t *testing.T) {
	const many = 20_000
	for _, tc := range []struct {
		name, first string
		lines       int // of first
	}{{"plain", "a first # comment\n", 1}, {"word of two lines", "a \"of two\nlines\"\n", 2}} {
		var text strings.Builder
		text.WriteString(tc.first)
		for i := range many {
			fmt.Fprintf(&text, "a %d # with a comment\r\n", i)
		}
		text.WriteString("b\nd\n")
		var got []string
		r := NewReader([]Property{{Name: "a", Many: true, Parse: func(l Line) error {
			got = append(got, fmt.Sprint(l.At.Line, l.Args))
			return nil
		}}, {Name: "b", Parse: NoArguments(func() {})}})
		err := r.ReadFile("Testfile", []byte(text.String()))
		want := fmt.Sprintf("Testfile:%d - Error during parsing: unknown property 'd', expected one of: a, b", tc.lines+many+2)
		if err == nil || err.Error() != want {
			t.Errorf("%s: Expected %s, got: %v", tc.name, want, err)
		}
		if len(got) != many+1 {
			t.Fatalf("%s: Expected %d lines, got %d", tc.name, many+1, len(got))
		}
		for i, line := range got[1:] {
			if want := fmt.Sprint(i+tc.lines+1, []string{strconv.Itoa(i)}); line != want {
				t.Fatalf("%s: Expected %s, got %s", tc.name, want, line)
			}
		}
	}
}

func TestPositionErrorWraps(t *testing.T) {
	cause := errors.New("cause")
	if err := (Position{"Corefile", 7}).Errorf("reason: %w", cause); !errors.Is(err, cause) || err.Error() != "Corefile:7 - Error during parsing: reason: cause" {
		t.Errorf("Expected the error with position and cause, got %v", err)
	}
}
