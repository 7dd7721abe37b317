// Package surveyor measures resolvers and other nodes for the survey of DNS-B: it
// asks for work, measures (measure.go), and reports. docs/survey.md describes both
// messages.
package surveyor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// pluginName is that of the plugin that this is part of, for logs and metrics.
const pluginName = "dnslb"

var log = clog.NewWithPlugin(pluginName)

const (
	// DefaultBudget is how many packets the node sends a second.
	DefaultBudget = 5
	// pause is the shortest time between two questions for work.
	pause = time.Second
)

// Settings say for which DNS-Bs the node measures, and how.
type Settings struct {
	Node    string
	DNSBs   []dnsclient.Endpoint // none: the node takes no part
	Key     dnsclient.Key
	CA      *x509.CertPool // of the DNS-Bs' certificates; nil: those of the system
	Options surveymsg.Options

	Source4, Source6 netip.Addr // of probes; invalid: the kernel chooses
}

// State is how the node takes part in the survey of a DNS-B.
type State struct {
	DNSB     string    `json:"dnsb"`
	Asked    time.Time `json:"asked,omitzero"`    // for work, last, with an answer
	Reported time.Time `json:"reported,omitzero"` // last
	Measured uint64    `json:"measured"`          // results with a latency, since the start
	Routers  uint64    `json:"routers"`           // results with the latency of a router on the way
	Silent   uint64    `json:"silent"`            // results without an answer
	Declined uint64    `json:"declined"`          // results of addresses that this node cannot or may not measure
	Error    string    `json:"error,omitempty"`   // of the last question or report; "": none
}

// Surveyor measures until it is closed. It outlives reloads. Its methods are safe for
// concurrent use. Use New.
type Surveyor struct {
	zone     func() string // of DNS-B; "": not known yet
	probe    probeFunc
	openPath func(ctx context.Context, query prober.DNS, addr, source netip.Addr) (path, error)
	limiter  *rate.Limiter // of packets

	mu       sync.Mutex
	settings Settings
	cancel   context.CancelFunc // ends the goroutines, one for each DNS-B
	running  sync.WaitGroup
	states   map[dnsclient.Endpoint]*State
}

// New returns a Surveyor that does nothing before it is configured. zone returns the
// zone of the DNS-Bs, "" while that is not known.
func New(zone func() string) *Surveyor {
	return &Surveyor{
		zone: zone, probe: probe, openPath: openPath, limiter: rate.NewLimiter(0, 1), cancel: func() {},
		states: make(map[dnsclient.Endpoint]*State),
	}
}

// Configure makes the settings apply. What is being measured by others is given up:
// DNS-B asks for it again.
func (s *Surveyor) Configure(settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reflect.DeepEqual(s.settings, settings) {
		return
	}
	s.cancel()
	s.settings = settings
	s.limiter.SetLimit(rate.Limit(settings.Options.Budget))
	for dnsb := range s.states {
		if !slices.Contains(settings.DNSBs, dnsb) {
			delete(s.states, dnsb)
		}
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	if len(settings.DNSBs) > 0 {
		startCounters(settings.Node)
	}
	for _, dnsb := range settings.DNSBs {
		if s.states[dnsb] == nil {
			s.states[dnsb] = &State{DNSB: string(dnsb)}
		}
		s.running.Go(func() { s.run(ctx, settings, dnsb) })
	}
}

// Close ends all goroutines.
func (s *Surveyor) Close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
}

// States returns how the node takes part, by DNS-B.
func (s *Surveyor) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]State, 0, len(s.states))
	for _, state := range s.states {
		states = append(states, *state)
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.DNSB, b.DNSB) })
	return states
}

// update changes the state of a DNS-B, unless that was removed.
func (s *Surveyor) update(dnsb dnsclient.Endpoint, change func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.states[dnsb]; state != nil {
		change(state)
	}
}

// run measures for one DNS-B until ctx ends.
func (s *Surveyor) run(ctx context.Context, settings Settings, dnsb dnsclient.Endpoint) {
	failures, failing := 0, reminder.Failure{Delay: dnsclient.Timeout}
	var unreported []surveymsg.Result
	wait := pause + rand.N(2*pause) // #nosec G404 -- nodes that start together do not ask together
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		zone := s.zone()
		if zone == "" { // the registration has to find it
			wait = 2 * pause
			continue
		}
		next, left, err := s.once(ctx, settings, dnsb, zone, unreported)
		unreported = left
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures, wait = 0, max(next, pause)
			s.update(dnsb, func(state *State) { state.Error = "" })
			if failing.Recovered() {
				log.Infof("Recovered: survey of node %q for DNS-B %s", settings.Node, dnsb)
			}
		default:
			failures++
			wait = dnsclient.Backoff(failures)
			s.update(dnsb, func(state *State) { state.Error = remotetext.CleanError(err) })
			if failing.Failed("") {
				log.Warningf("Failed to take part in the survey of DNS-B %s as node %q, retrying: %v", dnsb, settings.Node, err)
			}
		}
	}
}

// once reports what could not be reported before, asks for work, does it, and reports.
// It returns when to ask again, and what is still to be reported.
func (s *Surveyor) once(ctx context.Context, settings Settings, dnsb dnsclient.Endpoint, zone string, unreported []surveymsg.Result) (time.Duration, []surveymsg.Result, error) {
	if left, err := s.report(ctx, settings, dnsb, zone, unreported); err != nil {
		return 0, left, err
	}
	m := new(dns.Msg).SetQuestion(surveymsg.NodeName(settings.Node, zone), dns.TypeTXT)
	m.RecursionDesired = false
	m.SetEdns0(1232, false)
	r, err := settings.exchange(ctx, dnsb, m)
	if err != nil {
		return 0, nil, fmt.Errorf("ask for work: %w", err)
	}
	work, err := surveymsg.ParseWork(r.Answer)
	if err != nil {
		return 0, nil, fmt.Errorf("read work: %w", err)
	}
	s.update(dnsb, func(state *State) { state.Asked = time.Now() })
	results := s.measure(ctx, settings, zone, work.Targets)
	if len(results) == 0 {
		return work.Next, nil, ctx.Err()
	}
	left, err := s.report(ctx, settings, dnsb, zone, results)
	return 0, left, err // there may be more work
}

// report sends results to a DNS-B. It returns those to send again: all, if DNS-B did not
// answer or is busy, because it would have them measured once more.
func (s *Surveyor) report(ctx context.Context, settings Settings, dnsb dnsclient.Endpoint, zone string, results []surveymsg.Result) ([]surveymsg.Result, error) {
	if len(results) == 0 {
		return nil, nil
	}
	r, err := settings.exchange(ctx, dnsb, surveymsg.Report(settings.Node, zone, results))
	if err != nil {
		if r != nil && r.Rcode != dns.RcodeServerFailure {
			results = nil
		}
		return results, fmt.Errorf("report: %w", err)
	}
	s.update(dnsb, func(state *State) {
		state.Reported = time.Now()
		for _, r := range results {
			switch {
			case r.Method == surveymsg.Router:
				state.Routers++
			case r.Outcome == surveymsg.Measured:
				state.Measured++
			case r.Outcome == surveymsg.Silent:
				state.Silent++
			case r.Outcome == surveymsg.Declined:
				state.Declined++
			}
		}
	})
	return nil, nil
}

// errNoSurvey is what NXDOMAIN means for a node that DNS-B knows.
var errNoSurvey = errors.New("the server has no survey: add a line 'survey' to its dnsb block, or upgrade it if it is of an older version")

// exchange sends a signed message to a DNS-B, and checks the reply.
func (settings Settings) exchange(ctx context.Context, dnsb dnsclient.Endpoint, m *dns.Msg) (*dns.Msg, error) {
	r, err := dnsb.Exchange(ctx, settings.CA, m, settings.Key)
	if err != nil {
		return nil, err
	}
	if r.Rcode == dns.RcodeNameError {
		return r, errNoSurvey
	}
	return r, dnsclient.CheckSigned(r, settings.Key, "compare 'key' with the secrets of 'tsig' in the server block of DNS-B")
}
