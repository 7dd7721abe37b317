package dnslb

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/survey"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

const (
	// maxSiteRankings bounds the sites of all pools together: each takes four bytes,
	// and about a microsecond when it is ranked.
	maxSiteRankings = 2_000_000
	// firstSitePause and sitePause are how long what nodes measure of servers changes
	// no order of a site: less while servers are measured for the first time.
	firstSitePause, sitePause = 5 * time.Second, time.Minute
	// siteSlice is how many sites are ranked, or orders answered, at a time: a few
	// milliseconds, in which the health of no server is noticed.
	siteSlice = 2000
)

// siteRanker ranks pools for the sites of the map. It belongs to the ranking
// goroutine.
type siteRanker struct {
	table    *nodemap.Table // nil: there is none, or it has no sites
	slots    []int          // of the nodes of the table
	snapshot *snapshot      // whose pools are ranked
	slotOf   []int          // by site
	pause    time.Duration
	due      time.Time // when the latencies of servers count again

	job     *siteJob // that goes on; nil: none
	ranked  []*pool  // pools with servers beside nodes
	unknown string   // servers beside nodes that the map does not have, as logged last
}

// rankSites brings the rankings for sites up to date, in one go.
func (r *ranker) rankSites(views *peerview.Set, now time.Time) {
	r.planSites(views, now)
	for r.sites.job != nil {
		r.continueSites(siteSlice)
	}
}

// planSites makes what is to be done the job, so that the rankings for sites are up to
// date with the map, with the snapshot and, now and then, with what nodes measure of
// servers. A job for an earlier map or snapshot is given up.
func (r *ranker) planSites(views *peerview.Set, now time.Time) {
	k, slots := &r.sites, views.Slots()
	if slots.Map != nil && (r.snapshot != k.snapshot || !slices.Equal(slots.Nodes, k.slots)) {
		r.logUnknownNodes(slots.Map)
	}
	if slots.Map != nil && slots.Map.Sites() == 0 {
		slots = peerview.Slots{}
	}
	changed := slots.Map != k.table || r.snapshot != k.snapshot || !slices.Equal(slots.Nodes, k.slots)
	if !changed && (k.table == nil || k.job != nil || now.Before(k.due)) {
		return
	}
	if changed {
		k.table, k.slots, k.snapshot = slots.Map, slots.Nodes, r.snapshot
		if left := k.choosePools(); left > 0 {
			log.Warningf("%sToo many sites in the map for all services with servers beside nodes, ranking %s of servers as if there were no sites", r.conf.prefix(), plural.Of(left, "set"))
		}
		k.findSlots(&slots)
		k.pause = firstSitePause
	} else {
		k.pause = min(2*k.pause, sitePause)
	}
	k.due = now.Add(k.pause)
	k.job = nil
	if len(k.ranked) > 0 {
		k.job = &siteJob{moves: newSiteMoves(k.table), changed: changed, spare: maxSiteOrders, pools: k.ranked}
	}
}

// siteJob is the ranking of all pools for sites, as far as it has come.
type siteJob struct {
	moves   *siteMoves
	changed bool // more may be new than what nodes measure of servers
	spare   int  // how many more orders there may be
	pools   []*pool
	current *poolSites // of the first of pools; nil: not begun
}

// continueSites goes on with the job: it ranks a pool for so many sites, or answers so
// many orders. What has changed in the health of servers since the answers were made
// is taken up when the ranking is complete; until then queries get the previous one.
func (r *ranker) continueSites(most int) {
	j := r.sites.job
	p := j.pools[0]
	if j.current == nil {
		j.current = r.beginPoolForSites(p, j.moves, j.changed, j.spare)
	}
	if j.current != nil {
		if !j.current.step(r, most) {
			return
		}
		p.formerSites = nil
		p.sites.Store(j.current.next)
		for slot := range j.current.next.bases {
			r.refreshSites(p, slot)
		}
	}
	j.spare -= len(p.sites.Load().orders)
	if j.pools, j.current = j.pools[1:], nil; len(j.pools) == 0 {
		r.sites.job = nil
	}
}

// logUnknownNodes warns of servers beside nodes that the map does not have, when these
// are others than before.
func (r *ranker) logUnknownNodes(m *nodemap.Table) {
	unknown := strings.Join(r.snapshot.besideUnknown(m), ", ")
	if unknown != "" && unknown != r.sites.unknown {
		log.Warningf("%sFound servers beside nodes that DNS-B does not have, ranking them as servers without a node: %s", r.conf.prefix(), unknown)
	}
	r.sites.unknown = unknown
}

// besideUnknown returns the servers that stand beside nodes which a map does not have,
// as texts.
func (t *snapshot) besideUnknown(m *nodemap.Table) (unknown []string) {
	seen := make(map[string]bool)
	for _, p := range t.pools {
		for _, s := range p.members {
			text := s.label + " beside " + s.beside
			if s.beside == "" || seen[text] {
				continue
			}
			seen[text] = true
			_, serves := slices.BinarySearch(m.Names, s.beside)
			_, measures := slices.BinarySearch(m.Measuring, s.beside)
			if !serves && !measures {
				unknown = append(unknown, text)
			}
		}
	}
	slices.Sort(unknown)
	return unknown
}

// choosePools finds the pools that are ranked for sites, as many as the bound permits,
// and returns how many more there are.
func (k *siteRanker) choosePools() (left int) {
	k.ranked = nil
	for _, p := range k.snapshot.pools {
		switch {
		case k.table != nil && p.rankedBySite() && (len(k.ranked)+1)*k.table.Sites() <= maxSiteRankings:
			k.ranked = append(k.ranked, p)
			continue
		case k.table != nil && p.rankedBySite():
			left++
		}
		p.sites.Store(nil)
	}
	return left
}

// findSlots finds the slot of each site: that of the first known node which the map
// names for it.
func (k *siteRanker) findSlots(slots *peerview.Slots) {
	k.slotOf = nil
	if k.table == nil {
		return
	}
	k.slotOf = make([]int, k.table.Sites())
	for site := range k.slotOf {
		slot, _ := slots.First(k.table.SiteCandidates(site))
		k.slotOf[site] = max(slot, peerview.Own)
	}
}

// siteMoves finds where the sites of a map were in previous ones. Most pools had the
// same previous one.
type siteMoves struct {
	table *nodemap.Table
	known map[*nodemap.Table]siteMove
}

type siteMove struct {
	from     []int32 // by site: its number in the previous map, or nodemap.NoSite
	measured []bool  // by site: the latencies are others
}

func newSiteMoves(t *nodemap.Table) *siteMoves {
	return &siteMoves{t, make(map[*nodemap.Table]siteMove)}
}

func (m *siteMoves) since(previous *nodemap.Table) siteMove {
	move, ok := m.known[previous]
	if !ok {
		move.from, move.measured = m.table.SiteMoves(previous)
		m.known[previous] = move
	}
	return move
}

// poolSites is the ranking of a pool for sites, as far as it has come.
type poolSites struct {
	pool      *pool
	slotOf    []int // by site
	old, next *siteRanking
	moved     *movedLatencies
	orderer   *siteOrderer
	move      siteMove
	kept      []uint32 // by the index that an order had: what it has now, from 1

	ranked, answered int // how many sites and orders are
}

// beginPoolForSites begins the ranking of a pool for sites. It returns nil if that
// stays as it is.
func (r *ranker) beginPoolForSites(p *pool, moves *siteMoves, changed bool, spare int) *poolSites {
	k := &r.sites
	old := p.sites.Load()
	if old == nil {
		old = p.formerSites
	}
	servers, moved := r.siteServers(p, old)
	if old != nil && !changed && !moved.any() {
		return nil
	}
	next := &siteRanking{
		table: k.table, servers: servers, orderOf: make([]uint32, k.table.Sites()),
		byKey: make(map[string]uint32), bases: make(map[int]*siteBasis),
	}
	s := &poolSites{pool: p, slotOf: k.slotOf, old: old, next: next, moved: moved, orderer: newSiteOrderer(p, next, spare)}
	if old != nil {
		s.move, s.kept = moves.since(old.table), make([]uint32, len(old.orders))
	}
	return s
}

// step ranks the next sites or answers the next orders, so many of them at most, and
// reports whether the ranking is complete.
func (s *poolSites) step(r *ranker, most int) bool {
	for ; most > 0 && s.ranked < len(s.next.orderOf); most-- {
		s.next.orderOf[s.ranked] = s.rank(s.ranked)
		s.ranked++
	}
	for ; most > 0 && s.ranked == len(s.next.orderOf) && s.answered < len(s.next.orders); most-- {
		order := &s.next.orders[s.answered]
		basis := s.next.bases[order.slot]
		if basis == nil {
			basis = r.siteBasis(s.pool, order.slot)
			s.next.bases[order.slot] = basis
		}
		s.next.answers[s.answered] = order.answer(s.pool, basis, r.conf.ttlLow, r.conf.ttlHigh)
		s.answered++
	}
	return s.ranked == len(s.next.orderOf) && s.answered == len(s.next.orders)
}

// rank returns the order for a site. Sites for which nothing has changed keep theirs.
func (s *poolSites) rank(site int) uint32 {
	if s.old == nil || s.move.from[site] == nodemap.NoSite {
		return s.orderer.find(site, s.slotOf[site], nil)
	}
	from := int(s.move.from[site])
	index := s.old.orderOf[from]
	former := &s.old.orders[index]
	switch {
	case s.move.measured[site] && !s.next.table.SameNodes(site, s.old.table, from): // the search has found out more
		return s.orderer.find(site, s.slotOf[site], nil)
	case s.old.foreign || s.move.measured[site] || former.slot != s.slotOf[site] || s.moved.concerns(s.next, site):
		return s.orderer.find(site, s.slotOf[site], former)
	}
	if s.kept[index] == 0 {
		s.kept[index] = 1 + s.orderer.keep(former)
	}
	return s.kept[index] - 1
}

// siteBasis returns what the answers of a pool for the sites of a slot are made of.
func (r *ranker) siteBasis(p *pool, slot int) *siteBasis {
	observed := &r.observed
	if principal := r.principal(slot); slot > peerview.Own && principal != nil {
		observed = p.effective(&principal.observations)
	}
	b := &siteBasis{eligible: p.eligible(func(m *member) bool { return !m.down(observed) }), failing: make([]bool, len(p.members))}
	for i, m := range p.members {
		b.failing[i] = observed.status[m.target].Failing
	}
	return b
}

// refreshSites brings the answers of a pool for the sites of a slot up to date with
// the health of its members.
func (r *ranker) refreshSites(p *pool, slot int) {
	old := p.sites.Load()
	if old == nil || old.bases[slot] == nil {
		return
	}
	basis := r.siteBasis(p, slot)
	if basis.equal(old.bases[slot]) {
		return
	}
	next := *old
	next.bases, next.answers = maps.Clone(old.bases), slices.Clone(old.answers)
	next.bases[slot] = basis
	for i := range next.orders {
		if next.orders[i].slot == slot {
			next.answers[i] = next.orders[i].answer(p, basis, r.conf.ttlLow, r.conf.ttlHigh)
		}
	}
	p.sites.Store(&next)
}

// siteServers returns the members of a pool as package survey has them, by what is
// known of their latencies now, and which latencies are others than before. What
// changes a little is as before.
func (r *ranker) siteServers(p *pool, old *siteRanking) (siteServers, *movedLatencies) {
	k := &r.sites
	out, moved := make(siteServers), &movedLatencies{nodes: make([]bool, len(k.table.Measuring)), members: make([]bool, len(p.members))}
	slotOf := make([]int, len(k.table.Measuring)) // of the views of the nodes
	for number, node := range k.table.Measuring {
		slotOf[number] = peerview.Outside
		if id, ok := slices.BinarySearch(k.table.Names, node); ok {
			slotOf[number] = k.slots[id]
		}
	}
	add := func(key int, counts func(slot int) bool) {
		servers := make([]survey.Server, len(p.members))
		for i, m := range p.members {
			servers[i] = survey.Server{Latency: make([]float64, len(slotOf)), Beside: survey.NoNode}
			if number, ok := slices.BinarySearch(k.table.Measuring, m.beside); ok && m.beside != "" {
				servers[i].Beside = number
			}
			for number, slot := range slotOf {
				now := survey.Unknown
				if slot != peerview.Outside && counts(slot) {
					now = r.latencyFrom(slot, m)
				}
				was := old.latency(key, i, k.table.Measuring[number])
				servers[i].Latency[number] = was
				if !math.IsNaN(now) && (survey.Better(now, was) || survey.Better(was, now)) {
					servers[i].Latency[number] = now
					moved.nodes[number], moved.members[i] = true, true
				}
			}
		}
		out[key] = servers
	}
	if r.conf.clientSubnets {
		add(peerview.Own, func(int) bool { return true })
		return out, moved
	}
	for _, slot := range k.slotOf {
		if out[slot] == nil {
			add(slot, func(other int) bool { return other == slot })
		}
	}
	return out, moved
}

// latencyFrom returns what the node of a slot measured of a member, in milliseconds,
// or survey.Unknown.
func (r *ranker) latencyFrom(slot int, m *member) float64 {
	observed := &r.observed
	if slot > peerview.Own {
		principal := r.principal(slot)
		if principal == nil {
			return survey.Unknown
		}
		observed = &principal.observations
	}
	if e := observed.status[m.target].Estimate; e.Measured() {
		return e.Value
	}
	return survey.Unknown
}

// latency returns what a node measured of a member as it counted before. The ranking
// may be nil.
func (s *siteRanking) latency(slot, member int, node string) float64 {
	if s == nil || s.foreign || s.servers[slot] == nil {
		return survey.Unknown
	}
	if number, ok := slices.BinarySearch(s.table.Measuring, node); ok {
		return s.servers[slot][member].Latency[number]
	}
	return survey.Unknown
}

// movedLatencies are the latencies between nodes and members that have changed.
type movedLatencies struct {
	nodes   []bool // by number in Table.Measuring
	members []bool
}

func (l *movedLatencies) any() bool { return slices.Contains(l.members, true) }

// concerns reports whether a member whose latency has changed is estimated for a site
// by a node from which it has.
func (l *movedLatencies) concerns(s *siteRanking, site int) bool {
	if !l.any() {
		return false
	}
	_, latencies := s.table.Site(site)
	if !slices.ContainsFunc(latencies, func(a nodemap.Latency) bool { return l.nodes[a.Node] }) {
		return false
	}
	for i, server := range s.servers.of(peerview.Own) {
		if l.members[i] && !slices.ContainsFunc(latencies, func(a nodemap.Latency) bool { return int(a.Node) == server.Beside }) {
			return true
		}
	}
	return false
}

// adoptSites has a pool go on with the rankings for sites of its predecessor. If
// servers or settings differ, the orders count as those before, and all are found anew.
func (p *pool) adoptSites(predecessor *pool) {
	old := predecessor.sites.Load()
	if old == nil || !p.rankedBySite() {
		return
	}
	next := *old
	p.formerSites = &next
	if *p.options == *predecessor.options && slices.EqualFunc(p.members, predecessor.members, func(a, b *member) bool { return a.addr == b.addr && a.settings == b.settings }) {
		return
	}
	next.foreign = true
	number := make([]int, len(predecessor.members))
	for i, m := range predecessor.members {
		number[i] = slices.IndexFunc(p.members, func(o *member) bool { return o.addr == m.addr })
	}
	next.orders = make([]siteOrder, len(old.orders))
	for i, o := range old.orders {
		next.orders[i].slot = o.slot
		for _, m := range o.members {
			if n := number[m]; n >= 0 {
				next.orders[i].members = append(next.orders[i].members, uint16(n)) // #nosec G115 -- less than ranking.MaxServers
			}
		}
	}
}
