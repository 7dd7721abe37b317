package latencyprobe

import "fmt"

// maxReason bounds the text of a failure, in bytes.
const maxReason = 128

// reasonText returns a text that may come from a peer in the form in which it is
// logged, shown and saved: printable ASCII, other bytes escaped, cut after
// maxReason bytes. What has this form stays as it is.
func reasonText(s string) string {
	const more = "..."
	b := make([]byte, 0, maxReason)
	end := 0 // of the text that has room before more
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "\\x%02x", c)
		}
		if len(b) > maxReason {
			return string(b[:end]) + more
		}
		if len(b) <= maxReason-len(more) {
			end = len(b)
		}
	}
	return string(b)
}
