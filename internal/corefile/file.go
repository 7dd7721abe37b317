package corefile

import (
	"bytes"
	"slices"
	"strings"
)

// LineError is what is wrong with a line of a file.
type LineError struct {
	Number int // of the line, from 1
	Err    error
}

// AtLines returns the errors of lines of a file as one, in their order and the first
// MaxErrors of them. Each has the position of its line and shows unprintable
// characters.
func AtLines(path string, errs []LineError) error {
	slices.SortStableFunc(errs, func(a, b LineError) int { return a.Number - b.Number })
	errs = errs[:min(len(errs), MaxErrors)]
	failed := make(Errors, 0, len(errs))
	for _, e := range errs {
		failed = append(failed, printable("%s:%d - %w", path, e.Number, e.Err))
	}
	return failed.asError()
}

// EachLine calls f with the number and the words of each line that has any. A '#'
// begins a comment. The words are valid until f returns. Errors of f are told as by
// AtLines; after MaxErrors of them the iteration ends.
func EachLine(path string, content []byte, f func(number int, words []string) error) error {
	var (
		number int
		words  []string
		failed []LineError
	)
	for line := range bytes.Lines(content) {
		number++
		if i := bytes.IndexByte(line, '#'); i >= 0 {
			line = line[:i]
		}
		words = words[:0]
		for word := range strings.FieldsSeq(string(line)) {
			words = append(words, word)
		}
		if len(words) == 0 {
			continue
		}
		if err := f(number, words); err != nil {
			if failed = append(failed, LineError{number, err}); len(failed) == MaxErrors {
				break
			}
		}
	}
	return AtLines(path, failed)
}
