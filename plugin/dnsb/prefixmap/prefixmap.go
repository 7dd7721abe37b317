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

// Table maps prefixes to entries.
type Table = bart.Table[*Entry]

// Map makes Tables. Use New. Operator prefixes come before registered ones.
type Map struct {
	table     *Table
	published bool // others read the table, or share parts of it
	ids       map[string]NodeID
	names     []string // by NodeID
	entries   map[string]*Entry
	excluded  map[NodeID]bool // by the operator, from some prefix
	operators int             // operator prefixes
	lines     *Lines          // of those in files
}

// New returns an empty Map.
func New() *Map {
	return &Map{table: new(Table), ids: make(map[string]NodeID), entries: make(map[string]*Entry), excluded: make(map[NodeID]bool), lines: new(Lines)}
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

// Lines returns the lines of the operator prefixes in files.
func (m *Map) Lines() *Lines { return m.lines }

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
	m.table.Modify(prefix, func(_ *Entry, ok bool) (*Entry, bool) {
		added = !ok
		return e, false
	})
	if added {
		m.operators++
	}
	return added
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

// Register replaces the prefixes that a node has registered. It reports whether
// the table has changed.
func (m *Map) Register(node string, previous, prefixes []registration.Prefix) bool {
	if slices.Equal(previous, prefixes) {
		return false
	}
	id := m.ID(node)
	changes := make(map[netip.Prefix]*Claim, len(previous)+len(prefixes)) // nil: none any more
	unchanged := make(map[registration.Prefix]bool, len(previous))
	for _, p := range previous {
		changes[p.Prefix] = nil
		unchanged[p] = true
	}
	for _, p := range prefixes {
		if unchanged[p] {
			delete(changes, p.Prefix)
			continue
		}
		changes[p.Prefix] = &Claim{Node: id, Negated: p.Negated}
	}
	m.change(id, changes)
	return len(changes) > 0
}

// change sets the claims of a node, and removes those that are nil.
//
// Of a table that others read, the paths to all prefixes that change are copied at
// once: a copy of the whole table would take twice the memory, and one change
// after the other ten times the time.
func (m *Map) change(id NodeID, changes map[netip.Prefix]*Claim) {
	if !m.published {
		for prefix, c := range changes {
			m.table.Modify(prefix, func(e *Entry, _ bool) (*Entry, bool) {
				e = m.replace(e, id, c)
				return e, e == nil
			})
		}
		return
	}
	changed := new(Table)
	var removed []netip.Prefix
	for prefix, c := range changes {
		e, ok := m.table.Get(prefix)
		switch e = m.replace(e, id, c); {
		case e != nil:
		case !ok:
			continue
		default:
			removed = append(removed, prefix)
		}
		changed.Insert(prefix, e)
	}
	m.table = m.table.UnionPersist(changed)
	for _, prefix := range removed { // in place: the union has copied the paths
		m.table.Delete(prefix)
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

// replace returns an entry with c in place of what the node claimed.
func (m *Map) replace(e *Entry, id NodeID, c *Claim) *Entry {
	var claims []Claim
	if e != nil {
		claims = slices.DeleteFunc(slices.Clone(e.Claims), func(c Claim) bool { return !c.Operator && c.Node == id })
	}
	if c != nil {
		// By name: all DNS-Bs have registrations in the same order.
		i, _ := slices.BinarySearchFunc(claims, *c, func(a, b Claim) int {
			if a.Operator {
				return -1
			}
			return cmp.Compare(m.names[a.Node], m.names[b.Node])
		})
		claims = slices.Insert(claims, i, *c)
	}
	return m.entry(claims)
}

// Compare counts the operator prefixes that differ from those of a previous Map.
func (m *Map) Compare(previous *Map) (added, removed, changed int) {
	same := 0
	for prefix, e := range m.table.All() {
		old, _ := previous.table.Get(prefix)
		before, now := previous.operatorNodes(old), m.operatorNodes(e)
		switch {
		case len(now) == 0:
		case len(before) == 0:
			added++
		case slices.Equal(before, now):
			same++
		default:
			changed++
		}
	}
	return added, previous.operators - same - changed, changed
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
