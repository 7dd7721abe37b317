package surveyor

import (
	"context"
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

const (
	// longestPath is how many routers are on the way to an address at most.
	longestPath = 30
	// searchPackets is how many packets the search for the last router takes at most:
	// enough for most paths.
	searchPackets = 8
)

// path is the way to an address.
type path interface {
	// Probe sends a packet that ends at the router with the number ttl.
	Probe(ctx context.Context, ttl int) (prober.Hop, error)
	Close()
}

func openPath(ctx context.Context, query prober.DNS, addr, source netip.Addr) (path, error) {
	return prober.OpenPath(ctx, query, addr, source)
}

// measureRouter measures the last router that answers on the way to an address which
// does not, after waiting for its turn for each packet.
func (s *Surveyor) measureRouter(ctx context.Context, node string, turn func(context.Context) error, query prober.DNS, addr, source netip.Addr) (result surveymsg.Result, ok bool) {
	result = surveymsg.Result{Address: addr, Outcome: surveymsg.Silent}
	path, err := s.openPath(ctx, query, addr, source)
	switch {
	case prober.LocalReasonOf(err) != "":
		return result, false
	case err != nil: // no route, or a system that does not tell who answered
		result.Outcome = surveymsg.Declined
		return result, true
	}
	defer path.Close()
	failed := false // this machine did
	once := func(ttl int) (prober.Hop, bool) {
		if turn(ctx) != nil {
			return prober.Hop{}, false
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		hop, err := path.Probe(ctx, ttl)
		count(node, surveymsg.Router, err)
		reason := prober.LocalReasonOf(err)
		failed = failed || reason != "" && reason != prober.LocalPermission
		return hop, err == nil && surveymsg.IsRouterAddress(hop.Addr) && hop.RTT > 0
	}
	last, ttl := lastHop(once)
	if ttl > 0 {
		result = surveymsg.Result{Address: addr, RTT: milliseconds(last.RTT), Method: surveymsg.Router, Router: last.Addr, TTL: uint8(ttl)} // #nosec G115 -- at most longestPath
		for range packets - 1 {
			if hop, ok := once(ttl); ok && resolver.SiteOf(hop.Addr) == resolver.SiteOf(last.Addr) {
				result.RTT = min(result.RTT, milliseconds(hop.RTT))
			}
		}
	}
	return result, ctx.Err() == nil && (ttl > 0 || !failed)
}

// lastHop returns the last router that answers, and its number; 0: none does. It halves
// the path again and again: where a router does not answer and the next one does not
// either, there is nothing beyond.
func lastHop(probe func(ttl int) (prober.Hop, bool)) (last prober.Hop, number int) {
	end := longestPath + 1
	for sent := 0; end-number > 1; {
		middle, found := (number+end)/2, false
		for ttl := middle; ttl < min(middle+2, end) && !found; ttl++ {
			if sent == searchPackets {
				return last, number
			}
			sent++
			if hop, ok := probe(ttl); ok {
				last, number, found = hop, ttl, true
			}
		}
		switch {
		case !found:
			end = middle
		case last.Last:
			return last, number
		}
	}
	return last, number
}
