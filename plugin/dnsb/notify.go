package dnsb

import (
	"context"
	"time"
)

// notifyPause is the least time between two rounds of NOTIFY: secondaries are to
// follow within seconds, and not to be asked to for each of a thousand nodes that
// renew their leases.
const notifyPause = 2 * time.Second

// notifier is what sends NOTIFY (RFC 1996): the *transfer* plugin.
type notifier interface {
	Notify(zone string) error
}

// notify tells secondaries whenever the serial of the zone has grown, until the
// context ends. A round for a secondary that does not answer takes seconds, and
// the last one is not waited for.
func notify(ctx context.Context, to notifier, zone string, grown <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-grown:
		}
		told := make(chan error, 1)
		go func() { told <- to.Notify(zone) }()
		select {
		case <-ctx.Done():
			return
		case err := <-told:
			if err != nil {
				log.Warningf("Secondaries were not notified: %s", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(notifyPause):
		}
	}
}
