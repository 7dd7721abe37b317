package corefile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/coredns/caddy/caddyfile"
)

// Property is a kind of line. Its name is the first word of the line.
type Property struct {
	Name    string
	Usage   string           // form of the line, such as "ttl LOW HIGH"
	Example string           // a line; "" if the usage says enough
	Many    bool             // may be given on several lines
	Needs   []string         // properties that must be given beside this one
	Parse   func(Line) error // ErrUsage: the arguments do not have the form of Usage
}

// Line is one line of a block or a file.
type Line struct {
	At       Position
	Property string
	Args     []string
}

// ErrUsage says that the arguments of a line do not have the form of its usage.
var ErrUsage = errors.New("unexpected arguments")

// NoArguments returns a Parse function for a property without arguments.
func NoArguments(parse func()) func(Line) error {
	return func(l Line) error {
		if len(l.Args) > 0 {
			return ErrUsage
		}
		parse()
		return nil
	}
}

// Reader reads lines and remembers where each property was given first.
type Reader struct {
	properties []Property
	given      map[string]Position
	unknown    bool // a line has a property that does not exist
}

// NewReader returns a Reader of lines that have these properties.
func NewReader(properties []Property) *Reader {
	return &Reader{properties: properties, given: make(map[string]Position)}
}

// ReadBlock reads the lines of a block. It returns the errors of all lines, each
// with the position of its line.
func (r *Reader) ReadBlock(d *caddyfile.Dispenser) error {
	return r.readAll(d, d.NextBlock).asError()
}

// ReadFile reads all lines of a file, and returns errors as ReadBlock does.
func (r *Reader) ReadFile(path string, content []byte) error {
	if !plain(content) {
		d := caddyfile.NewDispenser(path, bytes.NewReader(content))
		return r.readAll(&d, d.Next).asError()
	}
	var failed Errors
	number := 0
	for line := range bytes.Lines(content) {
		number++
		if words := wordsOf(string(line)); len(words) > 0 {
			failed = r.add(failed, Line{Position{path, number}, words[0], words[1:]})
		}
	}
	return failed.asError()
}

// plain reports whether words of a file are what is between spaces, as in all files that
// are large: the tokens of a Dispenser take thirty times the space of their text.
func plain(content []byte) bool {
	return !bytes.ContainsAny(content, "\"{\ufeff") && utf8.Valid(content) && bytes.Count(content, []byte("\r")) == bytes.Count(content, []byte("\r\n"))
}

// wordsOf returns the words of a line of a plain file. As in a Corefile, '#' begins a
// comment at the start of a word, and only hides the rest of the word within one.
func wordsOf(line string) []string {
	words := strings.Fields(line)
	for i, word := range words {
		if words[i], _, _ = strings.Cut(word, "#"); words[i] == "" {
			return words[:i]
		}
	}
	return words
}

// readAll reads all lines and returns their errors.
func (r *Reader) readAll(d *caddyfile.Dispenser, next func() bool) (failed Errors) {
	for next() {
		failed = r.add(failed, Line{PositionOf(d), d.Val(), d.RemainingArgs()})
	}
	return failed
}

// add reads a line, and appends its error to those of others.
func (r *Reader) add(failed Errors, l Line) Errors {
	if err := r.read(l); err != nil && !failed.full() {
		failed = append(failed, err)
	}
	return failed
}

func (r *Reader) read(l Line) error {
	p, ok := r.property(l.Property)
	if !ok {
		r.unknown = true
		return l.At.Errorf("%w", Unknown("property", l.Property, r.names()))
	}
	if _, ok := r.given[p.Name]; !ok {
		r.given[p.Name] = l.At
	} else if !p.Many {
		return l.At.Errorf("%w", Twice("'"+p.Name+"'", "keep one line"))
	}
	err := p.Parse(l)
	switch {
	case errors.Is(err, ErrUsage) && p.Example != "":
		return l.At.Errorf("expected '%s', for example '%s'", p.Usage, p.Example)
	case errors.Is(err, ErrUsage):
		return l.At.Errorf("expected '%s'", p.Usage)
	case err != nil:
		return l.At.Errorf("%w", err)
	}
	return nil
}

func (r *Reader) property(name string) (Property, bool) {
	i := slices.IndexFunc(r.properties, func(p Property) bool { return p.Name == name })
	if i < 0 {
		return Property{}, false
	}
	return r.properties[i], true
}

func (r *Reader) names() []string {
	names := make([]string, len(r.properties))
	for i, p := range r.properties {
		names[i] = p.Name
	}
	return names
}

// Given returns the position of the first line with a property, and whether there
// is one.
func (r *Reader) Given(property string) (Position, bool) {
	at, ok := r.given[property]
	return at, ok
}

// Lacks reports whether a property was not given. While a line has an unknown property,
// nothing is lacking: that one may be misspelled.
func (r *Reader) Lacks(property string) bool {
	_, given := r.given[property]
	return !given && !r.unknown
}

// CheckNeeds returns an error for each property that was given without one that it
// needs, see Lacks.
func (r *Reader) CheckNeeds() error {
	var failed Errors
	for _, p := range r.properties {
		at, ok := r.given[p.Name]
		if !ok {
			continue
		}
		for _, name := range p.Needs {
			if !r.Lacks(name) {
				continue
			}
			needed, _ := r.property(name)
			failed = append(failed, at.Errorf("'%s' needs '%s': add '%s'", p.Name, name, needed.Usage))
		}
	}
	return failed.asError()
}

// Unknown returns the error for a word that is not one of the known ones; kind
// says what it should be, such as "property" or "option".
func Unknown(kind, word string, known []string) error {
	return fmt.Errorf("unknown %s '%s', expected one of: %s", kind, word, strings.Join(known, ", "))
}

// Twice returns the error for a subject, such as "node 'par1'", that is given
// twice.
func Twice(subject, remedy string) error {
	return fmt.Errorf("%s is given twice, %s", subject, remedy)
}
