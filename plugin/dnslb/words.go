package dnslb

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// eachLine reads the words of a file line by line, without comments, which begin
// with '#'. Lines without words are left out. Errors name file and line.
func eachLine(name string, r io.Reader, read func(words []string) error) error {
	s := bufio.NewScanner(r)
	line := 1
	for ; s.Scan(); line++ {
		text, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := read(words); err != nil {
			return fmt.Errorf("%s:%d - %w", name, line, err)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s:%d - %w", name, line, err)
	}
	return nil
}
