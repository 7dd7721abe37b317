package dnsb

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
)

// maxMapTransfers is how many transfers of the map are served at a time. A node
// that finds no free one tries again.
const maxMapTransfers = 8

// serveMap answers a request for the map of a cut. The plugin *tsig*, earlier in
// the chain, has verified the signature and signs the replies.
func (d *DNSB) serveMap(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, cut string) (int, error) {
	state := request.Request{W: w, Req: r}
	reply := func(rcode int) (int, error) {
		return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	}
	key, signed := tsig.ValidatedKeyName(ctx)
	switch {
	case !signed:
		return dns.RcodeRefused, nil
	case r.Opcode != dns.OpcodeQuery:
		return reply(dns.RcodeNotImplemented)
	case state.Name() != nodemap.ZoneOf(cut) || !d.conf.mayFetch(key, cut):
		return reply(dns.RcodeNotAuth) // RFC 5936, section 2.2.1
	}
	m := d.zone.shared.Load()
	switch {
	case m == nil: // not yet
		return reply(dns.RcodeServerFailure)
	case m.nodes[cut] == nil:
		return reply(dns.RcodeNotAuth)
	}
	soa := nodemap.SOA(cut, d.conf.servers[0].name, m.serial)
	return dns.RcodeSuccess, dnsmsg.ServeZone(w, r, soa, func() error {
		result := "ok"
		defer func() { mapTransferCount.WithLabelValues(d.conf.zone, result).Inc() }()
		select {
		case d.zone.mapTransfers <- struct{}{}:
			defer func() { <-d.zone.mapTransfers }()
		default:
			result = "busy"
			return w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
		}
		err := dnsmsg.WriteTransfer(w, r, soa, m.lists.Records(cut, d.conf.servers[0].name, m.nodes[cut]))
		if err != nil {
			result = "failed"
			return err
		}
		d.zone.mapsFetched.note(key, m.serial)
		return nil
	})
}

// isMapTransfer reports whether a request is for a transfer of the map of a cut.
func isMapTransfer(r *dns.Msg) bool {
	if len(r.Question) != 1 || r.Question[0].Qtype != dns.TypeAXFR && r.Question[0].Qtype != dns.TypeIXFR {
		return false
	}
	_, ok := nodemap.CutOf(dns.CanonicalName(r.Question[0].Name))
	return ok
}

// typeKey is the key of the type of a question that passes by *transfer*.
type typeKey struct{}

// passingType is a type for private use, which *transfer* leaves alone.
const passingType = 65400

// pastTransfer returns a request that *transfer*, which is before this plugin in the
// chain, does not take: it would refuse the map to nodes, as they are no secondaries.
func pastTransfer(ctx context.Context, r *dns.Msg) (context.Context, *dns.Msg) {
	passing := *r
	passing.Question = slices.Clone(r.Question)
	passing.Question[0].Qtype = passingType
	return context.WithValue(ctx, typeKey{}, r.Question[0].Qtype), &passing
}

// arrived gives a request back the type that it had before pastTransfer.
func arrived(ctx context.Context, r *dns.Msg) {
	if qtype, ok := ctx.Value(typeKey{}).(uint16); ok {
		r.Question[0].Qtype = qtype
	}
}

// mapFetches remembers which version of the map the holder of each key has fetched
// last. The zero value is ready.
type mapFetches struct {
	mu   sync.Mutex
	last map[string]MapFetch // by key, of which *tsig* has a bounded number
}

// MapFetch is a transfer of the map to a node, as a Go value and as JSON.
type MapFetch struct {
	Serial uint32    `json:"serial"`
	At     time.Time `json:"at"`
}

func (f *mapFetches) note(key string, serial uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = make(map[string]MapFetch)
	}
	f.last[key] = MapFetch{serial, time.Now()}
}

// of returns the last transfer to the holder of one of the keys that may register a
// node, nil if there was none.
func (f *mapFetches) of(rules []*acceptRule) (last *MapFetch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rule := range rules {
		if fetch, ok := f.last[rule.key]; ok && (last == nil || fetch.At.After(last.At)) {
			last = &fetch
		}
	}
	return last
}

// mayFetch reports whether the holder of a key may have the map of a cut: it may
// register a node that serves the cut.
func (c *config) mayFetch(key, cut string) bool {
	return slices.ContainsFunc(c.accepts, func(rule *acceptRule) bool { return rule.key == key && rule.permitsCut(cut) })
}
