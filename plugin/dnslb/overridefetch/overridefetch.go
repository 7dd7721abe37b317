// Package overridefetch keeps the overrides of servers that the DNS-Bs of a node have
// in their admin files for all nodes.
//
// They travel in the answer to one signed question over TCP or TLS, apart from the
// map: that may be large, and a node fetches it rarely. docs/overrides.md describes
// the question.
package overridefetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

// pluginName is that of the plugin whose overrides these are, for logs and metrics.
const pluginName = "dnslb"

var log = clog.NewWithPlugin(pluginName)

const (
	// interval is the longest time between two questions, as a NOTIFY may be lost.
	interval = 30 * time.Second
	// pause is the shortest one: the source of a NOTIFY can be forged.
	pause = time.Second
)

// Settings say whose overrides are fetched, and for which node.
type Settings struct {
	Node  string
	Cut   string // absolute, lower case
	DNSBs []dnsclient.Endpoint
	Key   dnsclient.Key
	CA    *x509.CertPool // of the DNS-Bs' certificates; nil: those of the system
}

// State tells what a node has of one DNS-B.
type State struct {
	DNSB      string    `json:"dnsb"`
	Overrides int       `json:"overrides"`           // that it has for nodes
	CheckedAt time.Time `json:"checked_at,omitzero"` // when it answered last; zero: never
	Error     string    `json:"error,omitempty"`     // of the last question; "": none
}

// Fetcher keeps the overrides up to date until it is closed. It outlives reloads. Its
// methods are safe for concurrent use.
type Fetcher struct {
	changed wakeup.Broadcast
	ctx     context.Context // ends its goroutines
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	settings Settings
	sources  []*source // in the order of the settings
}

// source is one DNS-B. It has a goroutine of its own, so that one that does not answer
// delays no other.
type source struct {
	fetcher  *Fetcher
	settings Settings
	dnsb     dnsclient.Endpoint
	woken    wakeup.Signal
	cancel   context.CancelFunc

	// Under the lock of the Fetcher:
	lines     []string
	overrides []serveroverride.Override // of the lines
	state     State
	failing   reminder.Failure
}

// New returns a Fetcher that does nothing before it is configured.
func New() *Fetcher {
	ctx, cancel := context.WithCancel(context.Background())
	return &Fetcher{ctx: ctx, cancel: cancel}
}

// Configure makes the settings apply. What a DNS-B said counts as long as it is one
// of them.
func (f *Fetcher) Configure(settings Settings) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reflect.DeepEqual(f.settings, settings) || f.ctx.Err() != nil {
		return
	}
	f.settings = settings
	previous := f.sources
	f.sources = nil
	for _, dnsb := range settings.DNSBs {
		ctx, cancel := context.WithCancel(f.ctx)
		s := &source{
			fetcher: f, settings: settings, dnsb: dnsb, woken: wakeup.New(), cancel: cancel,
			state: State{DNSB: string(dnsb)}, failing: reminder.Failure{Delay: interval},
		}
		if i := slices.IndexFunc(previous, func(old *source) bool { return old.dnsb == dnsb }); i >= 0 {
			s.lines, s.overrides, s.state, s.failing = previous[i].lines, previous[i].overrides, previous[i].state, previous[i].failing
		}
		f.sources = append(f.sources, s)
		for _, result := range results {
			pulls.WithLabelValues(settings.Node, string(dnsb), result) // from 0, so that the first one is an increase
		}
		f.running.Go(func() { s.run(ctx) })
	}
	for _, s := range previous {
		s.cancel()
	}
	f.changed.Set()
}

// Close ends the goroutines of the Fetcher.
func (f *Fetcher) Close() {
	f.cancel()
	f.running.Wait()
}

// Notify takes a NOTIFY (RFC 1996) from an address, and reports whether it is that
// of a DNS-B. NOTIFYs are not signed: one that is forged costs a question.
func (f *Fetcher) Notify(from netip.Addr) (known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sources {
		if s.dnsb.Addr() == from {
			known = true
			s.woken.Set()
		}
	}
	return known
}

// Subscribe returns a channel that is written to when there are other overrides, and
// the function that ends the subscription.
func (f *Fetcher) Subscribe() (changed <-chan struct{}, unsubscribe func()) {
	return f.changed.Subscribe()
}

// Overrides returns the overrides of all DNS-Bs, one after the other in the order of
// the settings, each in the order of its admin file.
func (f *Fetcher) Overrides() []serveroverride.Override {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []serveroverride.Override
	for _, s := range f.sources {
		all = append(all, s.overrides...)
	}
	return all
}

// States returns what the node has of each DNS-B.
func (f *Fetcher) States() []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := make([]State, len(f.sources))
	for i, s := range f.sources {
		states[i] = s.state
	}
	return states
}

func (s *source) run(ctx context.Context) {
	failures := 0
	for {
		lines, err := s.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := interval
		if failures++; err == nil {
			failures = 0
		} else {
			wait = min(wait, dnsclient.Backoff(failures))
		}
		s.record(ctx, lines, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return
		case <-s.woken:
		case <-time.After(wait - pause):
		}
	}
}

// ask asks the DNS-B for its overrides.
func (s *source) ask(ctx context.Context) ([]string, error) {
	owner := serveroverride.NameFor(s.settings.Node, s.settings.Cut)
	m := new(dns.Msg).SetQuestion(owner, dns.TypeTXT)
	m.RecursionDesired = false
	r, err := s.dnsb.Exchange(ctx, s.settings.CA, m, s.settings.Key)
	if err != nil {
		return nil, err
	}
	switch t := r.IsTsig(); {
	case t != nil && r.Rcode == dns.RcodeServerFailure:
		return nil, errors.New("the server has an error in its admin file and no earlier version of it, see its log")
	case t != nil && r.Rcode == dns.RcodeNotAuth && t.Error == dns.RcodeSuccess:
		return nil, fmt.Errorf("no 'accept' line of the server lets key '%s' register node %s for %s", s.settings.Key.Name, s.settings.Node, s.settings.Cut)
	}
	if err := dnsclient.CheckSigned(r, s.settings.Key, "compare 'key' with the secrets of 'tsig' in the server block of DNS-B"); err != nil {
		return nil, err
	}
	return serveroverride.ReadLines(r.Answer, owner)
}

// record notes how a question ended, and logs what is new. After an error the
// overrides stay, each until its end.
func (s *source) record(ctx context.Context, lines []string, err error) {
	f := s.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil { // another source has taken over
		return
	}
	result := "unchanged"
	defer func() { pulls.WithLabelValues(s.settings.Node, string(s.dnsb), result).Inc() }()
	if err != nil {
		result, s.state.Error = "failed", remotetext.CleanError(err)
		if s.failing.Failed("") {
			log.Warningf("Failed to fetch the overrides for node %q from DNS-B %s since %s, keeping the previous version (%s), retrying: %v",
				s.settings.Node, s.dnsb, s.failing.Since().UTC().Format(time.RFC3339), plural.Of(len(s.overrides), "override"), err)
		}
		return
	}
	s.state.CheckedAt, s.state.Error = time.Now(), ""
	if s.failing.Recovered() {
		log.Infof("Recovered: overrides for node %q from DNS-B %s", s.settings.Node, s.dnsb)
	}
	if slices.Equal(lines, s.lines) {
		return
	}
	result, s.lines, s.overrides = "new", lines, nil
	for _, line := range lines {
		o, err := serveroverride.Grammar.Parse(strings.Fields(line))
		if err != nil {
			log.Warningf("Ignoring an override from DNS-B %s, whose program may be newer: %v", s.dnsb, err)
			continue
		}
		o.Action.DNSB = string(s.dnsb)
		o.Text += fmt.Sprintf(" (from DNS-B %s)", s.dnsb)
		s.overrides = append(s.overrides, o)
	}
	s.state.Overrides = len(s.overrides)
	f.changed.Set()
}
