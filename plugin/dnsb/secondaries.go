package dnsb

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// maxSecondaries is how many servers that have transferred the zone are remembered.
const maxSecondaries = 64

// Secondaries are the servers that have a copy of the zone, as a Go value and as JSON.
type Secondaries struct {
	Notified     time.Time    `json:"notified_at,omitzero"` // end of the last round of NOTIFY; zero: none has ended since the start
	NotifyErrors []string     `json:"notify_errors"`        // of it, one for each secondary that did not accept it
	Transfers    []ZoneServed `json:"transfers"`            // the last one of each of the last 64 servers, the newest first
}

// ZoneServed is a transfer of the zone to a secondary, as a Go value and as JSON.
type ZoneServed struct {
	Address netip.Addr `json:"address"`
	Serial  uint32     `json:"serial"`
	At      time.Time  `json:"at"`
}

// copies has the secondaries that transferred the zone. The zero value is ready.
type copies struct {
	mu          sync.Mutex
	notified    time.Time
	notifyError error
	served      []ZoneServed // oldest first
}

// notedRound notes the end of a round of NOTIFY.
func (c *copies) notedRound(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notified, c.notifyError = time.Now(), err
}

// note notes a transfer, in place of an earlier one of the same server.
func (c *copies) note(z ZoneServed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.served = slices.DeleteFunc(c.served, func(other ZoneServed) bool { return other.Address == z.Address })
	if n := len(c.served); n == maxSecondaries {
		c.served = slices.Delete(c.served, 0, 1)
	}
	c.served = append(c.served, z)
}

func (c *copies) status() *Secondaries {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Secondaries{Notified: c.notified, NotifyErrors: []string{}, Transfers: append([]ZoneServed{}, c.served...)}
	if all, ok := c.notifyError.(interface{ Unwrap() []error }); ok { // as of errors.Join
		for _, err := range all.Unwrap() {
			s.NotifyErrors = append(s.NotifyErrors, err.Error())
		}
	} else if c.notifyError != nil {
		s.NotifyErrors = append(s.NotifyErrors, c.notifyError.Error())
	}
	slices.Reverse(s.Transfers)
	return s
}

// isTransfer reports whether a request is for a transfer of the zone.
func isTransfer(r *dns.Msg, zone string) bool {
	if len(r.Question) != 1 {
		return false
	}
	q := r.Question[0]
	return (q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR) && dns.CanonicalName(q.Name) == zone
}

// serveTransfer has the plugin *transfer* answer, and notes what it transferred.
func (g *gate) serveTransfer(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	noting := &transferWriter{ResponseWriter: w}
	rcode, err := g.next.ServeDNS(ctx, noting, r)
	if err == nil && plugin.ClientWrite(rcode) && noting.soa != nil && noting.err == nil {
		g.dnsb.zone.copies.note(ZoneServed{resolver.Address(w), noting.soa.Serial, time.Now()})
	}
	return rcode, err
}

// transferWriter notes the SOA record that a transfer begins with.
type transferWriter struct {
	dns.ResponseWriter
	soa *dns.SOA
	err error
}

// WriteMsg implements the dns.ResponseWriter interface.
func (w *transferWriter) WriteMsg(m *dns.Msg) error {
	if w.soa == nil && len(m.Answer) > 0 {
		w.soa, _ = m.Answer[0].(*dns.SOA)
	}
	err := w.ResponseWriter.WriteMsg(m)
	if err != nil {
		w.err = err
	}
	return err
}
