// Package override reads admin files: temporary orders of an operator, one a
// line, each with an end and a reason.
//
//	VERB ARGUMENT... until TIME reason TEXT...
//
// What the verbs are, and what their arguments mean, is up to the plugin.
package override

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// MaxLength is the length in bytes that a line may have: it is shown in one
// line of a log and of an explanation.
const MaxLength = 1024

// Override is one line of an admin file. Action is what the plugin made of its
// verb and arguments.
type Override[A any] struct {
	Text   string    // the line, its words separated by single blanks
	File   string    // the path of the file
	Line   int       // from 1
	Verb   string    // in lower case
	Until  time.Time // in UTC
	Reason string
	Action A
}

// Position returns where the line is, as FILE:LINE.
func (o *Override[A]) Position() string { return fmt.Sprintf("%s:%d", o.File, o.Line) }

// Stated is an override as JSON.
type Stated struct {
	Text      string    `json:"text"` // the line
	Verb      string    `json:"verb"`
	Arguments []string  `json:"arguments"`
	Until     time.Time `json:"until"`
	Reason    string    `json:"reason"`
}

// Stated returns the override as JSON has it.
func (o *Override[A]) Stated() Stated {
	words, _, _ := strings.Cut(o.Text, " until ")
	return Stated{o.Text, o.Verb, strings.Fields(words)[1:], o.Until, o.Reason}
}

// Verb is a word that begins a line.
type Verb[A any] struct {
	Word  string                              // in lower case
	Usage string                              // of the verb and its arguments, such as "drain NODE"
	Parse func(arguments []string) (A, error) // ErrUsage: they do not have the form of Usage
}

// ErrUsage says that the arguments of a verb do not have the form of its Usage.
var ErrUsage = errors.New("unexpected arguments")

// Grammar is the verbs that a file may have.
type Grammar[A any] []Verb[A]

// example is a time in the form of RFC 3339.
const example = "2026-01-31T18:00:00Z"

func (v Verb[A]) form() string { return "'" + v.Usage + " until TIME reason TEXT...'" }

// Words returns the verbs.
func (g Grammar[A]) Words() []string {
	words := make([]string, len(g))
	for i, v := range g {
		words[i] = v.Word
	}
	return words
}

// ReadFile reads an admin file. One that does not exist has no overrides. An
// error names file and line.
func (g Grammar[A]) ReadFile(path string) ([]Override[A], error) {
	content, err := inputfile.ReadText(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Override[A]
	err = corefile.EachLine(path, content, func(number int, fields []string) error {
		o, err := g.Parse(fields)
		o.File, o.Line = path, number
		all = append(all, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Parse parses the words of one line, with unprintable characters escaped: they are
// logged and shown.
func (g Grammar[A]) Parse(fields []string) (Override[A], error) {
	text := inputfile.Printable(strings.Join(fields, " "))
	fields = strings.Fields(text)
	o := Override[A]{Text: text, Verb: strings.ToLower(fields[0])}
	i := slices.IndexFunc(g, func(v Verb[A]) bool { return v.Word == o.Verb })
	if i < 0 {
		return o, corefile.Unknown("verb", fields[0], g.Words())
	}
	if len(o.Text) > MaxLength {
		return o, fmt.Errorf("the line has %d bytes, more than %d: shorten its reason", len(o.Text), MaxLength)
	}
	verb := g[i]
	reason := slices.Index(fields, "reason")
	if reason < 0 || reason+1 == len(fields) {
		return o, fmt.Errorf("'%s' has no reason: add 'reason TEXT...' at its end", o.Text)
	}
	o.Reason = strings.Join(fields[reason+1:], " ")
	until := slices.Index(fields[:reason], "until")
	if until < 0 {
		return o, fmt.Errorf("'%s' has no end: add 'until TIME' before its reason, for example 'until %s'", o.Text, example)
	}
	if until+2 != reason {
		return o, fmt.Errorf("expected 'until TIME reason TEXT...', for example 'until %s reason maintenance'", example)
	}
	end, err := time.Parse(time.RFC3339, fields[until+1])
	if err != nil {
		return o, fmt.Errorf("invalid time '%s': expected date, time and zone, such as %s", fields[until+1], example)
	}
	o.Until = end.UTC() // so that equal overrides compare as such
	o.Action, err = verb.Parse(fields[1:until])
	if errors.Is(err, ErrUsage) {
		return o, fmt.Errorf("expected %s, for example with TIME %s", verb.form(), example)
	}
	return o, err
}
