package dnslb

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
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

		c.note(registrar.ErrNotRegistered, "cannot tell")
		time.Sleep(time.Hour)
		c.note(registrar.ErrNotRegistered, "cannot tell")
		out.expect(t)

		for range int(reminder.Interval / pullEvery) {
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

// TestEach checks that all addresses of a node are tried, the one that did last
// time first, and that what fails is told in one line.
func TestEach(t *testing.T) {
	find := func(context.Context, string) (peer, error) {
		return peer{addresses: []netip.Addr{addr("192.0.2.53"), addr("2001:db8::53")}}, nil
	}
	c := newContact(t.Context(), "lon1")
	defer c.cancel()
	var tried []string
	works := "[2001:db8::53]:53"
	do := func(address string) error {
		if tried = append(tried, address); address == works {
			return nil
		}
		return dismissal("no")
	}
	for range 2 {
		if err := c.each(t.Context(), find, "53", do); err != nil {
			t.Errorf("Expected an address that does, got %v", err)
		}
	}
	if got := strings.Join(tried, " "); got != "192.0.2.53:53 [2001:db8::53]:53 [2001:db8::53]:53" {
		t.Errorf("Unexpected attempts %s", got)
	}
	works = ""
	err := c.each(t.Context(), find, "53", do)
	if want := "2001:db8::53: no; 192.0.2.53: no"; err == nil || err.Error() != want || !errors.As(err, new(dismissal)) {
		t.Errorf("Expected %q, got %v", want, err)
	}
}
