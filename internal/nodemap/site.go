package nodemap

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Site is what nodes measured of the resolvers in a prefix.
type Site struct {
	Prefix   netip.Prefix
	Measured []Measurement // best first, each node once; 1 to MaxLatencies
	Routed   bool          // the latencies are those of a router on the way
}

// Measurement is the latency between a node and a site.
type Measurement struct {
	Node string
	RTT  time.Duration // to a tenth of a millisecond
	At   time.Time     // to the second; in other measurements of the site to the minute
}

// text returns a site as words: its prefix, the time of the newest measurement in
// seconds since 1970, and for each node NODE=MILLISECONDS, with ",MINUTES" if it
// measured that much earlier.
func (s Site) text() string {
	var newest time.Time
	for _, m := range s.Measured {
		if m.At.After(newest) {
			newest = m.At
		}
	}
	b := fmt.Appendf(nil, "%s %d", s.Prefix, newest.Unix())
	for _, m := range s.Measured {
		b = append(append(append(b, ' '), m.Node...), '=')
		b = strconv.AppendFloat(b, max(0.1, float64(m.RTT)/float64(time.Millisecond)), 'f', 1, 64)
		if minutes := int64(newest.Sub(m.At) / time.Minute); minutes > 0 {
			b = strconv.AppendInt(append(b, ','), minutes, 10)
		}
	}
	return string(b)
}

// WithSites returns lists with what nodes measured of sites, in the order of
// addresses: of the first MaxSites, the first MaxLatencies nodes.
func (l *Lists) WithSites(sites iter.Seq[Site]) *Lists {
	out := *l
	out.sites, out.routed = nil, nil
	for s := range sites {
		if len(out.sites) == MaxSites {
			break
		}
		if s.Measured = s.Measured[:min(len(s.Measured), MaxLatencies)]; len(s.Measured) > 0 {
			out.sites = append(out.sites, s.text())
			if s.Routed {
				out.routed = append(out.routed, s.Prefix.String())
			}
		}
	}
	return &out
}

// Latency is the latency between a node and a site in a Table.
type Latency struct {
	Node NodeID  // index of Table.Measuring
	RTT  float32 // milliseconds, above 0
	At   uint32  // when it was measured, in seconds since 1970
}

// NoSite is the number of no site.
const NoSite = -1

// sites are the sites of a Table, sorted by address, IPv4 first.
type sites struct {
	prefixes  []netip.Prefix
	ends      []uint32 // by site: of its latencies, which begin where those of the site before end
	latencies []Latency
	lists     []uint32 // by site: that of its first block; an index of Table.lists
	routed    map[netip.Prefix]bool
}

func (s *sites) of(site int) []Latency {
	begin := uint32(0)
	if site > 0 {
		begin = s.ends[site-1]
	}
	return s.latencies[begin:s.ends[site]]
}

// Sites returns the number of sites in the map.
func (t *Table) Sites() int { return len(t.sites.prefixes) }

// Site returns the prefix of a site, and its latencies, best first, which must not be
// changed.
func (t *Table) Site(site int) (netip.Prefix, []Latency) {
	return t.sites.prefixes[site], t.sites.of(site)
}

// Routed reports whether the latencies of a site are those of a router on the way.
func (t *Table) Routed(site int) bool { return t.sites.routed[t.sites.prefixes[site]] }

// SiteCandidates returns the nodes for the first address of a site that nobody wrote
// down.
func (t *Table) SiteCandidates(site int) *Candidates { return &t.lists[t.sites.lists[site]] }

// SiteMoves returns for each site its number in a previous map, or NoSite, and
// whether other nodes have measured it since, or these another latency.
func (t *Table) SiteMoves(previous *Table) (from []int32, measured []bool) {
	from, measured = make([]int32, t.Sites()), make([]bool, t.Sites())
	same := slices.Equal(t.Measuring, previous.Measuring)
	old := 0
	for site, prefix := range t.sites.prefixes {
		for old < previous.Sites() && previous.sites.prefixes[old] != prefix && previous.sites.prefixes[old].Compare(prefix) < 0 {
			old++
		}
		from[site], measured[site] = NoSite, true
		if old == previous.Sites() || previous.sites.prefixes[old] != prefix {
			continue
		}
		from[site] = int32(old) // #nosec G115 -- below MaxSites
		measured[site] = !slices.EqualFunc(t.sites.of(site), previous.sites.of(old), func(a, b Latency) bool {
			return a.RTT == b.RTT && (same && a.Node == b.Node || t.Measuring[a.Node] == previous.Measuring[b.Node])
		})
	}
	return from, measured
}

// SameNodes reports whether the same nodes have measured a site as in a previous
// map, in any order.
func (t *Table) SameNodes(site int, previous *Table, old int) bool {
	a, b := t.sites.of(site), previous.sites.of(old)
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x Latency) bool {
		return !slices.ContainsFunc(b, func(y Latency) bool { return t.Measuring[x.Node] == previous.Measuring[y.Node] })
	})
}

// readSite is a site as it is read: its nodes are numbers of Reader.measuring.
type readSite struct {
	prefix   netip.Prefix
	from, to uint32 // its latencies
}

// readSite reads what Site.text returns.
func (r *Reader) readSite(text string) error {
	if len(r.sites) == MaxSites {
		return fmt.Errorf("more than %d sites", MaxSites)
	}
	head, rest, _ := strings.Cut(text, " ")
	prefix, err := sitePrefix(head)
	if err != nil {
		return err
	}
	stamp, rest, _ := strings.Cut(rest, " ")
	newest, err := strconv.ParseUint(stamp, 10, 32)
	if err != nil {
		return fmt.Errorf("site %s: invalid time '%s'", prefix, stamp)
	}
	from := uint32(len(r.latencies)) // #nosec G115 -- at most MaxSites times MaxLatencies
	for word := range strings.FieldsSeq(rest) {
		l, err := r.readLatency(word, newest)
		switch {
		case err != nil:
			return fmt.Errorf("site %s: %w", prefix, err)
		case slices.ContainsFunc(r.latencies[from:], func(o Latency) bool { return o.Node == l.Node }):
			return fmt.Errorf("site %s: a node is listed twice", prefix)
		case len(r.latencies) == int(from)+MaxLatencies:
			return fmt.Errorf("site %s: more than %d nodes", prefix, MaxLatencies)
		}
		r.latencies = append(r.latencies, l)
	}
	to := uint32(len(r.latencies)) // #nosec G115 -- likewise
	if from == to {
		return fmt.Errorf("site %s: no latency", prefix)
	}
	r.sites = append(r.sites, readSite{prefix, from, to})
	return nil
}

func sitePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf("invalid prefix '%s' of a site", text)
	}
	return prefix, nil
}

// readRouted reads the prefix of a site whose latencies are those of a router. A later
// version may say more of it.
func (r *Reader) readRouted(text string) error {
	head, _, _ := strings.Cut(text, " ")
	prefix, err := sitePrefix(head)
	switch {
	case err != nil:
		return err
	case len(r.routed) == MaxSites:
		return fmt.Errorf("more than %d sites by routers", MaxSites)
	}
	r.routed[prefix] = true
	return nil
}

// readLatency reads NODE=MILLISECONDS[,MINUTES].
func (r *Reader) readLatency(word string, newest uint64) (Latency, error) {
	node, value, _ := strings.Cut(word, "=")
	ms, earlier, later := strings.Cut(value, ",")
	rtt, err := strconv.ParseFloat(ms, 32)
	if !registration.IsLabel(node) || err != nil || !(rtt > 0 && rtt <= maxRTT) {
		return Latency{}, fmt.Errorf("invalid latency '%s': expected NODE=MILLISECONDS, up to %d", word, maxRTT)
	}
	minutes := uint64(0)
	if later {
		if minutes, err = strconv.ParseUint(earlier, 10, 26); err != nil || minutes*60 > newest {
			return Latency{}, fmt.Errorf("invalid time in '%s'", word)
		}
	}
	id, ok := r.measuring[node]
	if !ok {
		if len(r.measuring) == maxNodes {
			return Latency{}, fmt.Errorf("more than %d nodes measured sites", maxNodes)
		}
		id = NodeID(len(r.measuring)) // #nosec G115 -- below maxNodes
		r.measuring[strings.Clone(node)] = id
	}
	return Latency{id, float32(rtt), uint32(newest - minutes*60)}, nil // #nosec G115 -- it was read as 32 bits
}

// setSites gives the table the sites that were read, and divides its blocks by them.
// Sites in a prefix that somebody wrote down do not count: what measurements say is
// for the others.
func (t *Table) setSites(r *Reader) error {
	if len(r.sites) == 0 {
		return nil
	}
	t.Measuring = make([]string, 0, len(r.measuring))
	for node := range r.measuring {
		t.Measuring = append(t.Measuring, node)
	}
	slices.Sort(t.Measuring)
	number := make([]NodeID, len(t.Measuring))
	for id, node := range t.Measuring {
		number[r.measuring[node]] = NodeID(id) // #nosec G115 -- below maxNodes
	}
	slices.SortFunc(r.sites, func(a, b readSite) int { return a.prefix.Compare(b.prefix) })
	t.sites = sites{make([]netip.Prefix, 0, len(r.sites)), make([]uint32, 0, len(r.sites)), make([]Latency, 0, len(r.latencies)), make([]uint32, len(r.sites)), r.routed}
	for i, s := range r.sites {
		if i > 0 && dnsmsg.Covers(r.sites[i-1].prefix, s.prefix) {
			return errors.New("sites overlap: " + r.sites[i-1].prefix.String() + " and " + s.prefix.String())
		}
		for _, l := range r.latencies[s.from:s.to] {
			l.Node = number[l.Node]
			t.sites.latencies = append(t.sites.latencies, l)
		}
		t.sites.prefixes = append(t.sites.prefixes, s.prefix)
		t.sites.ends = append(t.sites.ends, uint32(len(t.sites.latencies))) // #nosec G115 -- at most MaxSites times MaxLatencies
	}
	four := slices.IndexFunc(t.sites.prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if four < 0 {
		four = len(t.sites.prefixes)
	}
	t.first4, t.list4, t.site4 = splitAt(t.first4, t.list4, placed(t.sites.prefixes[:four], 0, ipnum.FromV4), t.lists)
	t.first6, t.list6, t.site6 = splitAt(t.first6, t.list6, placed(t.sites.prefixes[four:], four, ipnum.FromV6), t.lists)
	t.listSites(t.list4, t.site4)
	t.listSites(t.list6, t.site6)
	return nil
}

// listSites notes the lists of the blocks of sites.
func (t *Table) listSites(lists []uint32, sites []int32) {
	for block, site := range slices.Backward(sites) {
		if site != NoSite {
			t.sites.lists[site] = lists[block]
		}
	}
}

// place is a range of addresses and the site that they are.
type place[A any] struct {
	first, last A
	site        int32
}

func placed[A ipnum.Number[A]](prefixes []netip.Prefix, number int, at func(netip.Addr) A) []place[A] {
	places := make([]place[A], len(prefixes))
	for i, p := range prefixes {
		first := at(p.Addr())
		places[i] = place[A]{first, first.Last(p.Bits()), int32(number + i)} // #nosec G115 -- below MaxSites
	}
	return places
}

// splitAt divides blocks so that each is of one site or none. Sites are sorted and do
// not overlap.
func splitAt[A ipnum.Number[A]](first []A, list []uint32, sites []place[A], lists []Candidates) (atFirst []A, atList []uint32, atSite []int32) {
	block, within := 0, place[A]{site: NoSite}
	for at := first[0]; ; {
		if block+1 < len(first) && first[block+1] == at {
			block++
		}
		if within.site != NoSite && within.last.Less(at) {
			within.site = NoSite
		}
		if len(sites) > 0 && sites[0].first == at {
			within, sites = sites[0], sites[1:]
		}
		l, site := list[block], within.site
		if lists[l].writtenDown() {
			site = NoSite
		}
		if n := len(atList) - 1; n < 0 || atList[n] != l || atSite[n] != site {
			atFirst, atList, atSite = append(atFirst, at), append(atList, l), append(atSite, site)
		}
		// Where something begins or ends next:
		var next A
		more := false
		consider := func(a A) {
			if !more || a.Less(next) {
				next, more = a, true
			}
		}
		if block+1 < len(first) {
			consider(first[block+1])
		}
		if len(sites) > 0 {
			consider(sites[0].first)
		}
		if within.site != NoSite {
			if after, ok := within.last.Next(); ok {
				consider(after)
			}
		}
		if !more {
			return slices.Clip(atFirst), slices.Clip(atList), slices.Clip(atSite)
		}
		at = next
	}
}
