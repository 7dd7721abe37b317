package dnslb

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
)

// notifier tells one deputy of each view, in one goroutine: one that is cut off
// must not keep the news from the others. What is not taken is told again.
type notifier struct {
	sharing *sharing
	contact
	state atomic.Pointer[DeputyState]
}

func newNotifier(s *sharing, node string) *notifier {
	n := &notifier{sharing: s, contact: newContact(s.ctx, node)}
	n.state.Store(&DeputyState{Node: node})
	return n
}

func (n *notifier) run() {
	var again <-chan time.Time
	for failures := 0; ; {
		select {
		case <-n.ctx.Done():
			return
		case <-n.woken:
		case <-again:
		}
		if n.tell() {
			failures, again = 0, nil
			continue
		}
		failures++
		again = time.After(dnsclient.Backoff(failures))
	}
}

// tell sends a NOTIFY (RFC 1996) and reports whether it was taken.
func (n *notifier) tell() bool {
	ctx, cancel := context.WithTimeout(n.ctx, pullEvery)
	defer cancel()
	conf := n.sharing.config()
	err := n.each(ctx, n.sharing.find, conf.port, func(address string) error {
		m := new(dns.Msg).SetNotify(viewZone(conf.Node, conf.Zones[0]))
		_, err := askNode(ctx, m, conf.viewKey, address)
		return err
	})
	if n.ctx.Err() != nil {
		return false
	}
	result, state := "ok", &DeputyState{Node: n.node, Told: n.state.Load().Told}
	if err != nil {
		result, state.Error = "failed", err.Error()
	} else {
		state.Told = time.Now()
	}
	n.state.Store(state)
	viewNotifies.WithLabelValues(conf.Node, n.node, result).Inc()
	n.note(err, "Node "+conf.Node+" cannot tell its deputy "+n.node+" of its measurements, which then answers by its own")
	return err == nil
}
