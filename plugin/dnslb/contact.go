package dnslb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

// peer is what DNS-B knows of a node.
type peer struct {
	addresses []netip.Addr
	prefixes  []registration.Prefix // of resolvers
}

// contact is another node, as one goroutine deals with it.
type contact struct {
	node   string
	ctx    context.Context // the lifetime of that goroutine
	cancel context.CancelFunc
	woken  chan struct{} // capacity 1: there is something to do

	peer
	near    string    // digest of its prefixes
	asked   time.Time // DNS-B
	failing trouble
}

func newContact(parent context.Context, node string) contact {
	c := contact{node: node, woken: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(parent)
	return c
}

// each asks DNS-B where the node is, if that is not known well enough or for longer
// than a resolver would use it, and tries its addresses until one does.
func (c *contact) each(ctx context.Context, find func(context.Context, string) (peer, error), port string, do func(address string) error) error {
	if c.addresses == nil || !c.failing.since.IsZero() || time.Since(c.asked) > referralTime {
		if err := c.locate(ctx, find); err != nil && (c.addresses == nil || errors.Is(err, registrar.ErrUnknownNode)) {
			return err
		}
	}
	var failed error
	for i, addr := range c.addresses {
		err := do(net.JoinHostPort(addr.String(), port))
		if err == nil {
			c.addresses = slices.Concat(c.addresses[i:], c.addresses[:i]) // the next time it is first
			return nil
		}
		if err = fmt.Errorf("%s: %w", addr, err); failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; %w", failed, err) // in one line
		}
	}
	return failed
}

// locate asks DNS-B where the node is, and which resolvers belong to it.
func (c *contact) locate(ctx context.Context, find func(context.Context, string) (peer, error)) error {
	p, err := find(ctx, c.node)
	if err == nil {
		c.peer, c.near, c.asked = p, digest(p.prefixes), time.Now()
	}
	return err
}

// note logs that something cannot be done, and that it can be done again.
func (c *contact) note(err error, text string) {
	switch {
	case errors.Is(err, registrar.ErrNotRegistered):
	case !c.failing.tell(err != nil):
	case err == nil:
		log.Infof("No longer: %s", text)
	default:
		log.Warningf("%s, since %s, still trying: %v", text, c.failing.since.UTC().Format(time.RFC3339), err)
	}
}

// trouble is what may last.
type trouble struct {
	since time.Time // zero: all is well
	told  time.Time // zero: nobody knows
}

// tell reports whether to tell that it is there: when it has lasted for half a
// minute, since nodes that start together do not find each other at once, and
// every ten minutes from then on; or that it is over, if its presence was told.
func (t *trouble) tell(there bool) bool {
	if !there {
		told := !t.told.IsZero()
		*t = trouble{}
		return told
	}
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	if now.Sub(t.since) < pullEvery || now.Sub(t.told) < reminder.Interval {
		return false
	}
	t.told = now
	return true
}
