package peerview

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

// keyRemedy is what to do when another node does not accept the view key.
const keyRemedy = "all nodes need the same 'view-key', and 'secret NAME SECRET' of that key in 'tsig'"

// peerClient deals with one other node. It belongs to one goroutine.
type peerClient struct {
	node   string
	ctx    context.Context // ends that goroutine
	cancel context.CancelFunc
	woken  wakeup.Signal

	addresses []netip.Addr
	lookedUp  time.Time // addresses, at DNS-B
	failing   reminder.Failure
}

// newPeerClient returns one that logs no failure that is short: nodes that
// start together do not find each other at once.
func newPeerClient(parent context.Context, node string) peerClient {
	c := peerClient{node: node, woken: wakeup.New(), failing: reminder.Failure{Delay: fetchInterval}}
	c.ctx, c.cancel = context.WithCancel(parent)
	return c
}

// try calls do with the addresses of the node until one succeeds. It asks DNS-B
// for them after a failure, and when they are older than a resolver would have
// them.
func (c *peerClient) try(ctx context.Context, lookup Lookup, port string, do func(address string) error) error {
	if c.addresses == nil || c.failing.Failing() || time.Since(c.lookedUp) > referralTTL {
		if err := c.locate(ctx, lookup); err != nil && (c.addresses == nil || errors.Is(err, registrar.ErrUnknownNode)) {
			return err
		}
	}
	var failed error
	for i, addr := range c.addresses {
		err := do(net.JoinHostPort(addr.String(), port))
		if err == nil {
			c.addresses = slices.Concat(c.addresses[i:], c.addresses[:i]) // first the next time
			return nil
		}
		failed = dnsclient.Join(failed, fmt.Errorf("%s: %w", addr, err))
	}
	return failed
}

// locate asks DNS-B for the addresses of the node.
func (c *peerClient) locate(ctx context.Context, lookup Lookup) error {
	addresses, err := lookup(ctx, c.node)
	if err == nil {
		c.addresses, c.lookedUp = addresses, time.Now()
	}
	return err
}

// failed notes a failure and reports whether it is to be logged.
func (c *peerClient) failed(err error) bool {
	return err != nil && !errors.Is(err, registrar.ErrNotRegistered) && c.failing.Failed("")
}

// since tells when the node began to fail.
func (c *peerClient) since() string { return c.failing.Since().UTC().Format(time.RFC3339) }

// sendNotify tells another node that there is another version of a zone.
func sendNotify(ctx context.Context, zone string, key dnsclient.Key, address string) error {
	m := new(dns.Msg).SetNotify(zone)
	m.RecursionDesired = false
	r, err := dnsclient.Endpoint(address).Exchange(ctx, nil, m, key)
	if err != nil {
		return err
	}
	return checkReply(r, key)
}

// checkReply explains a reply of another node that is not a signed NOERROR.
func checkReply(r *dns.Msg, key dnsclient.Key) error {
	if t := r.IsTsig(); r.Rcode == dns.RcodeSuccess || t != nil && t.Error != dns.RcodeSuccess {
		return dnsclient.CheckSigned(r, key, keyRemedy)
	}
	return fmt.Errorf("the node answered %s: compare the zones, 'deputy' and 'view-key' of both nodes", dnsmsg.RcodeText(r.Rcode))
}
