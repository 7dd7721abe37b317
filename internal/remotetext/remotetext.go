// Package remotetext makes texts of other machines fit to be logged and shown.
package remotetext

import "fmt"

const (
	// Max is how long a clean text is at most, in bytes.
	Max = 128
	// MaxError is that of the text of an error, which names what failed and may
	// have several texts of others.
	MaxError = 400
)

// Clean returns a text of another machine as printable ASCII, with other bytes
// escaped, and cut after Max bytes. What has this form stays as it is.
func Clean(s string) string { return clean(s, Max) }

// CleanError is Clean for an error, with MaxError.
func CleanError(err error) string { return clean(err.Error(), MaxError) }

func clean(s string, limit int) string {
	const more = "..."
	b := make([]byte, 0, limit)
	end := 0 // of the text that has room before more
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "\\x%02x", c)
		}
		if len(b) > limit {
			return string(b[:end]) + more
		}
		if len(b) <= limit-len(more) {
			end = len(b)
		}
	}
	return string(b)
}
