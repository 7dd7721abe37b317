package corefile

import (
	"bytes"
	"strings"
)

// EachLine calls f with the number and the words of each line that has any. A '#'
// begins a comment. The words are valid until f returns. An error of f gets the
// position of the line and shows unprintable characters; after maxErrors of them
// the iteration ends.
func EachLine(path string, content []byte, f func(number int, words []string) error) error {
	var (
		number int
		words  []string
		failed Errors
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
			if failed = append(failed, printable("%s:%d - %w", path, number, err)); failed.full() {
				break
			}
		}
	}
	return failed.asError()
}
