package peerview

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
)

// notifier tells one deputy of each view, in one goroutine, again and again
// until the deputy has accepted.
type notifier struct {
	sharing *Sharing
	peerClient
	state atomic.Pointer[DeputyState]
}

// DeputyState tells how a deputy takes the NOTIFYs of this node.
type DeputyState struct {
	Node  string    `json:"node"`
	Told  time.Time `json:"told,omitzero"`   // when it accepted a NOTIFY last
	Error string    `json:"error,omitempty"` // of the last NOTIFY; "": accepted
}

// Deputies returns the states of the deputies of this node, best first.
func (s *Sharing) Deputies() []DeputyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []DeputyState{}
	for _, node := range s.settings.Deputies {
		if n := s.notifiers[node]; n != nil {
			out = append(out, *n.state.Load())
		}
	}
	return out
}

func newNotifier(s *Sharing, node string) *notifier {
	n := &notifier{sharing: s, peerClient: newPeerClient(s.ctx, node)}
	n.state.Store(&DeputyState{Node: node})
	for _, result := range []string{"ok", "failed"} {
		viewNotifies.WithLabelValues(s.settings.Node, node, result) // from 0, so that the first one is an increase
	}
	return n
}

func (n *notifier) run() {
	var retry <-chan time.Time
	for failures := 0; ; {
		select {
		case <-n.ctx.Done():
			return
		case <-n.woken:
		case <-retry:
		}
		if n.notify() {
			failures, retry = 0, nil
			continue
		}
		failures++
		retry = time.After(dnsclient.Backoff(failures))
	}
}

// notify sends a NOTIFY (RFC 1996) and reports whether it was accepted.
func (n *notifier) notify() bool {
	ctx, cancel := context.WithTimeout(n.ctx, fetchInterval)
	defer cancel()
	settings := n.sharing.currentSettings()
	err := n.try(ctx, n.sharing.lookup, settings.Port, func(address string) error {
		return sendNotify(ctx, zoneOf(settings.Node, settings.Cut), settings.Key, address)
	})
	if n.ctx.Err() != nil {
		return false
	}
	result, state := "ok", &DeputyState{Node: n.node, Told: n.state.Load().Told}
	if err != nil {
		result, state.Error = "failed", remotetext.CleanError(err)
	} else {
		state.Told = time.Now()
	}
	n.state.Store(state)
	viewNotifies.WithLabelValues(settings.Node, n.node, result).Inc()
	switch {
	case n.failed(err):
		log.Warningf("Failed to notify deputy %q of the view of node %q since %s, the deputy answers by its own measurements, retrying: %v",
			n.node, settings.Node, n.since(), err)
	case err == nil && n.failing.Recovered():
		log.Infof("Recovered: NOTIFY of node %q to deputy %q", settings.Node, n.node)
	}
	return err == nil
}
