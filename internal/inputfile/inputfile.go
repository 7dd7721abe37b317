// Package inputfile reads files that an operator or another program writes.
package inputfile

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// byteOrderMark is what some editors write before a text in UTF-8.
var byteOrderMark = []byte("\ufeff")

// Read returns the content of a file.
func Read(path string) ([]byte, error) {
	return os.ReadFile(path) // #nosec G304 -- the operator names it
}

// ReadText returns the content of a text file without its byte order mark.
func ReadText(path string) ([]byte, error) {
	content, err := Read(path)
	return bytes.TrimPrefix(content, byteOrderMark), err
}

// Printable returns a text with its unprintable characters in the form of Go's
// escape sequences, so that an error shows them.
func Printable(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if char := text[:size]; strconv.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			b.WriteString(char)
		} else {
			quoted := strconv.Quote(char)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[size:]
	}
	return b.String()
}
