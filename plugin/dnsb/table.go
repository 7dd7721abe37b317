package dnsb

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
)

// nodeID is the number of a node in the tables of one instance.
type nodeID int32

// entry is what is known of one prefix: whom to ask, the operator's nodes
// before those that registered. Equal entries are one entry.
type entry struct {
	claims []claim
}

// claim is the word of an operator or of a node on one prefix. A negated one
// means "not this node", for all that no longer prefix of that node covers.
type claim struct {
	node     nodeID
	operator bool
	negated  bool
}

// derived is what follows from the prefixes of a node.
type derived struct {
	negates bool        // some are negated
	parts   []shownPart // nil: they fit one message
}

func derive(r *registration.Registration) derived {
	return derived{
		negates: slices.ContainsFunc(r.Prefixes, func(p registration.Prefix) bool { return p.Negated }),
		parts:   shownParts(r),
	}
}

// tables holds the prefix table of one instance and brings it up to date. Not
// safe for concurrent use; what publish returned may be read at any time.
type tables struct {
	prefixes  *bart.Table[*entry]
	published bool // others read prefixes, or what it shares with one before
	ids       map[string]nodeID
	names     []string // by nodeID
	entries   map[string]*entry
	registers map[string]*registration.Registration // what is in the table of each node
	derived   map[string]derived                    // from that
	barred    map[nodeID]bool                       // by the operator, somewhere
	operators int                                   // prefixes that the operator wrote
	geo       geodb.Table[geoRule]                  // the zero value: there are no databases
}

// newTables returns the table of what the operator wrote: the lines of the
// server block, and the files that it names.
func newTables(conf *config) (*tables, error) {
	t := &tables{
		prefixes:  new(bart.Table[*entry]),
		ids:       make(map[string]nodeID),
		entries:   make(map[string]*entry),
		barred:    make(map[nodeID]bool),
		registers: make(map[string]*registration.Registration),
		derived:   make(map[string]derived),
	}
	rules := newGeoRules()
	for _, fields := range conf.geoRules {
		if err := rules.add(t, fields); err != nil {
			return nil, err
		}
	}
	if err := t.read(conf, rules); err != nil {
		return nil, err
	}
	if err := rules.check(conf); err != nil {
		return nil, err
	}
	if len(conf.databases) > 0 {
		var err error
		if t.geo, err = geodb.Load(conf.databases, rules.Rules); err != nil {
			return nil, fmt.Errorf("mmdb: %w", err)
		}
	}
	for _, op := range conf.prefixes { // these win
		t.prefixes.Insert(op.prefix, t.operator(op.nodes))
	}
	t.operators = t.prefixes.Size()
	return t, nil
}

// operator returns the entry for a list of nodes that the operator wrote; '!' bars
// one.
func (t *tables) operator(nodes []string) *entry {
	claims := make([]claim, len(nodes))
	for i, node := range nodes {
		bare, negated := strings.CutPrefix(node, "!")
		claims[i] = claim{node: t.id(bare), operator: true, negated: negated}
		if negated {
			t.barred[claims[i].node] = true
		}
	}
	return t.entry(claims)
}

// id returns the number of a node, a new one if it has none.
func (t *tables) id(node string) nodeID {
	id, ok := t.ids[node]
	if !ok {
		id = nodeID(len(t.names)) // #nosec G115 -- as many as there are nodes
		t.ids[node] = id
		t.names = append(t.names, node)
	}
	return id
}

// entry returns the one entry with these claims, nil if there are none.
func (t *tables) entry(claims []claim) *entry {
	if len(claims) == 0 {
		return nil
	}
	var key []byte
	for _, c := range claims {
		flags := byte(0)
		if c.operator {
			flags |= 1
		}
		if c.negated {
			flags |= 2
		}
		key = append(binary.AppendUvarint(key, uint64(c.node)), flags) // #nosec G115 -- not negative
	}
	e, ok := t.entries[string(key)]
	if !ok {
		e = &entry{claims: slices.Clone(claims)}
		t.entries[string(key)] = e
	}
	return e
}

// register makes the prefixes of r those that its node claims; r is nil when it
// claims none. It reports whether the table changed.
func (t *tables) register(node string, r *registration.Registration) bool {
	old := t.registers[node]
	if old == r {
		return false
	}
	var was, is []registration.Prefix
	if old != nil {
		was = old.Prefixes
	}
	if r != nil {
		is = r.Prefixes
		t.registers[node], t.derived[node] = r, derive(r)
	} else {
		delete(t.registers, node)
		delete(t.derived, node)
	}
	if slices.Equal(was, is) {
		return false
	}

	changes := make(map[netip.Prefix]*claim, len(was)+len(is))
	id := t.id(node)
	for _, p := range was {
		changes[p.Prefix] = nil
	}
	stays := make(map[registration.Prefix]bool, len(was))
	for _, p := range was {
		stays[p] = true
	}
	for _, p := range is {
		if stays[p] {
			delete(changes, p.Prefix)
			continue
		}
		changes[p.Prefix] = &claim{node: id, negated: p.Negated}
	}
	t.change(id, changes)
	return len(changes) > 0
}

// change sets the claims of a node, or takes them away where they are nil.
//
// Of a table that others read, the paths to the prefixes that change are copied,
// all at once and each once: a copy of the whole would take twice the memory, and
// one change after the other ten times the time.
func (t *tables) change(id nodeID, changes map[netip.Prefix]*claim) {
	if !t.published {
		for prefix, c := range changes {
			t.prefixes.Modify(prefix, func(e *entry, _ bool) (*entry, bool) {
				e = t.with(e, id, c)
				return e, e == nil
			})
		}
		return
	}
	altered := new(bart.Table[*entry])
	var gone []netip.Prefix
	for prefix, c := range changes {
		e, ok := t.prefixes.Get(prefix)
		switch e = t.with(e, id, c); {
		case e != nil:
		case !ok:
			continue
		default:
			gone = append(gone, prefix)
		}
		altered.Insert(prefix, e)
	}
	t.prefixes = t.prefixes.UnionPersist(altered)
	for _, prefix := range gone { // in place: the union has copied what leads there
		t.prefixes.Delete(prefix)
	}
}

// publish returns the table for others to read: it does not change any more.
func (t *tables) publish() *bart.Table[*entry] {
	t.published = true
	return t.prefixes
}

// with returns an entry with c in the place of what the node claimed before.
func (t *tables) with(e *entry, id nodeID, c *claim) *entry {
	var claims []claim
	if e != nil {
		claims = slices.DeleteFunc(slices.Clone(e.claims), func(c claim) bool { return !c.operator && c.node == id })
	}
	if c != nil {
		// Two DNS-Bs put registrations into the same order, whichever came first.
		i, _ := slices.BinarySearchFunc(claims, *c, func(a, b claim) int {
			switch {
			case a.operator:
				return -1
			default:
				return cmp.Compare(t.names[a.node], t.names[b.node])
			}
		})
		claims = slices.Insert(claims, i, *c)
	}
	return t.entry(claims)
}
