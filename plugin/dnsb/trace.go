package dnsb

import "net/netip"

// trace records what a search considers, in order. A nil one records nothing,
// and costs a query nothing.
type trace struct {
	steps []step
}

// step is one node that a search considered.
type step struct {
	node   nodeID
	of     *node // as whose deputy; nil: for itself
	layer  layer
	prefix netip.Prefix // zero: the layer has none
	denied bool         // the node said that it is not one for this resolver
	lacks  families     // of which it has no address, though one was looked for
	will   bool         // it would do
}

// begin forgets what an earlier search considered.
func (t *trace) begin() {
	if t != nil {
		t.steps = t.steps[:0]
	}
}

// saw notes that a node was considered, and whether it will do.
func (q *search) saw(id nodeID, of *node, l layer, at netip.Prefix, will bool) {
	st := step{node: id, of: of, layer: l, prefix: at, denied: contains(q.denied, id), will: will}
	if n := q.nodes[id]; n != nil && !n.families.hold(q.family) {
		st.lacks = q.family
	}
	q.trace.steps = append(q.trace.steps, st)
}
