// Package prefixmap maps prefixes to the nodes that the operator or their own
// registrations named for them.
//
// A Map is changed by one goroutine at a time. The Table that Publish returns is
// immutable: later changes copy the paths to the prefixes that change, and share
// all others.
package prefixmap

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// NodeID is the number of a node in one Map.
type NodeID int32

// Claim names a node for a prefix. A negated one excludes the node from the
// prefix, where no longer prefix of the node includes it again.
type Claim struct {
	Node     NodeID
	Operator bool // the operator named the node, and not its registration
	Negated  bool
}

// Entry has the claims of a prefix, those of the operator first. It is immutable,
// and equal entries of a Map are one.
type Entry struct {
	Claims []Claim
}

// Registered reports whether a node registered the prefix.
func (e *Entry) Registered() bool {
	return slices.ContainsFunc(e.Claims, func(c Claim) bool { return !c.Operator && !c.Negated })
}

// Map makes Tables. Use New. Operator prefixes come before registered ones.
type Map struct {
	table     *Table
	published bool // others read the table, or share parts of it
	ids       map[string]NodeID
	names     []string // by NodeID
	entries   map[string]*Entry
	excluded  map[NodeID]bool // by the operator, from some prefix
	operators int             // operator prefixes
}

// New returns an empty Map.
func New() *Map {
	return &Map{table: newTable(), ids: make(map[string]NodeID), entries: make(map[string]*Entry), excluded: make(map[NodeID]bool)}
}

// ID returns the number of a node, a new one if it has none.
func (m *Map) ID(node string) NodeID {
	id, ok := m.ids[node]
	if !ok {
		id = NodeID(len(m.names)) // #nosec G115 -- as many as there are nodes
		m.ids[node] = id
		m.names = append(m.names, node)
	}
	return id
}

// Names returns the names of all nodes that have a number, by number.
func (m *Map) Names() []string { return slices.Clip(m.names) }

// Excluded reports whether the operator excluded a node from some prefix.
func (m *Map) Excluded(node NodeID) bool { return m.excluded[node] }

// Operators returns the number of operator prefixes.
func (m *Map) Operators() int { return m.operators }

// OperatorEntry returns the entry for nodes that the operator named, best first.
// '!' before a node excludes it.
func (m *Map) OperatorEntry(nodes []string) *Entry {
	claims := make([]Claim, len(nodes))
	for i, node := range nodes {
		name, negated := strings.CutPrefix(node, "!")
		claims[i] = Claim{Node: m.ID(name), Operator: true, Negated: negated}
		if negated {
			m.excluded[claims[i].Node] = true
		}
	}
	return m.entry(claims)
}

// Add makes e the entry of an operator prefix, and reports whether the prefix had
// none before.
func (m *Map) Add(prefix netip.Prefix, e *Entry) (added bool) {
	_, ok := m.table.Get(prefix)
	m.table.changes.Insert(prefix, e)
	if !ok {
		m.operators++
	}
	return !ok
}

// entry returns the one entry with these claims, nil if there are none.
func (m *Map) entry(claims []Claim) *Entry {
	if len(claims) == 0 {
		return nil
	}
	var key []byte
	for _, c := range claims {
		flags := byte(0)
		if c.Operator {
			flags |= 1
		}
		if c.Negated {
			flags |= 2
		}
		key = append(binary.AppendUvarint(key, uint64(c.Node)), flags) // #nosec G115 -- not negative
	}
	e, ok := m.entries[string(key)]
	if !ok {
		e = &Entry{Claims: slices.Clone(claims)}
		m.entries[string(key)] = e
	}
	return e
}

// Register replaces the prefixes that a node has registered.
func (m *Map) Register(node string, previous, prefixes []registration.Prefix, pacer *pacing.Pacer) {
	if slices.Equal(previous, prefixes) {
		return
	}
	negated := make(map[netip.Prefix]bool, len(previous)) // those that stay to be removed
	for _, p := range previous {
		pacer.Step()
		negated[p.Prefix] = p.Negated
	}
	var changes []change
	for _, p := range prefixes {
		pacer.Step()
		was, ok := negated[p.Prefix]
		delete(negated, p.Prefix)
		switch {
		case ok && was == p.Negated:
		case p.Negated:
			changes = append(changes, change{p.Prefix, negates})
		default:
			changes = append(changes, change{p.Prefix, claims})
		}
	}
	for _, p := range previous {
		pacer.Step()
		if _, ok := negated[p.Prefix]; ok {
			changes = append(changes, change{p.Prefix, nothing})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { // so that each union copies other paths
		pacer.Step()
		return a.prefix.Addr().Compare(b.prefix.Addr())
	})
	id := m.ID(node)
	for part := range slices.Chunk(changes, atOnce) {
		m.change(id, part, pacer)
	}
}

// change is what a node registers for a prefix.
type change struct {
	prefix netip.Prefix
	claims claiming
}

type claiming uint8

const (
	nothing claiming = iota // any more
	claims
	negates
)

// atOnce is how many changes of a table that others read make one union. Nothing interrupts
// it, so it takes less time than pacing.Pacer lets queries wait.
const atOnce = 512

// change carries out changes by a node.
//
// Of a table that others read, the paths to many prefixes that change are copied at
// once: a copy of the whole table would take twice the memory, and one change
// after the other ten times the time.
func (m *Map) change(id NodeID, changes []change, pacer *pacing.Pacer) {
	type replacement struct {
		old    *Entry
		claims claiming
	}
	replaced := make(map[replacement]*Entry) // few entries are those of many prefixes
	changed := new(bart.Table[*Entry])
	var removed []netip.Prefix
	for _, c := range changes {
		pacer.Step()
		old, known := m.table.changes.Get(c.prefix)
		fromFiles, _, _ := m.table.inFiles(c.prefix)
		if !known {
			old = fromFiles
		}
		e, ok := replaced[replacement{old, c.claims}]
		if !ok {
			e = m.replace(old, id, c.claims)
			replaced[replacement{old, c.claims}] = e
		}
		switch {
		case e != fromFiles: // equal entries are one
		case !known:
			continue
		default:
			removed = append(removed, c.prefix)
		}
		if m.published {
			changed.Insert(c.prefix, e)
		} else {
			m.table.changes.Insert(c.prefix, e)
		}
	}
	if m.published {
		table := *m.table
		table.changes = table.changes.UnionPersist(changed)
		m.table = &table
	}
	for _, prefix := range removed { // in place: the union has copied the paths
		pacer.Step()
		m.table.changes.Delete(prefix)
	}
}

// Publish returns the table. It does not change any more.
func (m *Map) Publish() *Table {
	m.published = true
	return m.table
}

// Snapshot returns m as it is now, to compare another Map with while m changes. m
// has been published.
func (m *Map) Snapshot() *Map {
	now := *m
	return &now
}

// replace returns an entry with other claims of a node in place of those that it registered.
func (m *Map) replace(e *Entry, id NodeID, claiming claiming) *Entry {
	var all []Claim
	if e != nil {
		all = slices.DeleteFunc(slices.Clone(e.Claims), func(c Claim) bool { return !c.Operator && c.Node == id })
	}
	if claiming != nothing {
		c := Claim{Node: id, Negated: claiming == negates}
		// By name: all DNS-Bs have registrations in the same order.
		i, _ := slices.BinarySearchFunc(all, c, func(a, b Claim) int {
			if a.Operator {
				return -1
			}
			return cmp.Compare(m.names[a.Node], m.names[b.Node])
		})
		all = slices.Insert(all, i, c)
	}
	return m.entry(all)
}

// Compare counts the operator prefixes that differ from those of a previous Map.
func (m *Map) Compare(previous *Map, pacer *pacing.Pacer) (added, removed, changed int) {
	const (
		notNow = iota
		isAdded
		isSame
		isChanged
		results
	)
	compare := func(old, e *Entry) int {
		before, now := previous.operatorNodes(old), m.operatorNodes(e)
		switch {
		case len(now) == 0:
			return notNow
		case len(before) == 0:
			return isAdded
		case slices.Equal(before, now):
			return isSame
		}
		return isChanged
	}
	var counts [results]int
	known := make(map[[2]*Entry]int) // few entries are those of many prefixes
	for prefix, e := range m.table.AllSorted() {
		pacer.Step()
		old, _ := previous.table.Get(prefix)
		result, ok := known[[2]*Entry{old, e}]
		if !ok {
			result = compare(old, e)
			known[[2]*Entry{old, e}] = result
		}
		counts[result]++
	}
	return counts[isAdded], previous.operators - counts[isSame] - counts[isChanged], counts[isChanged]
}

// operatorNodes returns the nodes that the operator named in an entry, as written.
func (m *Map) operatorNodes(e *Entry) []string {
	if e == nil {
		return nil
	}
	var nodes []string
	for _, c := range e.Claims {
		if name := m.names[c.Node]; c.Operator && c.Negated {
			nodes = append(nodes, "!"+name)
		} else if c.Operator {
			nodes = append(nodes, name)
		}
	}
	return nodes
}
