// Package mapfetch keeps the map of DNS-B at a node: by it the node knows whose
// resolver asks.
//
// The map travels as a DNS zone, by AXFR over TCP or TLS, signed with the key of
// the node. docs/map.md describes the zone.
package mapfetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/internal/wakeup"
)

// pluginName is that of the plugin whose map this is, for logs and metrics.
const pluginName = "dnslb"

var log = clog.NewWithPlugin(pluginName)

const (
	// interval is the longest time between two questions for the serial, as a
	// NOTIFY may be lost.
	interval = 30 * time.Second
	// transferTimeout bounds one transfer.
	transferTimeout = time.Minute
	// In the long run there is one transfer in this time, however often the map
	// changes. Some changes soon after another are taken up at once.
	transferInterval = time.Minute
	transferBurst    = 4
)

// Settings say which map is fetched, and where.
type Settings struct {
	Node  string // name of this node, in logs and metrics
	Cut   string // absolute, lower case
	DNSBs []dnsclient.Endpoint
	Key   dnsclient.Key
	CA    *x509.CertPool // of the DNS-Bs' certificates; nil: those of the system
}

// State tells what a node has of the map.
type State struct {
	DNSB      string    `json:"dnsb,omitempty"` // from which the map is
	Serial    uint32    `json:"serial,omitempty"`
	Prefixes  int       `json:"prefixes"`
	Nodes     int       `json:"nodes"`               // that serve the cut
	FetchedAt time.Time `json:"fetched_at,omitzero"` // zero: there is no map yet
	CheckedAt time.Time `json:"checked_at,omitzero"` // when a DNS-B said that this is the latest
	Error     string    `json:"error,omitempty"`     // of the last question; "": none
}

// Fetcher keeps the map up to date until it is closed. It outlives reloads. Its
// methods are safe for concurrent use.
type Fetcher struct {
	use     func(*nodemap.Table)
	woken   wakeup.Signal
	limiter *rate.Limiter   // of transfers
	ctx     context.Context // ends its goroutine
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	started  bool // the goroutine, with the first DNS-B
	settings Settings
	state    State
	failing  reminder.Failure
}

// New returns a Fetcher that does nothing before it is configured. It calls use
// with each map, one at a time, and with nil when there is none any more.
func New(use func(*nodemap.Table)) *Fetcher {
	ctx, cancel := context.WithCancel(context.Background())
	return &Fetcher{
		use: use, woken: wakeup.New(), limiter: rate.NewLimiter(rate.Every(transferInterval), transferBurst),
		ctx: ctx, cancel: cancel, failing: reminder.Failure{Delay: interval},
	}
}

// Configure makes the settings apply.
func (f *Fetcher) Configure(settings Settings) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reflect.DeepEqual(f.settings, settings) {
		return
	}
	f.settings = settings
	for _, dnsb := range settings.DNSBs {
		for _, result := range []string{"new", "unchanged", "deferred", "failed"} {
			mapPulls.WithLabelValues(settings.Node, string(dnsb), result) // from 0, so that the first one is an increase
		}
	}
	f.woken.Set()
	if !f.started && len(settings.DNSBs) > 0 {
		f.started = true
		f.running.Go(func() { f.run(f.ctx) })
	}
}

// Close ends the goroutine of the Fetcher.
func (f *Fetcher) Close() {
	f.cancel()
	f.running.Wait()
}

// Notify takes a NOTIFY (RFC 1996) from an address, and reports whether it is that
// of a DNS-B. NOTIFYs are not signed: one that is forged costs a question.
func (f *Fetcher) Notify(from netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.settings.DNSBs, func(e dnsclient.Endpoint) bool { return e.Addr() == from }) {
		return false
	}
	f.woken.Set()
	return true
}

// State returns what the node has of the map.
func (f *Fetcher) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *Fetcher) run(ctx context.Context) {
	failures := 0
	var used Settings
	for {
		f.mu.Lock()
		settings := f.settings
		f.mu.Unlock()
		if settings.Cut != used.Cut || len(settings.DNSBs) == 0 {
			f.discard()
		}
		used = settings
		wait := interval
		if len(settings.DNSBs) > 0 {
			err := f.look(ctx, settings)
			if ctx.Err() != nil {
				return
			}
			if failures++; err == nil {
				failures = 0
			} else {
				wait = min(wait, dnsclient.Backoff(failures))
			}
			f.record(settings, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.woken:
		case <-time.After(wait):
		}
	}
}

// discard ends the use of a map, if there is one.
func (f *Fetcher) discard() {
	f.mu.Lock()
	had := !f.state.FetchedAt.IsZero()
	f.state = State{}
	f.failing.Recovered()
	f.mu.Unlock()
	if had {
		f.use(nil)
	}
}

// record notes how a look ended, and logs what is new.
func (f *Fetcher) record(settings Settings, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.state.CheckedAt, f.state.Error = time.Now(), ""
		if f.failing.Recovered() {
			log.Infof("Recovered: map of %q at node %q", settings.Cut, settings.Node)
		}
		return
	}
	f.state.Error = remotetext.CleanError(err)
	if !f.failing.Failed("") {
		return
	}
	consequence := "keeping the previous map"
	if f.state.FetchedAt.IsZero() {
		consequence = "resolvers of other nodes get the answers of this one"
	}
	log.Warningf("Failed to fetch the map of %q for node %q since %s, %s, retrying: %v",
		settings.Cut, settings.Node, f.failing.Since().UTC().Format(time.RFC3339), consequence, err)
}

// look asks the DNS-Bs for the serial of the map, the one that the map is from
// first, and fetches the map if that is another one.
func (f *Fetcher) look(ctx context.Context, settings Settings) error {
	state := f.State()
	dnsbs := slices.Clone(settings.DNSBs)
	slices.SortStableFunc(dnsbs, func(a, b dnsclient.Endpoint) int {
		switch state.DNSB {
		case string(a):
			return -1
		case string(b):
			return 1
		}
		return 0
	})
	var failed error
	mayTransfer := sync.OnceValue(f.limiter.Allow) // one for all: a DNS-B that fails leaves the others theirs
	for _, dnsb := range dnsbs {
		result, err := f.lookAt(ctx, settings, dnsb, state, mayTransfer)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		mapPulls.WithLabelValues(settings.Node, string(dnsb), result).Inc()
		if result == "deferred" && state.Error != "" {
			return errors.New(state.Error) // nothing is known to be better
		}
		if err == nil {
			return nil
		}
		failed = dnsclient.Join(failed, fmt.Errorf("DNS-B %s: %w", dnsb, err))
	}
	return failed
}

// lookAt asks one DNS-B.
func (f *Fetcher) lookAt(
	ctx context.Context, settings Settings, dnsb dnsclient.Endpoint, state State, mayTransfer func() bool,
) (result string, err error) {
	zone := nodemap.ZoneOf(settings.Cut)
	serial, err := dnsb.Serial(ctx, settings.CA, zone, settings.Key, settings.check)
	switch {
	case err != nil:
		return "failed", err
	case !state.FetchedAt.IsZero() && state.DNSB == string(dnsb) && state.Serial == serial:
		return "unchanged", nil
	case !mayTransfer():
		return "deferred", nil
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	r := nodemap.NewReader(settings.Cut)
	if err := dnsb.Transfer(ctx, settings.CA, zone, settings.Key, nodemap.MaxBytes, r.Add); err != nil {
		return "failed", err
	}
	table, err := r.Table()
	if err != nil {
		return "failed", err
	}
	f.use(table)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.FetchedAt.IsZero() {
		log.Infof("Fetched the map of %q for node %q from DNS-B %s: %s, %s", settings.Cut, settings.Node, dnsb, plural.Of(table.Prefixes, "prefix"), plural.Of(len(table.Names), "node"))
	}
	f.state.DNSB, f.state.Serial, f.state.FetchedAt = string(dnsb), r.Serial, time.Now()
	f.state.Prefixes, f.state.Nodes = table.Prefixes, len(table.Names)
	return "new", nil
}

// check explains the reply of a DNS-B that does not give its map.
func (s Settings) check(r *dns.Msg) error {
	switch t := r.IsTsig(); {
	case t != nil && r.Rcode == dns.RcodeServerFailure:
		return errors.New("the server has no map yet, as after a restart")
	case t != nil && r.Rcode == dns.RcodeNotAuth && t.Error == dns.RcodeSuccess:
		return fmt.Errorf("the server has no map of %s for key '%s': the node has not registered yet, or no 'accept' line lets it serve this cut", s.Cut, s.Key.Name)
	}
	return dnsclient.CheckSigned(r, s.Key, "compare 'key' with the secrets of 'tsig' in the server block of DNS-B")
}
