package dnsb

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// input is what a snapshot is made of, besides the configuration.
type input struct {
	resolvers *resolverMap
	records   []*registry.Record // of the nodes that are registered
	permitted func(*registry.Record) bool
	serial    uint32
	overrides overrides
	coldUntil time.Time
	health    *health
	sites     *sitesurvey.Table // nil: there is no survey
	pacer     *pacing.Pacer     // nil: nobody asks yet
}

// changes are how a snapshot differs from the previous one.
type changes struct {
	nodes []nodeChange
	cuts  []string // that are new, or have other nodes or states
}

// nodeChange is a change of a node, if only of its lease.
type nodeChange struct{ old, now *node } // nil: there is none

// builder makes a snapshot from the previous one. What has changed is made anew, and
// the rest is shared: what one of many nodes registers or a probe finds out costs
// little.
type builder struct {
	input
	conf     *config
	previous *snapshot // an empty one if it numbers nodes otherwise
	next     *snapshot
	changes  changes
	judged   map[string]bool     // nodes with new results of probes
	drafts   map[string]*draft   // cuts with other nodes or states
	sets     map[string]*members // of drafts, by serves

	ordered     bool // next has an order of its own
	namesLost   bool // the previous snapshot has names of which there is nothing any more
	namesGained bool // there is something at other names
}

// draft is a cut that changes.
type draft struct {
	serves []serving // by nodeID
	keys   bool      // a node that changed has, or had, DS records
}

// build makes a snapshot of what is configured, registered and alive, and tells how
// it differs from the previous one, which is nil before the first.
func build(conf *config, previous *snapshot, in input) (*snapshot, changes) {
	b := &builder{
		input: in, conf: conf, previous: previous,
		judged: in.health.changes(), drafts: make(map[string]*draft), sets: make(map[string]*members),
	}
	if previous == nil || previous.numbers != in.resolvers {
		b.previous = new(snapshot)
	}
	s := &snapshot{
		conf: conf, overrides: in.overrides, serial: in.serial, coldUntil: in.coldUntil, numbers: in.resolvers,
		unmappedCount: unmappedCount.WithLabelValues(conf.zone),
		nodes:         make([]*node, len(b.previous.nodes)), order: b.previous.order, cuts: b.previous.cuts, owners: b.previous.owners,
	}
	b.next = s
	for _, node := range conf.defaults {
		s.defaults = append(s.defaults, in.resolvers.prefixes.ID(node))
	}
	b.addNodes(previous)
	b.removeNodes()
	if s.sites = in.sites; s.sites != nil {
		s.surveyNodes = b.surveyNodes(s.sites)
	}
	s.names = in.resolvers.prefixes.Names()
	s.nodes = append(s.nodes, make([]*node, len(s.names)-len(s.nodes))...)
	b.matchDeputies()
	b.changeCuts()
	b.changeOwners()
	m := in.resolvers
	s.prefixes, s.operators, s.geo = m.prefixes.Publish(), m.prefixes.Operators(), m.geo.Prefixes
	return s, b.changes
}

// addNodes adds the nodes that are static or registered. last is the snapshot that
// was in use, however it numbers nodes.
func (b *builder) addNodes(last *snapshot) {
	if len(b.previous.nodes) == 0 { // numbers must not depend on chance
		slices.SortFunc(b.records, func(a, b *registry.Record) int { return strings.Compare(a.Node, b.Node) })
	}
	for _, name := range slices.Sorted(maps.Keys(b.conf.statics)) {
		b.addNode(b.conf.statics[name], nil, last)
	}
	for _, rec := range b.records {
		b.addNode(rec.Registration, rec, last)
	}
}

// addNode adds a node if that is permitted. rec is nil for a static one.

func (b *builder) addNode(r *registration.Registration, rec *registry.Record, last *snapshot) {
	id := b.number(r.Node)
	old := b.previous.node(id)
	_, drained := b.overrides.drained[r.Node]
	same := old != nil && old.Registration == r
	if same && old.drained == drained && old.stale() == (rec != nil && rec.Stale) && !b.judged[r.Node] {
		b.refresh(old, rec)
		return
	}
	if !same && rec != nil && !b.permitted(rec) {
		return
	}
	n := new(node)
	if same {
		*n = *old
		n.record = rec
	} else {
		n = newNode(r, rec)
		n.id = id
		b.resolvers.register(r.Node, r, b.pacer)
		n.derived = b.resolvers.derived[r.Node]
		n.negates = n.negates || b.resolvers.prefixes.Excluded(id)
		for _, deputy := range r.Deputies {
			if b.conf.knows(deputy) { // others never exist, and a node can name any number
				n.registered = append(n.registered, b.number(deputy))
			}
		}
		n.deputies = n.registered
	}
	n.drained = drained
	cuts := b.conf.cutsOf(r)
	b.health.probe(r, cuts)
	n.judge(cuts, b.health)
	if same && old.drained == drained && old.state == n.state && old.reason == n.reason && slices.Equal(old.cuts, n.cuts) {
		b.refresh(old, rec)
		return
	}
	b.next.nodes[id] = n
	b.draftCuts(old, n)
	if old == nil {
		b.insert(n)
		old = last.named(n.fqdn)
	} else if !same {
		b.compareParts(old, n)
	}
	b.changes.nodes = append(b.changes.nodes, nodeChange{old, n})
}

// refresh adds a node of which nothing has changed but its lease, if that.
func (b *builder) refresh(old *node, rec *registry.Record) {
	b.next.nodes[old.id] = old
	if old.record == rec {
		return
	}
	n := *old
	n.record = rec
	b.next.nodes[old.id] = &n
	b.changes.nodes = append(b.changes.nodes, nodeChange{old, &n})
}

// number returns the number of a node, for which next.nodes has room.
func (b *builder) number(node string) nodeID {
	id := b.resolvers.prefixes.ID(node)
	for int(id) >= len(b.next.nodes) {
		b.next.nodes = append(b.next.nodes, nil)
	}
	return id
}

// insert adds a node to the order, and its names.
func (b *builder) insert(n *node) {
	b.ownOrder()
	b.next.order = slices.Insert(b.next.order, b.placeOf(n.Node), n.id)
	b.namesGained = true
}

// placeOf returns where a node is in the order, or would be.
func (b *builder) placeOf(name string) int {
	i, _ := slices.BinarySearchFunc(b.next.order, name, func(id nodeID, name string) int {
		n := b.next.nodes[id]
		if n == nil { // it is to be removed
			n = b.previous.nodes[id]
		}
		return strings.Compare(n.Node, name)
	})
	return i
}

// ownOrder makes the order one that may be changed.
func (b *builder) ownOrder() {
	if !b.ordered {
		b.next.order, b.ordered = slices.Clone(b.next.order), true
	}
}

// compareParts notes whether the names of the parts of a node change.
func (b *builder) compareParts(old, now *node) {
	b.namesGained = b.namesGained || len(now.parts) > 0
	b.namesLost = b.namesLost || len(now.parts) < len(old.parts)
}

// removeNodes removes the nodes that are not there any more.
func (b *builder) removeNodes() {
	for id, old := range b.previous.nodes {
		if old == nil || b.next.nodes[id] != nil {
			continue
		}
		b.ownOrder()
		i := b.placeOf(old.Node)
		b.next.order = slices.Delete(b.next.order, i, i+1)
		b.draftCuts(old, nil)
		b.namesLost = true
		b.changes.nodes = append(b.changes.nodes, nodeChange{old, nil})
	}
	gone := func(name string) bool { return b.next.nodes[b.number(name)] == nil }
	if len(b.resolvers.registered) > len(b.next.order) {
		for name := range b.resolvers.registered {
			if gone(name) {
				b.resolvers.register(name, nil, b.pacer)
			}
		}
	}
	b.health.forget(len(b.next.order), gone)
}

// draftCuts changes the cuts that a node served or serves. Either may be nil.
func (b *builder) draftCuts(old, now *node) {
	var id nodeID
	keys, unchanged := false, func(cutState) bool { return false } // as far as members go
	if old != nil {
		id, keys = old.id, len(old.DS) > 0
		for _, c := range old.cuts {
			if now != nil {
				if _, ok := now.cut(c.name); ok {
					continue
				}
			}
			b.draft(c.name, keys).set(id, servesNot)
		}
	}
	if now == nil {
		return
	}
	id, keys = now.id, keys || len(now.DS) > 0
	if old != nil && old.Location == now.Location && old.ClientSubnets == now.ClientSubnets && slices.Equal(old.DS, now.DS) {
		unchanged = func(c cutState) bool {
			before, ok := old.cut(c.name)
			return ok && before.state == c.state && before.held == c.held
		}
	}
	for _, c := range now.cuts {
		if !unchanged(c) {
			b.draft(c.name, keys).set(id, c.serving())
		}
	}
}

// draft returns a cut that is to be changed.
func (b *builder) draft(name string, keys bool) *draft {
	d, ok := b.drafts[name]
	if !ok {
		d = &draft{serves: make([]serving, len(b.next.nodes))}
		if c := b.previous.cuts[name]; c != nil {
			copy(d.serves, c.serves)
		}
		b.drafts[name] = d
	}
	d.keys = d.keys || keys
	return d
}

func (d *draft) set(id nodeID, s serving) {
	for int(id) >= len(d.serves) {
		d.serves = append(d.serves, servesNot)
	}
	d.serves[id] = s
}

func (c cutState) serving() serving {
	switch {
	case c.held:
		return servesHeld
	case c.state == nodeDead:
		return servesDead
	case c.state == nodeDrained:
		return servesDrained
	}
	return servesLive
}

// changeCuts makes the cuts that change. One without nodes exists only if a 'cut'
// line has it.
func (b *builder) changeCuts() {
	if b.previous.cuts == nil {
		for name := range b.conf.cuts {
			b.draft(name, true)
		}
		b.next.cuts = make(map[string]*cut, len(b.drafts))
	} else if len(b.drafts) > 0 {
		b.next.cuts = maps.Clone(b.previous.cuts)
	}
	for name, d := range b.drafts {
		old, c := b.previous.cuts[name], &cut{name: name, members: b.members(d)}
		if _, configured := b.conf.cuts[name]; len(c.nodes) == 0 && !configured {
			delete(b.next.cuts, name)
			b.namesLost = true
			continue
		}
		if old == nil || d.keys {
			c.ds = b.next.keysFor(c)
		} else {
			c.ds = old.ds
		}
		b.namesGained = b.namesGained || old == nil
		b.next.cuts[name] = c
		b.changes.cuts = append(b.changes.cuts, name)
	}
}

// members returns the members of a cut.
func (b *builder) members(d *draft) *members {
	d.serves = append(d.serves, make([]serving, len(b.next.names)-len(d.serves))...) // equal sets have equal lists
	m, ok := b.sets[string(d.serves)]
	if ok {
		return m
	}
	m = &members{serves: d.serves}
	b.sets[string(d.serves)] = m
	for _, id := range b.next.order {
		if d.serves[id] == servesNot {
			continue
		}
		n := b.next.nodes[id]
		m.nodes, m.hashes = append(m.nodes, id), append(m.hashes, n.hash)
		if n.at != nil {
			m.located, m.points = append(m.located, id), append(m.points, *n.at)
		}
		if d.serves[id] <= servesHeld {
			continue
		}
		m.alive++
		if n.ClientSubnets {
			m.withSubnets++
		}
	}
	return m
}

// changeOwners makes the names with authority.
func (b *builder) changeOwners() {
	s := b.next
	switch {
	case b.previous.owners == nil || b.namesLost:
		s.owners = map[string]*owner{s.conf.zone: {apex: true}}
		for _, ns := range s.conf.servers {
			s.own(ns.name, &owner{addresses: ns.addresses})
		}
		s.own(s.conf.labelName(), &owner{})
		if s.conf.survey != nil {
			s.own(surveymsg.ZoneName(s.conf.zone), &owner{text: s.conf.surveyText()})
		}
		for _, id := range s.order {
			s.ownNode(s.nodes[id])
		}
		for name := range s.cuts {
			s.ownAbove(name)
		}
	case b.namesGained:
		s.owners = maps.Clone(s.owners)
		for _, change := range b.changes.nodes {
			s.ownNode(change.now)
		}
		for _, name := range b.changes.cuts {
			s.ownAbove(name)
		}
	}
}
