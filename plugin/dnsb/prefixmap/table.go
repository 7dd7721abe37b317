package prefixmap

import (
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
)

// Table maps prefixes to entries. It is immutable once it is published. The prefixes of
// files are in slices without pointers; those that change are in a tree, with all
// of their claims.
type Table struct {
	files   *Files
	entries []*Entry // by text of files; nil: not in the table
	changes *bart.Table[*Entry]
}

func newTable() *Table { return &Table{files: new(Files), changes: new(bart.Table[*Entry])} }

// Lookup returns the entry of the longest prefix that covers an address.
func (t *Table) Lookup(addr netip.Addr) (*Entry, bool) {
	c := t.climb(addr, addr.BitLen())
	e, length, ok := c.entry()
	switch {
	case !ok:
		return t.changes.Lookup(addr)
	case t.changes.Size() == 0:
		return e, true
	}
	if prefix, changed, ok := t.changes.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen())); ok && prefix.Bits() >= length {
		return changed, true
	}
	return e, true
}

// Supernets iterates over the prefixes that cover a prefix, the longest one first. It may
// be one of them.
func (t *Table) Supernets(prefix netip.Prefix) iter.Seq2[netip.Prefix, *Entry] {
	return func(yield func(netip.Prefix, *Entry) bool) {
		c := t.climb(prefix.Addr(), prefix.Bits())
		e, length, more := c.entry()
		for p, changed := range t.changes.Supernets(prefix) {
			for ; more && length >= p.Bits(); e, length, more = c.next() {
				if length > p.Bits() && !yield(netip.PrefixFrom(prefix.Addr(), length).Masked(), e) {
					return
				}
			}
			if !yield(p, changed) {
				return
			}
		}
		for ; more; e, length, more = c.next() {
			if !yield(netip.PrefixFrom(prefix.Addr(), length).Masked(), e) {
				return
			}
		}
	}
}

// Longest returns the longest prefix that covers an address; it is invalid if there is none.
func (t *Table) Longest(addr netip.Addr) netip.Prefix {
	for prefix := range t.Supernets(netip.PrefixFrom(addr, addr.BitLen())) {
		return prefix
	}
	return netip.Prefix{}
}

// Get returns the entry of a prefix.
func (t *Table) Get(prefix netip.Prefix) (*Entry, bool) {
	if e, ok := t.changes.Get(prefix); ok {
		return e, true
	}
	e, _, ok := t.inFiles(prefix)
	return e, ok
}

// inFiles returns the entry of a prefix by the files alone, and its line.
func (t *Table) inFiles(prefix netip.Prefix) (e *Entry, line uint32, ok bool) {
	c := t.climb(prefix.Addr(), prefix.Bits())
	e, length, ok := c.entry()
	if !ok || length != prefix.Bits() {
		return nil, 0, false
	}
	return e, c.line(), true
}

// Position returns the position of an operator prefix in the files: FILE:LINE, or else
// the files.
func (t *Table) Position(prefix netip.Prefix) string {
	if _, line, ok := t.inFiles(prefix); ok {
		return t.files.position(line)
	}
	return t.files.paths()
}

// AllSorted iterates over all prefixes in order: a prefix comes before those in it.
func (t *Table) AllSorted() iter.Seq2[netip.Prefix, *Entry] {
	return func(yield func(netip.Prefix, *Entry) bool) {
		i := 0
		next := func() (p netip.Prefix, e *Entry, more bool) {
			for i < t.files.len() && e == nil {
				var text uint32
				p, text, _ = t.files.at(i)
				e = t.entries[text]
				i++
			}
			return p, e, e != nil
		}
		prefix, e, more := next()
		for p, changed := range t.changes.AllSorted() {
			for ; more && prefix.Compare(p) <= 0; prefix, e, more = next() {
				if prefix != p && !yield(prefix, e) {
					return
				}
			}
			if !yield(p, changed) {
				return
			}
		}
		for ; more; prefix, e, more = next() {
			if !yield(prefix, e) {
				return
			}
		}
	}
}

// climber is at a prefix of the files, and goes to shorter ones that cover it.
type climber struct {
	table *Table
	six   bool
	i     int32
}

// climb returns a climber at the longest prefix up to a length that covers an address.
func (t *Table) climb(addr netip.Addr, length int) climber {
	if addr.Is4() {
		return climber{t, false, t.files.four.covering(ipnum.FromV4(addr), length)}
	}
	return climber{t, true, t.files.six.covering(ipnum.FromV6(addr), length)}
}

// entry returns the entry of the prefix, or of the first one above that has one, and its
// length. It is not ok at the end.
func (c *climber) entry() (e *Entry, length int, ok bool) {
	if c.six {
		return climbTo(&c.table.files.six, c.table.entries, &c.i)
	}
	return climbTo(&c.table.files.four, c.table.entries, &c.i)
}

// next is entry of the prefix above.
func (c *climber) next() (e *Entry, length int, ok bool) {
	if c.six {
		c.i = c.table.files.six.rest[c.i].outer
	} else {
		c.i = c.table.files.four.rest[c.i].outer
	}
	return c.entry()
}

func (c *climber) line() uint32 {
	if c.six {
		return c.table.files.six.line[c.i]
	}
	return c.table.files.four.line[c.i]
}

// climbTo sets i to the first prefix from there on that has an entry.
func climbTo[A ipnum.Number[A]](f *flat[A], entries []*Entry, i *int32) (e *Entry, length int, ok bool) {
	for *i != none {
		rest := f.rest[*i]
		if e := entries[rest.text]; e != nil {
			return e, int(rest.length), true
		}
		*i = rest.outer
	}
	return nil, 0, false
}
