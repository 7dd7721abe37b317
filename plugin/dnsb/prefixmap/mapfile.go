package prefixmap

import (
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
)

// Grammar says what lines of map files mean that no prefix alone decides.
type Grammar struct {
	// NodeName returns the name of a node as written, and an error for one that no
	// line may name.
	NodeName func(text string) (string, error)
	// AddRule adds a rule.
	AddRule func(words []string) error
	// Group returns the entry of a group of nodes, nil if no rule defines the
	// group. ok is false if name is not the name of a group.
	Group func(name string) (e *Entry, ok bool)
}

// AddFiles adds the operator prefixes of map files to a Map without prefixes. A rule holds
// for the lines of all files. Prefixes of a group that no rule defines are ignored. An
// error names the file and the line.
func (m *Map) AddFiles(f *Files, g Grammar) error {
	wrong := make([][]corefile.LineError, len(f.files))
	for i, file := range f.files {
		wrong[i] = slices.Clone(file.failed)
		for _, rule := range file.rules {
			if err := g.AddRule(slices.Clone(rule.words)); err != nil {
				wrong[i] = append(wrong[i], corefile.LineError{Number: rule.number, Err: err})
			}
		}
	}
	m.table.files, m.table.entries = f, make([]*Entry, len(f.texts))
	failed := make(map[uint32]error) // by text
	for text, nodes := range f.texts {
		var err error
		if m.table.entries[text], err = m.entryOf(strings.Fields(nodes), g); err != nil {
			failed[uint32(text)] = err // #nosec G115 -- an index
		}
	}
	c := checker{files: f, entries: m.table.entries, texts: failed, errors: wrong}
	m.operators = checkFlat(&c, &f.four) + checkFlat(&c, &f.six)
	all := make([]error, len(f.files))
	for i, file := range f.files {
		all[i] = corefile.AtLines(file.path, c.errors[i])
	}
	return corefile.Join(all...)
}

// entryOf returns the entry for nodes or a group, nil for a group that no rule defines.
func (m *Map) entryOf(nodes []string, g Grammar) (*Entry, error) {
	if len(nodes) == 1 {
		if e, ok := g.Group(nodes[0]); ok {
			return e, nil
		}
	}
	names := make([]string, len(nodes))
	for i, node := range nodes {
		names[i] = strings.TrimPrefix(node, "!")
	}
	names, err := NodeNames(names, g.NodeName)
	if err != nil {
		return nil, err
	}
	for i, node := range nodes {
		if strings.HasPrefix(node, "!") {
			names[i] = "!" + names[i]
		}
	}
	return m.OperatorEntry(names), nil
}

// checker finds the errors of lines with prefixes.
type checker struct {
	files   *Files
	entries []*Entry
	texts   map[uint32]error
	errors  [][]corefile.LineError // by file
}

// add adds the error of a line.
func (c *checker) add(line uint32, err error) {
	i, number := c.files.fileOf(line)
	c.errors[i] = append(c.errors[i], corefile.LineError{Number: number, Err: err})
}

// checkFlat checks the lines of one family, and counts the prefixes that have an entry.
func checkFlat[A ipnum.Number[A]](c *checker, f *flat[A]) (prefixes int) {
	for i, rest := range f.rest {
		if c.entries[rest.text] == nil {
			if err := c.texts[rest.text]; err != nil {
				c.add(f.line[i], err)
			}
			continue
		}
		prefixes++
		for o := rest.outer; o != none && f.rest[o].length == rest.length && f.first[o] == f.first[i]; o = f.rest[o].outer {
			if c.entries[f.rest[o].text] != nil {
				prefix := f.prefix(int32(i)) // #nosec G115 -- an index
				c.add(f.line[i], corefile.Twice("prefix "+prefix.String(), "put all its nodes on one line, best first"))
				break
			}
		}
	}
	return prefixes
}

// NodeNames returns the names of nodes by Grammar.NodeName. It is an error to name
// one twice.
func NodeNames(nodes []string, name func(text string) (string, error)) ([]string, error) {
	names := make([]string, len(nodes))
	for i, node := range nodes {
		var err error
		if names[i], err = name(node); err != nil {
			return nil, err
		}
		if slices.Contains(names[:i], names[i]) {
			return nil, corefile.Twice("node '"+node+"'", "name it once")
		}
	}
	return names, nil
}
