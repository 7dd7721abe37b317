package prefixmap

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// Grammar says what lines of map files mean that no prefix alone decides.
type Grammar struct {
	// NodeName returns the name of a node as written, and an error for one that no
	// line may name.
	NodeName func(text string) (string, error)
	// IsRule reports whether a line that begins with word is a rule.
	IsRule func(word string) bool
	// AddRule adds a rule.
	AddRule func(words []string) error
	// Group returns the entry of a group of nodes, nil if no rule defines the
	// group. ok is false if name is not the name of a group.
	Group func(name string) (e *Entry, ok bool)
}

// Files are map files as they were read.
type Files struct {
	paths    []string
	contents [][]byte
}

// Read reads map files.
func Read(paths []string) (Files, error) {
	f := Files{paths, make([][]byte, len(paths))}
	for i, path := range paths {
		var err error
		if f.contents[i], err = inputfile.ReadText(path); err != nil {
			return Files{}, fmt.Errorf("read map file: %w", err)
		}
	}
	return f, nil
}

// AddFiles adds the operator prefixes of map files. Their lines are
//
//	PREFIX [!]NODE...
//	PREFIX GROUP
//	RULE...
//
// in any order; a rule holds for the lines of all files. Prefixes of a group that
// no rule defines are ignored. A '#' begins a comment. An error names the file
// and the line.
func (m *Map) AddFiles(f Files, g Grammar) error {
	for i, path := range f.paths {
		err := corefile.EachLine(path, f.contents[i], func(_ int, words []string) error {
			if !g.IsRule(words[0]) {
				return nil
			}
			return g.AddRule(words)
		})
		if err != nil {
			return err
		}
	}
	r := lineReader{m, g, make(map[string]*Entry)}
	lines := 0
	for i, path := range f.paths {
		count := bytes.Count(f.contents[i], []byte("\n")) + 1
		m.lines.addFile(path, count, lines)
		lines += count
		if err := corefile.EachLine(path, f.contents[i], r.read); err != nil {
			return err
		}
	}
	m.lines.finish()
	return nil
}

// lineReader reads lines that begin with a prefix.
type lineReader struct {
	m       *Map
	grammar Grammar
	entries map[string]*Entry // by nodes as written: few lists are on many lines
}

func (r lineReader) read(number int, words []string) error {
	if r.grammar.IsRule(words[0]) {
		return nil
	}
	prefix, err := corefile.Prefix(words[0])
	if err != nil {
		return err
	}
	if len(words) < 2 {
		return fmt.Errorf("no node for %s, expected 'PREFIX NODE...'", prefix)
	}
	e, err := r.entry(words[1:])
	if err != nil || e == nil {
		return err
	}
	if !r.m.Add(prefix, e) {
		return corefile.Twice("prefix "+prefix.String(), "put all its nodes on one line, best first")
	}
	r.m.lines.add(prefix, number)
	return nil
}

// entry returns the entry for nodes or a group, nil for a group that no rule
// defines.
func (r lineReader) entry(nodes []string) (*Entry, error) {
	if len(nodes) == 1 {
		if e, ok := r.grammar.Group(nodes[0]); ok {
			return e, nil
		}
	}
	key := strings.Join(nodes, " ")
	if e, ok := r.entries[key]; ok {
		return e, nil
	}
	names := make([]string, len(nodes))
	for i, node := range nodes {
		names[i] = strings.TrimPrefix(node, "!")
	}
	names, err := NodeNames(names, r.grammar.NodeName)
	if err != nil {
		return nil, err
	}
	for i, node := range nodes {
		if strings.HasPrefix(node, "!") {
			names[i] = "!" + names[i]
		}
	}
	e := r.m.OperatorEntry(names)
	r.entries[key] = e
	return e, nil
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
