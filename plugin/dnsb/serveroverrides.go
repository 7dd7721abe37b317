package dnsb

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
)

const (
	// Nodes that have not fetched other overrides are notified again after this time,
	// and then after twice the time before: a NOTIFY may be lost.
	announceFirst = time.Second
	announceLast  = 16 * time.Second
)

// fetchedOverrides are the overrides of servers that nodes have fetched from this
// server, by node. It is safe for concurrent use. The zero value is ready.
type fetchedOverrides struct {
	mu     sync.Mutex
	byNode map[string]fetchedOverride // of nodes with an accept rule
}

// fetchedOverride is the last answer to a node.
type fetchedOverride struct {
	lines []string
	at    time.Time // zero: there was none
}

func (f *fetchedOverrides) note(node string, lines []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byNode == nil {
		f.byNode = make(map[string]fetchedOverride)
	}
	f.byNode[node] = fetchedOverride{lines, time.Now()}
}

func (f *fetchedOverrides) of(node string) fetchedOverride {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byNode[node]
}

// has reports whether a node has these overrides. A node that never asked knows that
// there are none.
func (f *fetchedOverrides) has(node string, lines []string) bool {
	return slices.Equal(f.of(node).lines, lines)
}

// serveOverrides answers the question of a node for the overrides of servers. The
// plugin *tsig*, earlier in the chain, has verified the signature by key and signs the
// reply. Without a signature the name is like any other below the cut.
func (d *DNSB) serveOverrides(w dns.ResponseWriter, r *dns.Msg, key, node, cut string) (int, error) {
	state := request.Request{W: w, Req: r}
	reply := func(rcode int) (int, error) {
		return dns.RcodeSuccess, w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	}
	switch {
	case r.Opcode != dns.OpcodeQuery:
		return reply(dns.RcodeNotImplemented)
	case !slices.ContainsFunc(d.conf.rules[node], func(rule *acceptRule) bool { return rule.key == key && rule.permitsCut(cut) }):
		return reply(dns.RcodeNotAuth)
	}
	if status := d.admin.Status(); status.Failed && status.Loaded.IsZero() {
		// The overrides that the node may have from before a restart must stay.
		return reply(dns.RcodeServerFailure)
	}
	m := new(dns.Msg).SetReply(r)
	m.Authoritative, m.Compress = true, true
	switch {
	case state.QType() != dns.TypeTXT:
	case state.Proto() != "tcp":
		m.Truncated = true
	default:
		lines := d.snapshot.Load().overrides.servers
		m.Answer = serveroverride.Records(state.QName(), lines)
		d.zone.fetched.note(node, lines)
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// announces reports whether nodes are to be notified: the overrides of servers differ
// from those in the previous snapshot, or a node has come that has not fetched them.
func (s *snapshot) announces(previous *snapshot, c changes, fetched *fetchedOverrides) bool {
	if previous == nil {
		return len(s.overrides.servers) > 0
	}
	return !slices.Equal(s.overrides.servers, previous.overrides.servers) || slices.ContainsFunc(c.nodes, func(n nodeChange) bool {
		return n.now != nil && n.now.state != nodeDead && (n.old == nil || n.old.state == nodeDead) &&
			n.now.record != nil && !fetched.has(n.now.Node, s.overrides.servers)
	})
}

// announceOverrides notifies the nodes when there are other overrides of servers, until
// ctx ends.
func (d *DNSB) announceOverrides(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.announceDue:
			d.announce(ctx, d.snapshot.Load().overrides.servers)
		}
	}
}

// announce notifies nodes until all live ones have fetched these lines, other ones are
// due, or it takes too long: nodes ask by themselves every 30 seconds.
func (d *DNSB) announce(ctx context.Context, lines []string) {
	notified := false
	for wait := announceFirst; ; wait *= 2 {
		s := d.snapshot.Load()
		lacking := s.lackingOverrides(&d.zone.fetched, lines)
		switch {
		case len(lacking) == 0 && notified:
			log.Infof("All live nodes of %s have fetched the current overrides of servers (%d)", d.conf.zone, len(lines))
			return
		case len(lacking) == 0:
			return
		case wait > announceLast:
			names := make([]string, len(lacking))
			for i, n := range lacking {
				names[i] = n.Node
			}
			log.Warningf("Nodes of %s have not fetched the current overrides of servers (%d): %s", d.conf.zone, len(lines), someNames(names))
			return
		}
		notifyNodes(ctx, d.notifyNode, serveroverride.ZoneOf, lacking)
		notified = true
		select {
		case <-ctx.Done():
			return
		case <-d.announceDue:
			d.announceDue.Set()
			return
		case <-time.After(wait):
		}
	}
}

// lackingOverrides returns the live nodes that have not fetched these lines.
func (s *snapshot) lackingOverrides(fetched *fetchedOverrides, lines []string) []*node {
	var lacking []*node
	for _, n := range s.registeredNodes() {
		if !fetched.has(n.Node, lines) {
			lacking = append(lacking, n)
		}
	}
	return lacking
}

// lineForNodes returns a line of the admin file as nodes have it, without 'server'.
func lineForNodes(o nodeOverride) string {
	words := strings.Fields(o.Text)
	return strings.Join(slices.Delete(words, 1, 2), " ")
}
