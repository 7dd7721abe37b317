package peerview

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

// Rejection is the last NOTIFY that was signed with another key than the view
// key.
type Rejection struct {
	Node string    `json:"node"` // as the sender says
	From string    `json:"from"` // address and port
	At   time.Time `json:"at"`
	Why  string    `json:"why"`
}

// Serve answers a request for a name that IsViewName: it transfers the view of
// this node, and takes the NOTIFY of another one. The plugin tsig, earlier in
// the chain, has verified the signature and signs the replies (RFC 8945,
// section 5.3), and has answered requests with a wrong one. nameserver is the
// host name for the NS record.
func (s *Sharing) Serve(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, nameserver string) (int, error) {
	state, settings := request.Request{W: w, Req: r}, s.currentSettings()
	zone := state.Name()
	node := strings.TrimSuffix(zone, zoneOf("", settings.Cut))
	reply := func(rcode int) (int, error) {
		return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	}
	key, signed := tsig.ValidatedKeyName(ctx)
	switch {
	case !signed:
		return dns.RcodeRefused, nil
	case key != settings.Key.Name:
		if r.Opcode == dns.OpcodeNotify && registration.IsLabel(node) {
			s.reject(node, w.RemoteAddr().String(), key)
		}
		return reply(dns.RcodeNotAuth) // not REFUSED, which dismisses a deputy
	case r.Opcode == dns.OpcodeNotify:
		if !registration.IsLabel(node) || node == settings.Node || !s.notified(node) {
			return reply(dns.RcodeRefused)
		}
		return reply(dns.RcodeSuccess)
	case r.Opcode != dns.OpcodeQuery:
		return reply(dns.RcodeNotImplemented)
	}
	v := s.published.Load()
	switch {
	case node != settings.Node: // RFC 5936, section 2.2.1
		return reply(dns.RcodeNotAuth)
	case v == nil && !settings.publishes(): // see dismissal
		return reply(dns.RcodeRefused)
	case v == nil: // not yet
		return reply(dns.RcodeServerFailure)
	}

	soa := v.soa(zone, nameserver)
	return dns.RcodeSuccess, dnsmsg.ServeZone(w, r, soa, func() error {
		return dnsmsg.WriteTransfer(w, r, soa, slices.Values(v.records(settings.Cut, nameserver, time.Now())))
	})
}

// reject notes that a NOTIFY was signed with another key.
func (s *Sharing) reject(node, from, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := fmt.Sprintf("signed with key %q, and 'view-key' is %q: give all nodes the same 'view-key'", key, s.settings.Key.Name)
	s.rejected.Store(&Rejection{Node: node, From: from, At: time.Now(), Why: why})
	if s.rejections.Failed("") {
		log.Warningf("Rejected NOTIFY from %s for the view of node %q, deputy %q answers the resolvers of that node by its own measurements: %s", from, node, s.settings.Node, why)
	}
}

// Rejected returns the last NOTIFY that was rejected not long ago, nil if there
// was none.
func (s *Sharing) Rejected() *Rejection {
	if r := s.rejected.Load(); r != nil && time.Since(r.At) < reminder.Interval {
		return r
	}
	return nil
}
