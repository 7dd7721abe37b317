package surveyor

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

const (
	// packets is how many packets make a measurement, of which the lowest latency
	// counts: more improve nothing.
	packets = 3
	// timeout is how long a node waits for an answer, and tcpTimeout for one to the
	// beginning of a connection: the kernel sends that again after a second.
	timeout    = 2 * time.Second
	tcpTimeout = 750 * time.Millisecond
	// defaultPort is where resolvers take queries.
	defaultPort = 53
)

// probeFunc measures an address once by a method. name is what a query asks for, port
// where.
type probeFunc func(ctx context.Context, method surveymsg.Method, name string, port uint16, addr, source netip.Addr) (time.Duration, error)

// probe is the probeFunc of the Surveyor: nothing is believed that the target sends.
func probe(ctx context.Context, method surveymsg.Method, name string, port uint16, addr, source netip.Addr) (time.Duration, error) {
	patience := timeout
	if method == surveymsg.TCP {
		patience = tcpTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result, err := proberOf(method, name, port).Probe(ctx, addr, source)
	return result.RTT, err
}

func proberOf(method surveymsg.Method, name string, port uint16) prober.Prober {
	switch method {
	case surveymsg.DNS:
		return prober.DNS{Port: port, Name: name, Type: dns.TypeTXT, AnyAnswer: true}
	case surveymsg.TCP:
		return prober.TCP{Port: port, Refusal: true}
	}
	return prober.ICMP{}
}

// measure measures targets at the same time. Of one that could not be measured for a
// reason that may pass, and that says nothing about the target, there is no result.
func (s *Surveyor) measure(ctx context.Context, settings Settings, zone string, targets []surveymsg.Target) []surveymsg.Result {
	var (
		mu      sync.Mutex
		results []surveymsg.Result
		running sync.WaitGroup
	)
	for _, t := range targets {
		running.Go(func() {
			if r, ok := s.measureOne(ctx, settings, zone, t); ok {
				mu.Lock()
				defer mu.Unlock()
				results = append(results, r)
			}
		})
	}
	running.Wait()
	return results
}

// measureOne tries one method after the other until one is answered, and then that
// one again.
func (s *Surveyor) measureOne(ctx context.Context, settings Settings, zone string, t surveymsg.Target) (result surveymsg.Result, ok bool) {
	result = surveymsg.Result{Address: t.Address, Outcome: surveymsg.Declined}
	if slices.ContainsFunc(settings.Options.Avoid, func(p netip.Prefix) bool { return p.Contains(t.Address) }) {
		return result, true
	}
	source := settings.Source6
	if t.Address.Is4() {
		source = settings.Source4
	}
	for _, shared := range [...]prober.Sharer{prober.ICMP{}, prober.DNS{}} {
		defer shared.Hold(t.Address, source)()
	}
	name, port := surveymsg.ZoneName(zone), uint16(defaultPort)
	if settings.Options.DNSPort != 0 {
		port = settings.Options.DNSPort
	}
	turn := s.turns(t.Every)
	if t.Method == surveymsg.Router {
		query := prober.DNS{Port: port, Name: name, Type: dns.TypeTXT}
		return s.measureRouter(ctx, settings.Node, turn, query, t.Address, source)
	}
	methods := inOrder(t.Method)
	if settings.Options.DNSPort != 0 {
		methods = []surveymsg.Method{surveymsg.DNS}
	}
	once := func(method surveymsg.Method) (time.Duration, error) {
		if err := turn(ctx); err != nil {
			return 0, err
		}
		rtt, err := s.probe(ctx, method, name, port, t.Address, source)
		count(settings.Node, method, err)
		return rtt, err
	}

	transient := false
	for _, method := range methods {
		rtt, err := once(method)
		switch {
		case ctx.Err() != nil:
			return result, false
		case err == nil && rtt > 0:
			return s.repeat(once, method, surveymsg.Result{Address: t.Address, RTT: milliseconds(rtt), Method: method})
		case err == nil: // its time cannot be told
		case prober.LocalReasonOf(err) == prober.LocalPermission:
		case prober.LocalReasonOf(err) != "":
			transient = true
		case prober.ReasonOf(err) != prober.Unreachable: // unreachable may be a lack of this machine
			result.Outcome = surveymsg.Silent
		}
	}
	return result, result.Outcome == surveymsg.Silent || !transient
}

// turns returns a function that waits until the next packet to an address may be sent.
func (s *Surveyor) turns(every time.Duration) func(context.Context) error {
	next := time.Now().Add(rand.N(max(every, time.Millisecond))) // #nosec G404 -- spreads packets
	return func(ctx context.Context) error {
		if err := sleepUntil(ctx, next); err != nil {
			return err
		}
		if err := s.limiter.Wait(ctx); err != nil {
			return err
		}
		next = time.Now().Add(max(every, pause))
		return nil
	}
}

// repeat measures again by a method that was answered.
func (s *Surveyor) repeat(once func(surveymsg.Method) (time.Duration, error), method surveymsg.Method, result surveymsg.Result) (surveymsg.Result, bool) {
	for range packets - 1 {
		rtt, err := once(method)
		switch {
		case errors.Is(err, context.Canceled):
			return result, false
		case err == nil && rtt > 0:
			result.RTT = min(result.RTT, milliseconds(rtt))
		}
	}
	return result, true
}

// inOrder returns all methods, the one that others found to be answered first.
func inOrder(first surveymsg.Method) []surveymsg.Method {
	methods := make([]surveymsg.Method, 0, len(surveymsg.Methods))
	if first != 0 {
		methods = append(methods, first)
	}
	for _, m := range surveymsg.Methods {
		if m != first {
			methods = append(methods, m)
		}
	}
	return methods
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func sleepUntil(ctx context.Context, t time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(t)):
		return nil
	}
}
