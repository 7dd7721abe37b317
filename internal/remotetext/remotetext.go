// Package remotetext makes texts of other machines fit to be logged and shown.
package remotetext

import "fmt"

// Max is how long a clean text is at most, in bytes.
const Max = 128

// Clean returns a text of another machine as printable ASCII, with other bytes
// escaped, and cut after Max bytes. What has this form stays as it is.
func Clean(s string) string {
	const more = "..."
	b := make([]byte, 0, Max)
	end := 0 // of the text that has room before more
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "\\x%02x", c)
		}
		if len(b) > Max {
			return string(b[:end]) + more
		}
		if len(b) <= Max-len(more) {
			end = len(b)
		}
	}
	return string(b)
}
