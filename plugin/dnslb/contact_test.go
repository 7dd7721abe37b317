package dnslb

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestNote checks that what fails for a moment is not logged, and what lasts is
// neither forgotten nor repeated all the time.
func TestNote(t *testing.T) {
	out := logged(t)
	synctest.Test(t, func(t *testing.T) {
		c := &contact{node: "lon1"}
		down := errors.New("connection refused")
		c.note(down, "cannot tell")
		time.Sleep(pullEvery / 2)
		c.note(down, "cannot tell")
		c.note(nil, "cannot tell")
		out.expect(t)

		c.note(errTooSoon, "cannot tell")
		time.Sleep(time.Hour)
		c.note(errTooSoon, "cannot tell")
		out.expect(t)

		for range int(remindAfter / pullEvery) {
			c.note(down, "cannot tell")
			time.Sleep(pullEvery)
		}
		out.expect(t, "cannot tell, since ")
		c.note(down, "cannot tell")
		time.Sleep(pullEvery)
		c.note(down, "cannot tell")
		out.expect(t, "cannot tell, since ")

		c.note(nil, "cannot tell")
		c.note(nil, "cannot tell")
		out.expect(t, "No longer: cannot tell")
	})
}
