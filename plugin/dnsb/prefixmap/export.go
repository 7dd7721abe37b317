package prefixmap

import (
	"bufio"
	"io"
	"iter"
	"net/netip"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

// Named is a node that is named for a prefix.
type Named struct {
	Node   NodeID
	Source string // one word, which goes into the comment of the line
}

// Lookup returns the nodes that are named for all of a prefix, best first and
// each once, and the nodes that are excluded from it.
type Lookup func(netip.Prefix) (nodes []Named, excluded []NodeID)

// Export writes a map file by which the addresses in prefixes have the same nodes
// as by lookup. A line names only nodes that the lines of covering prefixes do
// not name in the same place. names are those of the nodes, by NodeID; prefixes
// come from Prefixes or Merge.
func Export(w io.Writer, names []string, prefixes iter.Seq[netip.Prefix], lookup Lookup) error {
	out := bufio.NewWriterSize(w, 1<<16)
	var (
		covering []exported // the shortest prefix first
		line     []byte
		pacer    pacing.Pacer
	)
	for prefix := range prefixes {
		pacer.Step()
		for len(covering) > 0 && !dnsmsg.Covers(covering[len(covering)-1].prefix, prefix) {
			covering = covering[:len(covering)-1]
		}
		var outer exported
		if len(covering) > 0 {
			outer = covering[len(covering)-1]
		}
		nodes, excluded := lookup(prefix)
		exclude := outer.exclude(nodes, excluded)
		first := nodes[:outer.needed(nodes, exclude)]
		if len(first)+len(exclude) > 0 {
			line = appendLine(line[:0], prefix, names, first, exclude)
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		covering = append(covering, exported{prefix, nodes, append(slices.Clip(outer.excluded), exclude...)})
	}
	return out.Flush()
}

// exported is a prefix that may cover those that follow.
type exported struct {
	prefix   netip.Prefix
	nodes    []Named
	excluded []NodeID // by its line and those of the prefixes that cover it
}

// exclude returns the nodes that the line of a prefix in e must exclude.
func (e exported) exclude(nodes []Named, excluded []NodeID) []NodeID {
	var out []NodeID
	for _, id := range excluded {
		if !contains(nodes, id) && !slices.Contains(out, id) && (!slices.Contains(e.excluded, id) || contains(e.nodes, id)) {
			out = append(out, id)
		}
	}
	return out
}

// needed returns how many of the nodes the line of a prefix in e must name, if
// the nodes of e come after them.
func (e exported) needed(nodes []Named, exclude []NodeID) int {
	for n := range nodes {
		rest := nodes[n:]
		for _, outer := range e.nodes {
			if slices.Contains(exclude, outer.Node) || contains(nodes[:n], outer.Node) {
				continue
			}
			if len(rest) == 0 || rest[0].Node != outer.Node {
				rest = nodes // another order
				break
			}
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return n
		}
	}
	return len(nodes)
}

func contains(nodes []Named, id NodeID) bool {
	return slices.ContainsFunc(nodes, func(n Named) bool { return n.Node == id })
}

// appendLine appends a line of a map file. Its comment has the sources of nodes.
func appendLine(line []byte, prefix netip.Prefix, names []string, nodes []Named, exclude []NodeID) []byte {
	line = prefix.AppendTo(line)
	for _, n := range nodes {
		line = append(append(line, ' '), names[n.Node]...)
	}
	for _, id := range exclude {
		line = append(append(line, " !"...), names[id]...)
	}
	line = append(line, " #"...)
	for i, n := range nodes {
		if !slices.ContainsFunc(nodes[:i], func(other Named) bool { return other.Source == n.Source }) {
			line = append(append(line, ' '), n.Source...)
		}
	}
	if len(exclude) > 0 {
		line = append(line, " denied"...)
	}
	return append(line, '\n')
}

// Prefixes returns the prefixes of a sequence.
func Prefixes[V any](all iter.Seq2[netip.Prefix, V]) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for prefix := range all {
			if !yield(prefix) {
				return
			}
		}
	}
}

// Merge returns the prefixes of two sequences in order as one, each once.
func Merge(a, b iter.Seq[netip.Prefix]) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		next, stop := iter.Pull(b)
		defer stop()
		other, more := next()
		for prefix := range a {
			for more && other.Compare(prefix) < 0 {
				if !yield(other) {
					return
				}
				other, more = next()
			}
			if more && other == prefix {
				other, more = next()
			}
			if !yield(prefix) {
				return
			}
		}
		for more {
			if !yield(other) {
				return
			}
			other, more = next()
		}
	}
}
