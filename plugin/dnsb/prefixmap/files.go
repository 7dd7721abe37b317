package prefixmap

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ipnum"
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
)

// Files are map files as they were read: 20 bytes for an IPv4 prefix and 32 for an IPv6
// one. They are immutable, and several Maps can be made of them.
type Files struct {
	files []file
	texts []string // the nodes, or the group, of prefixes; each text once
	four  flat[ipnum.V4]
	six   flat[ipnum.V6]
}

// file is one of the Files.
type file struct {
	path   string
	before uint32 // lines of the files before this one
	rules  []ruleLine
	failed []corefile.LineError // of lines that are not of any form
}

// ruleLine is a line with a rule.
type ruleLine struct {
	number int
	words  []string
}

// Read reads map files. Their lines are
//
//	PREFIX [!]NODE...
//	PREFIX GROUP
//	RULE...
//
// in any order. A '#' begins a comment. isRule reports whether a line that begins with a
// word is a rule. What is wrong with lines, AddFiles tells.
func Read(paths []string, isRule func(word string) bool, pacer *pacing.Pacer) (*Files, error) {
	r := fileReader{files: new(Files), isRule: isRule, pacer: pacer, known: make(map[string]uint32)}
	var failed []error
	for _, path := range paths {
		content, err := inputfile.ReadText(path)
		if err != nil {
			failed = append(failed, fmt.Errorf("read map file: %w", err))
			continue
		}
		r.read(path, content)
	}
	if err := corefile.Join(failed...); err != nil {
		return nil, err
	}
	r.files.four, r.files.six = newFlat(r.four, pacer), newFlat(r.six, pacer)
	return r.files, nil
}

// fileReader reads files, one after the other.
type fileReader struct {
	files       *Files
	isRule      func(word string) bool
	pacer       *pacing.Pacer
	lines       uint32            // of all files so far
	linesToCome int               // in the file, the current one included
	known       map[string]uint32 // indexes of texts
	text        []byte            // scratch space
	four        []flatItem[ipnum.V4]
	six         []flatItem[ipnum.V6]
}

func (r *fileReader) read(path string, content []byte) {
	f := file{path: path, before: r.lines}
	lines := bytes.Count(content, []byte("\n")) + 1
	_ = corefile.EachLine(path, content, func(number int, words []string) error {
		r.pacer.Step()
		r.linesToCome = lines - number + 1
		if r.isRule(words[0]) {
			f.rules = append(f.rules, ruleLine{number, slices.Clone(words)})
		} else if err := r.addPrefix(words, f.before+uint32(number)); err != nil { // #nosec G115 -- lines
			f.failed = append(f.failed, corefile.LineError{Number: number, Err: err})
			return err
		}
		r.lines = max(r.lines, f.before+uint32(number)) // #nosec G115 -- lines
		return nil
	})
	r.files.files = append(r.files.files, f)
}

// addPrefix adds the prefix of a line.
func (r *fileReader) addPrefix(words []string, line uint32) error {
	prefix, err := corefile.Prefix(words[0])
	if err != nil {
		return err
	}
	if len(words) < 2 {
		return fmt.Errorf("no node for %s, expected 'PREFIX NODE...'", prefix)
	}
	r.text = r.text[:0]
	for i, word := range words[1:] {
		if i > 0 {
			r.text = append(r.text, ' ')
		}
		r.text = append(r.text, word...)
	}
	text, ok := r.known[string(r.text)]
	if !ok {
		text = uint32(len(r.files.texts)) // #nosec G115 -- fewer than lines
		r.known[string(r.text)] = text
		r.files.texts = append(r.files.texts, string(r.text))
	}
	length := uint8(prefix.Bits()) // #nosec G115 -- at most 128
	if addr := prefix.Addr(); addr.Is4() {
		r.four = append(grown(r.four, r.linesToCome), flatItem[ipnum.V4]{ipnum.FromV4(addr), text, line, length})
	} else {
		r.six = append(grown(r.six, r.linesToCome), flatItem[ipnum.V6]{ipnum.FromV6(addr), text, line, length})
	}
	return nil
}

// grown returns items with space for one more of at most toCome that come. It doubles
// the space, but for the last time: a quarter more each time, as append takes, would make
// five times as much garbage as there are items, and a peak of memory.
func grown[T any](items []T, toCome int) []T {
	if len(items) < cap(items) {
		return items
	}
	larger := make([]T, len(items), len(items)+min(toCome, max(len(items), 1024)))
	copy(larger, items)
	return larger
}

// len returns the number of prefixes.
func (f *Files) len() int { return len(f.four.first) + len(f.six.first) }

// at returns a prefix by its number: IPv4 comes first, and then each in order.
func (f *Files) at(i int) (prefix netip.Prefix, text, line uint32) {
	if n := len(f.four.first); i >= n {
		i -= n
		return f.six.prefix(int32(i)), f.six.rest[i].text, f.six.line[i] // #nosec G115 -- an index
	}
	return f.four.prefix(int32(i)), f.four.rest[i].text, f.four.line[i] // #nosec G115 -- an index
}

// fileOf returns the file with a line, and the number of the line in it.
func (f *Files) fileOf(line uint32) (index, number int) {
	for i := len(f.files) - 1; i > 0; i-- {
		if before := f.files[i].before; before < line {
			return i, int(line - before)
		}
	}
	return 0, int(line)
}

// position returns the position of a line: FILE:LINE.
func (f *Files) position(line uint32) string {
	i, number := f.fileOf(line)
	return f.files[i].path + ":" + strconv.Itoa(number)
}

// paths returns those of all files.
func (f *Files) paths() string {
	paths := make([]string, len(f.files))
	for i := range f.files {
		paths[i] = f.files[i].path
	}
	return strings.Join(paths, ", ")
}
