package dnsb

import (
	"context"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

// notifyPause is the least time between two rounds of NOTIFY. Secondaries follow
// within seconds, but not each of a thousand nodes that renew their leases.
const notifyPause = 2 * time.Second

// notifier sends NOTIFY (RFC 1996). The *transfer* plugin is one.
type notifier interface {
	Notify(zone string) error
}

// notify notifies the secondaries of the zone whenever it is due, until the
// context ends. A round for a secondary that does not answer takes seconds, and
// the end does not wait for it. It tells ended what came of each round.
func notify(ctx context.Context, to notifier, zone string, due wakeup.Signal, ended func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		}
		notified := make(chan error, 1)
		go func() { notified <- to.Notify(zone) }()
		select {
		case <-ctx.Done():
			return
		case err := <-notified:
			ended(err)
			if err != nil {
				log.Warningf("Failed to notify secondaries of %s: %v", zone, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(notifyPause):
		}
	}
}
