package peerview

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

// TestLastingFailureIsLogged checks that a failure of a moment is not logged,
// and that a lasting one is neither forgotten nor repeated all the time.
func TestLastingFailureIsLogged(t *testing.T) {
	out := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(unreachable, noTargets)
		defer s.Close()
		s.Configure(Settings{Node: "lon1"})
		f := newFetcher(s, "par1", 1)
		down := errors.New("connection refused")
		f.log(down)
		time.Sleep(fetchInterval / 2)
		f.log(down)
		f.log(nil)
		out.Expect(t)

		f.log(registrar.ErrNotRegistered)
		time.Sleep(time.Hour)
		f.log(registrar.ErrNotRegistered)
		out.Expect(t)

		for range int(reminder.Interval / fetchInterval) {
			f.log(down)
			time.Sleep(fetchInterval)
		}
		const text = `Failed to fetch the view of node "par1" for its deputy "lon1" since `
		out.Expect(t, text)
		f.log(down)
		time.Sleep(fetchInterval)
		f.log(down)
		out.Expect(t, text)

		f.log(nil)
		f.log(nil)
		out.Expect(t, `Recovered: view of node "par1" at its deputy "lon1"`)
	})
}

// TestTryAllAddresses checks that the address that worked last is tried first,
// and that the failures of all are one line.
func TestTryAllAddresses(t *testing.T) {
	lookup := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{addr("192.0.2.53"), addr("2001:db8::53")}, nil
	}
	c := newPeerClient(t.Context(), "lon1")
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
		if err := c.try(t.Context(), lookup, "53", do); err != nil {
			t.Errorf("Expected an address that works, got %v", err)
		}
	}
	if got := strings.Join(tried, " "); got != "192.0.2.53:53 [2001:db8::53]:53 [2001:db8::53]:53" {
		t.Errorf("Unexpected attempts %s", got)
	}
	works = ""
	err := c.try(t.Context(), lookup, "53", do)
	if want := "2001:db8::53: no; 192.0.2.53: no"; err == nil || err.Error() != want || !errors.As(err, new(dismissal)) {
		t.Errorf("Expected %q, got %v", want, err)
	}
}
