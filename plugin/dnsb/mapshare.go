package dnsb

import (
	"context"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

const (
	// shareInterval is the shortest time between two versions of the map for nodes.
	// It is longer where a version takes long, so that this is at most a tenth of one
	// processor: a map of a million prefixes takes a second.
	shareInterval = 2 * time.Second
	shareRest     = 10
	// maxNearest is how many nodes the map names for coordinates: enough that one of
	// them lives, and few enough that most neighbors have the same list.
	maxNearest = 8
	// notifyAtOnce is how many nodes are notified at a time.
	notifyAtOnce  = 32
	notifyTimeout = 2 * time.Second
)

// sharedMap is the map in the form that nodes fetch. It is immutable.
type sharedMap struct {
	serial uint32
	lists  *nodemap.Lists
	nodes  map[string][]string // by cut: the names of those that serve it, sorted
	sites  *sitesurvey.Table   // nil: there is no survey
	made   time.Time
}

// equal reports whether another version says the same, or much the same of sites.
func (m *sharedMap) equal(other *sharedMap) bool {
	return other != nil && m.lists.Equal(other.lists) && maps.EqualFunc(m.nodes, other.nodes, slices.Equal[[]string]) && other.has(m.sites, m.made)
}

// shareMap keeps the map that nodes fetch up to date with the snapshots, until ctx
// ends, and notifies the nodes of each version. A version that says the same as
// that of a previous instance keeps its serial.
func (d *DNSB) shareMap(ctx context.Context, shared *atomic.Pointer[sharedMap]) {
	var last *snapshot
	if d.awaitNodes(ctx) != nil {
		return
	}
	for {
		s := d.snapshot.Load()
		same := s.namesLike(last) && shared.Load().has(s.sites, time.Now())
		last = s
		if !same {
			begin := time.Now()
			next, previous := s.share(), shared.Load()
			wait := max(shareInterval, shareRest*time.Since(begin))
			if !next.equal(previous) {
				next.serial = uint32(time.Now().Unix())                         // #nosec G115 -- serial arithmetic (RFC 1982)
				if previous != nil && int32(next.serial-previous.serial) <= 0 { // #nosec G115 -- likewise
					next.serial = previous.serial + 1
				}
				shared.Store(next)
				notifyNodes(ctx, d.notifyNode, nodemap.ZoneOf, s.registeredNodes())
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-d.shareDue:
		}
	}
}

// shareDelay is how long a server waits if it lost its registrations at a restart.
// Nodes ask every 30 seconds whether it knows them, and register again. Without the
// delay they would replace the map that they have by one without registrations.
const shareDelay = 45 * time.Second

// awaitNodes waits until all nodes that may register have done so since the
// registrations were lost, at most for shareDelay. It returns the error of ctx.
func (d *DNSB) awaitNodes(ctx context.Context) error {
	enough := time.After(shareDelay)
	for time.Now().Before(d.snapshot.Load().coldUntil) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-enough:
			return nil
		case <-d.shareDue:
		}
	}
	return nil
}

// namesLike reports whether another snapshot has the same map, whatever nodes are
// alive, and whatever they measured.
func (s *snapshot) namesLike(other *snapshot) bool {
	return s.sameWritten(other) && slices.Equal(s.defaults, other.defaults) && slices.EqualFunc(s.nodes, other.nodes, func(a, b *node) bool {
		if a == nil || b == nil || a.Registration == b.Registration {
			return (a == nil) == (b == nil)
		}
		return a.Node == b.Node && a.Location == b.Location && slices.EqualFunc(a.cuts, b.cuts, func(x, y cutState) bool { return x.name == y.name })
	})
}

// share returns the map for nodes.
func (s *snapshot) share() *sharedMap {
	defer s.saveSpace()()
	m := &sharedMap{
		lists: nodemap.NewLists(s.sharedLists()).WithSites(s.sharedSites()), nodes: make(map[string][]string, len(s.cuts)),
		sites: s.sites, made: time.Now(),
	}
	for name, c := range s.cuts {
		nodes := make([]string, len(c.nodes))
		for i, id := range c.nodes {
			nodes[i] = s.names[id]
		}
		slices.Sort(nodes)
		m.nodes[name] = nodes
	}
	return m
}

// all4 and all6 are where the lists of addresses are that nothing else covers.
var all4, all6 = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")

// sharedLists returns the prefixes at which the nodes for an address change, and
// all nodes that a search for the addresses in them considers before it hashes.
func (s *snapshot) sharedLists() iter.Seq2[netip.Prefix, nodemap.List] {
	var located []*node
	for _, n := range s.nodes {
		if n != nil && n.at != nil {
			located = append(located, n)
		}
	}
	nearest := make(map[geodb.Point][]nodeID)
	return func(yield func(netip.Prefix, nodemap.List) bool) {
		var (
			pacer  pacing.Pacer
			named  []prefixmap.Named
			denied []nodeID
			list   nodemap.List
		)
		for prefix := range prefixmap.Merge(s.allPrefixes(), slices.Values([]netip.Prefix{all4, all6})) {
			pacer.Step()
			named, denied = s.namedFor(prefix, named[:0], denied[:0])
			list = list[:0]
			add := func(id nodeID, source string) {
				name := s.names[id]
				if !slices.Contains(denied, id) && !slices.ContainsFunc(list, func(n nodemap.Named) bool { return n.Node == name }) {
					list = append(list, nodemap.Named{Node: name, Layer: source})
				}
			}
			surveyed := 0
			for _, n := range named { // without those that a longer prefix denies
				if n.Source == nodemap.LayerSurvey {
					if surveyed++; surveyed > maxSurveyed {
						continue
					}
				}
				list = append(list, nodemap.Named{Node: s.names[n.Node], Layer: n.Source})
			}
			for _, id := range s.defaults {
				add(id, layerDefault.String())
			}
			for _, id := range s.nearestFor(prefix, located, nearest) {
				add(id, layerLocation.String())
			}
			if !yield(prefix, list) {
				return
			}
		}
	}
}

// nearestFor returns the nodes that are nearest to the coordinates of a prefix.
// known has those of other prefixes.
func (s *snapshot) nearestFor(prefix netip.Prefix, located []*node, known map[geodb.Point][]nodeID) []nodeID {
	if s.geo == nil || len(located) == 0 {
		return nil
	}
	geo, ok := s.geo.LookupPrefix(prefix)
	if !ok || geo.At == nil {
		return nil
	}
	ids, ok := known[*geo.At]
	if !ok {
		byDistance := slices.SortedStableFunc(slices.Values(located), func(a, b *node) int {
			switch x, y := a.at.Dot(*geo.At), b.at.Dot(*geo.At); {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return strings.Compare(a.Node, b.Node)
		})
		for _, n := range byDistance[:min(maxNearest, len(byDistance))] {
			ids = append(ids, n.id)
		}
		known[*geo.At] = ids
	}
	return ids
}

// nodeNotifier sends a NOTIFY about a zone to the address of a node.
type nodeNotifier func(ctx context.Context, zone string, to netip.Addr)

// newNodeNotifier returns the nodeNotifier for nodes that listen at a port. It sends
// once: a node that misses the NOTIFY asks for the serial in time. Nodes heed only
// a NOTIFY from the address at which they register, so that it is sent from the
// address at which server listens, if that is configured.
func newNodeNotifier(server *dnsserver.Config, port *resolverPort) nodeNotifier {
	return func(ctx context.Context, zone string, to netip.Addr) {
		client := &dns.Client{Timeout: notifyTimeout}
		for _, host := range server.ListenHosts {
			if from, err := netip.ParseAddr(host); err == nil && from.Is4() == to.Is4() && !from.IsUnspecified() {
				client.Dialer = &net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: notifyTimeout}
				break
			}
		}
		address := netip.AddrPortFrom(to, port.get()).String()
		_, _, _ = client.ExchangeContext(ctx, new(dns.Msg).SetNotify(zone), address)
	}
}

// registeredNodes returns the nodes that register, live or stale, and serve a cut.
func (s *snapshot) registeredNodes() []*node {
	var nodes []*node
	for _, n := range s.nodes {
		if n != nil && n.record != nil && n.state != nodeDead && len(n.cuts) > 0 {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// notifyNodes notifies nodes of the zone that belongs to their cut (RFC 1996).
func notifyNodes(ctx context.Context, notify nodeNotifier, zoneOf func(cut string) string, nodes []*node) {
	if notify == nil {
		return
	}
	free := make(chan struct{}, notifyAtOnce)
	var running sync.WaitGroup
	defer running.Wait()
	for _, n := range nodes {
		select {
		case <-ctx.Done():
			return
		case free <- struct{}{}:
		}
		running.Go(func() {
			defer func() { <-free }()
			notify(ctx, zoneOf(n.cuts[0].name), n.Addresses[0])
		})
	}
}
