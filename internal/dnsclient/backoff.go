package dnsclient

import (
	"math/rand/v2"
	"time"
)

// Retries back off between these, with full jitter, so that a server that comes
// back is not met by all nodes at once.
const (
	minBackoff = 2 * time.Second
	maxBackoff = time.Minute
)

// Backoff returns the pause after so many failures in a row, from 1 on.
func Backoff(failures int) time.Duration {
	limit := min(minBackoff<<min(failures-1, 10), maxBackoff)
	return minBackoff/2 + rand.N(limit) // #nosec G404 -- jitter
}
