package peerview

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
)

const (
	// fetchInterval is the longest time between two fetches, as a NOTIFY may be
	// lost. It bounds one fetch as well.
	fetchInterval = 30 * time.Second
	// maxBytes bounds a transfer: 100,000 servers in both families, and as many
	// services, take less than half.
	maxBytes = 64 << 20
)

// fetcher keeps the view of one principal up to date, in one goroutine, as long
// as there is one to follow.
type fetcher struct {
	sharing *Sharing
	peerClient
	slot   int
	wanted atomic.Bool // the map has the node, and views are exchanged with all nodes

	view *View // that is followed; nil: none; written with the lock of sharing held

	failure *FetchFailure // of the last fetch; nil: it succeeded; written with the lock of sharing held

	dismissedAt time.Time // when the principal first said so; zero: this node is its deputy
	unrelated   reminder.Failure
}

func newFetcher(s *Sharing, node string, slot int) *fetcher {
	return &fetcher{
		sharing: s, peerClient: newPeerClient(s.ctx, node), slot: slot,
		unrelated: reminder.Failure{Delay: fetchInterval}, // until the services are loaded
	}
}

func (f *fetcher) run() {
	defer f.cancel()
	f.discard(f.follow())
}

// keyRemoved is why a fetcher ends that another goroutine has canceled.
const keyRemoved = "'view-key' was removed"

// follow fetches views until there are none to fetch, and returns why.
func (f *fetcher) follow() string {
	notifiedAt := time.Now()
	failures := 0
	for {
		err := f.fetch()
		if f.ctx.Err() != nil {
			return keyRemoved
		}
		dismissed := errors.As(err, new(dismissal))
		failures++
		if dismissed || err == nil {
			failures = 0
		}
		if !dismissed {
			f.log(err)
		}
		f.note(err)
		remaining, why := f.remaining(err)
		if remaining <= 0 {
			lasting := dismissed || errors.Is(err, registrar.ErrUnknownNode) || err != nil && time.Since(notifiedAt) > 2*fetchInterval
			if lasting && f.retire() {
				return why // the principal sends a NOTIFY when it has a view
			}
			f.discard(why) // the principal is isolated, or has no view yet
			remaining = fetchInterval
		}
		if f.view != nil {
			f.checkInCommon()
		}
		if failures > 0 {
			remaining = min(remaining, dnsclient.Backoff(failures))
		}
		select {
		case <-f.ctx.Done():
			return keyRemoved
		case <-f.woken:
			notifiedAt = time.Now()
		case <-time.After(min(remaining, fetchInterval)):
		}
	}
}

// FetchFailure tells why the view of a principal cannot be fetched.
type FetchFailure struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
	Error string    `json:"error"`
}

// note remembers how the last fetch ended. A dismissal is no failure.
func (f *fetcher) note(err error) {
	s := f.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	f.failure = nil
	if err != nil && f.failing.Failing() {
		f.failure = &FetchFailure{f.node, f.failing.Since(), remotetext.CleanError(err)}
	}
}

// FetchFailures returns why views cannot be fetched now, by node.
func (s *Sharing) FetchFailures() []FetchFailure {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []FetchFailure
	for _, f := range s.fetchers {
		if f.failure != nil {
			out = append(out, *f.failure)
		}
	}
	slices.SortFunc(out, func(a, b FetchFailure) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// log tells of failures, and that they are over.
func (f *fetcher) log(err error) {
	switch role := f.role(f.sharing.currentSettings().Node); {
	case f.failed(err):
		log.Warningf("Failed to fetch the view of node %q for %s since %s, retrying: %v", f.node, role, f.since(), err)
	case err == nil && f.failing.Recovered():
		log.Infof("Recovered: view of node %q at %s", f.node, role)
	}
}

// remaining returns how long the view is followed yet after a fetch that ended
// with err, and why no longer.
func (f *fetcher) remaining(err error) (remaining time.Duration, why string) {
	var dismissed dismissal
	switch {
	case err == nil:
		f.dismissedAt = time.Time{}
	case !errors.As(err, &dismissed):
	case f.view == nil:
		return 0, string(dismissed)
	case f.dismissedAt.IsZero():
		f.dismissedAt = time.Now()
		log.Infof("Node %q dismissed %s, which follows the views for another %s, because resolvers still hold referrals: %s",
			f.node, f.role(f.sharing.currentSettings().Node), referralTTL, dismissed)
	}
	if f.view == nil {
		return 0, ""
	}
	remaining, why = time.Until(f.view.Made.Add(Lifetime)), "the last view has expired, made at "+f.view.Made.UTC().Format(time.RFC3339)
	if until := time.Until(f.dismissedAt.Add(referralTTL)); !f.dismissedAt.IsZero() && until < remaining {
		remaining, why = until, "the node has dismissed its deputy"
	}
	return remaining, why
}

// dismissal is a principal's word that this node is not its deputy, and why. A
// node that does not answer has dismissed nobody.
type dismissal string

// Error implements the error interface.
func (d dismissal) Error() string { return string(d) }

// retire leaves the principal to another fetcher, which its next NOTIFY starts.
// It reports false if there was one that this fetcher has not heeded, and if the
// view is wanted without a NOTIFY.
func (f *fetcher) retire() bool {
	s := f.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.woken.Pending() || f.wanted.Load() {
		return false
	}
	if s.fetchers[f.node] == f {
		delete(s.fetchers, f.node)
		s.followMap() // there is room for another one
	}
	return true
}

// role tells what a node is to the one whose view it follows.
func (f *fetcher) role(node string) string {
	if f.wanted.Load() && (f.view == nil || !f.view.HasDeputy(node)) {
		return fmt.Sprintf("node %q", node)
	}
	return fmt.Sprintf("its deputy %q", node)
}

// accept makes v the view that is followed.
func (f *fetcher) accept(v *View) {
	s, first, inCommon := f.sharing, f.view == nil, 0
	if first {
		inCommon = v.InCommon(s.measured())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.view = v
	s.update()
	if first {
		log.Infof("Started following the view of node %q as %s: %d of %s in common",
			f.node, f.role(s.settings.Node), inCommon, plural.Of(len(v.Targets), "target"))
	}
}

// discard ends the following of the view, if there is one.
func (f *fetcher) discard(why string) {
	s := f.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.view == nil {
		return
	}
	role := f.role(s.settings.Node)
	f.view, f.dismissedAt = nil, time.Time{}
	f.unrelated.Recovered()
	s.update()
	if !s.closed {
		log.Infof("Stopped following the view of node %q as %s: %s", f.node, role, why)
	}
}

// checkInCommon logs a view that has no target in common with this node, which
// may last until the services are loaded, and when it has some again.
func (f *fetcher) checkInCommon() {
	all, inCommon := len(f.view.Targets), f.view.InCommon(f.sharing.measured())
	switch node := f.sharing.currentSettings().Node; {
	case all > 0 && inCommon == 0:
		if f.unrelated.Failed("") {
			log.Warningf("View of node %q has none of its %s in common with %s, which answers by its own measurements: give both the same services, with the same addresses of servers and names of probes",
				f.node, plural.Of(all, "target"), f.role(node))
		}
	case f.unrelated.Recovered():
		log.Infof("Recovered: view of node %q has %d of its %s in common with %s", f.node, inCommon, plural.Of(all, "target"), f.role(node))
	}
}

// fetch gets the view of the principal if there is another one, and counts how
// that ended.
func (f *fetcher) fetch() error {
	ctx, cancel := context.WithTimeout(f.ctx, fetchInterval)
	defer cancel()
	settings, of, result := f.sharing.currentSettings(), f.node, "unchanged"
	var got *View
	err := f.try(ctx, f.sharing.lookup, settings.Port, func(address string) error {
		startPulls(settings.Node, f.node) // DNS-B knows the node
		v := f.view
		serial, err := askSerial(ctx, zoneOf(f.node, settings.Cut), settings.Key, address)
		if err == nil && (v == nil || v.Serial != serial) {
			v, err = transfer(ctx, f.node, settings.Cut, settings.Key, address)
			got = v
		}
		if err == nil && !v.HasDeputy(settings.Node) && !f.wanted.Load() {
			return dismissal("the node has other deputies now")
		}
		return err
	})
	switch {
	case f.ctx.Err() != nil:
		return err
	case errors.Is(err, registrar.ErrUnknownNode):
		of, result = "", "unknown" // holders of the key can invent any number of nodes
	case errors.As(err, new(dismissal)):
		result = "refused"
		if got != nil && f.view != nil { // it is followed for a while yet
			f.accept(got)
		}
	case err != nil:
		result = "failed"
	case got != nil && time.Since(got.Made) < Lifetime:
		result = "new"
		f.accept(got)
	}
	viewPulls.WithLabelValues(settings.Node, of, result).Inc()
	return err
}

// askSerial asks a node for the serial of its view.
func askSerial(ctx context.Context, zone string, key dnsclient.Key, address string) (uint32, error) {
	return dnsclient.Endpoint(address).Serial(ctx, nil, zone, key, func(r *dns.Msg) error {
		switch signed := r.IsTsig() != nil; {
		case signed && r.Rcode == dns.RcodeRefused:
			return dismissal("the node has no deputies any more")
		case signed && r.Rcode == dns.RcodeServerFailure:
			return errors.New("the node has no view yet, as after a restart")
		}
		return checkReply(r, key)
	})
}

// transfer gets the view of a node by AXFR.
func transfer(ctx context.Context, node, cut string, key dnsclient.Key, address string) (*View, error) {
	r := newReader(node, cut, time.Now())
	if err := dnsclient.Endpoint(address).Transfer(ctx, nil, zoneOf(node, cut), key, maxBytes, r.add); err != nil {
		return nil, err
	}
	return r.end()
}
