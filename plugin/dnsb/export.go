package dnsb

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"
)

// exportEvery is how often the file is written at most: it is for people and for
// other servers to start from, and a large map takes a while.
const exportEvery = time.Minute

// keepExported keeps a file up to date with the map, until ctx ends. It is not
// written as long as nodes may yet come back after a start: the file of before
// knows more.
func (d *DNSB) keepExported(ctx context.Context) {
	ticker := time.NewTicker(exportEvery)
	defer ticker.Stop()
	var last *snapshot
	for {
		if s := d.snapshot.Load(); !time.Now().Before(s.coldUntil) && !s.sameMap(last) {
			if err := s.exportTo(d.conf.export); err != nil {
				log.Errorf("The map cannot be exported: %s", err)
			} else {
				last = s
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// sameMap reports whether a file with the map of other needs no change.
func (s *snapshot) sameMap(other *snapshot) bool {
	if other == nil || s.prefixes != other.prefixes || s.geo != other.geo || (s.overrides.pins == nil) != (other.overrides.pins == nil) {
		return false
	}
	if s.overrides.pins == nil {
		return true
	}
	for prefix, p := range s.overrides.pins.All() {
		if was, ok := other.overrides.pins.Get(prefix); !ok || !slices.Equal(was.nodes, p.nodes) {
			return false
		}
	}
	return s.overrides.pins.Size() == other.overrides.pins.Size()
}

// exportTo writes the map into a file, which is there in whole or as before.
func (s *snapshot) exportTo(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone when all went well
	w := bufio.NewWriterSize(f, 1<<16)
	s.exportMap(w)
	err = w.Flush()
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// option is a node that is tried for the resolvers of a prefix.
type option struct {
	node nodeID
	in   layer
}

// options returns the nodes that are tried for the resolvers of a prefix before
// the layers that no prefix belongs to, and those that are not to be tried there.
func (s *snapshot) options(prefix netip.Prefix) (list []option, denied []nodeID) {
	add := func(id nodeID, l layer) {
		if !slices.Contains(denied, id) && !slices.ContainsFunc(list, func(o option) bool { return o.node == id }) {
			list = append(list, option{id, l})
		}
	}
	if s.overrides.pins != nil {
		for _, pin := range s.overrides.pins.Supernets(prefix) {
			for _, id := range pin.nodes {
				add(id, layerPin)
			}
		}
	}
	for _, e := range s.prefixes.Supernets(prefix) {
		for _, c := range e.Claims {
			switch {
			case c.Negated:
				denied = append(denied, c.Node)
			case c.Operator:
				add(c.Node, layerOperator)
			default:
				add(c.Node, layerRegistration)
			}
		}
	}
	if s.geo != nil {
		if where, ok := s.geo.LookupPrefix(prefix); ok {
			for i, r := range rulesOf(where) {
				if r == nil {
					continue
				}
				for _, id := range r.nodes {
					add(id, layerASN+layer(i)) // #nosec G115 -- three
				}
			}
		}
	}
	return list, denied
}

// covering is a prefix whose longer ones are being exported.
type covering struct {
	prefix  netip.Prefix
	options []option
	barred  []nodeID // by its line, and those of the prefixes around it
}

// exportMap writes the lines of a map file by which resolvers are referred like
// here: pins, prefixes and what the databases say, each prefix with all of its
// nodes that the lines of the prefixes around it do not name just so.
func (s *snapshot) exportMap(w io.Writer) {
	fmt.Fprintf(w, "# The map of %s with serial %d, written by dnsb.\n# The comments name the layers that the nodes are from.\n", s.conf.zone, s.serial)
	var around []covering
	for prefix := range s.allPrefixes() {
		for len(around) > 0 && !covers(around[len(around)-1].prefix, prefix) {
			around = around[:len(around)-1]
		}
		var up covering
		if len(around) > 0 {
			up = around[len(around)-1]
		}
		list, denied := s.options(prefix)
		var bars []nodeID
		for _, id := range denied {
			if !isNamed(list, id) && !slices.Contains(bars, id) && (!slices.Contains(up.barred, id) || isNamed(up.options, id)) {
				bars = append(bars, id)
			}
		}
		own := list[:ownLength(list, bars, up.options)]
		if len(own)+len(bars) > 0 {
			s.exportLine(w, prefix, own, bars)
		}
		around = append(around, covering{prefix, list, append(slices.Clip(up.barred), bars...)})
	}
}

func isNamed(list []option, id nodeID) bool {
	return slices.ContainsFunc(list, func(o option) bool { return o.node == id })
}

// ownLength returns how many nodes of a list a line must name, when those of the
// prefix around it come after it.
func ownLength(list []option, bars []nodeID, around []option) int {
	for n := range list {
		rest := list[n:]
		for _, o := range around {
			if slices.Contains(bars, o.node) || isNamed(list[:n], o.node) {
				continue
			}
			if len(rest) == 0 || rest[0].node != o.node {
				rest = list // differs
				break
			}
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return n
		}
	}
	return len(list)
}

func (s *snapshot) exportLine(w io.Writer, prefix netip.Prefix, own []option, bars []nodeID) {
	words := []string{prefix.String()}
	var layers []string
	for _, o := range own {
		words = append(words, s.names[o.node])
		if l := o.in.String(); !slices.Contains(layers, l) {
			layers = append(layers, l)
		}
	}
	for _, id := range bars {
		words = append(words, "!"+s.names[id])
	}
	words = append(words, "#")
	words = append(words, layers...)
	if len(bars) > 0 {
		words = append(words, "denied")
	}
	_, _ = io.WriteString(w, strings.Join(words, " ")+"\n") // the writer keeps the error
}

// allPrefixes returns the prefixes that somebody named something for, each once,
// shorter ones before those in them.
func (s *snapshot) allPrefixes() iter.Seq[netip.Prefix] {
	return merged(merged(sorted(s.prefixes), sorted(s.geo)), sorted(s.overrides.pins))
}

func covers(around, prefix netip.Prefix) bool {
	return around.Bits() <= prefix.Bits() && around.Contains(prefix.Addr())
}

// sorted returns the prefixes of a table in order.
func sorted[V any](t *bart.Table[V]) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		if t == nil {
			return
		}
		for prefix := range t.AllSorted() {
			if !yield(prefix) {
				return
			}
		}
	}
}

// merged returns the prefixes of two sequences in order as one, each once.
func merged(a, b iter.Seq[netip.Prefix]) iter.Seq[netip.Prefix] {
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
