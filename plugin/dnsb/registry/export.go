package registry

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// The form of an export: lines of words, and records as in zone files. The first
// line names the version and the zone, the last one the number of nodes, so that a
// file that was cut short is noticed. What the survey stores is in version 2, by its
// keys; without it the text is of version 1.
//
//	coredns-dnslb-store 1 gslb.example.org. serial 1763800000
//	node nyc1 serial 1763800000125 withdrawn
//	node par1 serial 1763800000123
//	par1.lb.gslb.example.org. 0 IN A 192.0.2.53
//	…
//	part
//	1.par1.lb.gslb.example.org. 0 IN APL …
//	survey 198.51.100.0/24 1 198.51.100.7 …
//	end 2
const (
	exportName          = "coredns-dnslb-store"
	exportVersion       = "1"
	exportVersionSurvey = "2"
)

// maxExportLine is the longest line of an export: an APL record of a whole
// message, whose prefixes are longer in text.
const maxExportLine = 1 << 20

// WriteExport writes what a store holds of a zone as text that ReadExport reads.
// The same contents give the same text. Keys of the survey are words, and its values
// words with one blank between them.
func WriteExport(w io.Writer, zone string, held Contents) error {
	b := bufio.NewWriter(w)
	serial := uint32(0)
	for _, e := range held.Entries {
		serial = max(serial, e.ZoneSerial)
	}
	version := exportVersion
	if len(held.Survey) > 0 {
		version = exportVersionSurvey
	}
	fmt.Fprintf(b, "%s %s %s serial %d\n", exportName, version, zone, serial)
	entries := slices.SortedFunc(slices.Values(held.Entries), func(a, b Entry) int { return cmp.Compare(a.Node, b.Node) })
	for _, e := range entries {
		fmt.Fprintf(b, "node %s serial %d", e.Node, e.Serial)
		if e.Resets > 0 {
			fmt.Fprintf(b, " resets %d", e.Resets)
		}
		if e.Registration == nil {
			fmt.Fprintln(b, " withdrawn")
			continue
		}
		fmt.Fprintln(b)
		if err := writeRecords(b, e.Registration); err != nil {
			return fmt.Errorf("write the registration of node '%s': %w", e.Node, err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(held.Survey)) {
		fmt.Fprintf(b, "survey %s %s\n", key, held.Survey[key])
	}
	fmt.Fprintf(b, "end %d\n", len(entries))
	return b.Flush()
}

// writeRecords writes the records that the UPDATEs of a registration add.
func writeRecords(w io.Writer, reg *registration.Registration) error {
	numbered := *reg
	numbered.Serial = 1 // parts need one
	messages, err := numbered.Messages()
	if err != nil {
		return err
	}
	for i, m := range messages {
		if i > 0 {
			fmt.Fprintln(w, "part")
		}
		for _, rr := range m.Ns {
			if rr.Header().Class == dns.ClassINET {
				fmt.Fprintln(w, strings.ReplaceAll(rr.String(), "\t", " "))
			}
		}
	}
	return nil
}

// ReadExport reads the text of WriteExport. check says what is wrong with a value of
// the survey. An error names its line.
func ReadExport(r io.Reader, check func(key string, value []byte) error) (zone string, held Contents, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxExportLine)
	p := exportParser{check: check, survey: make(map[string][]byte)}
	number := 0
	for lines.Scan() {
		number++
		if p.ended {
			return "", Contents{}, fmt.Errorf("line %d: a line follows the one that begins with 'end'", number)
		}
		if err := p.line(lines.Text()); err != nil {
			return "", Contents{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return "", Contents{}, err
	}
	if !p.ended {
		return "", Contents{}, errors.New("the export is cut short: its last line, 'end' and the number of nodes, is missing")
	}
	return p.zone, Contents{p.entries, p.survey}, nil
}

type exportParser struct {
	check   func(key string, value []byte) error
	zone    string
	version string
	serial  uint32
	entries []Entry
	survey  map[string][]byte
	ended   bool

	messages []*dns.Msg // of the last entry
}

func (p *exportParser) line(line string) error {
	words := strings.Fields(line)
	switch {
	case p.zone == "":
		return p.head(words)
	case len(words) == 0:
		return nil
	case words[0] == "node" || words[0] == "end" || words[0] == "survey" && p.version == exportVersionSurvey:
		if err := p.finish(); err != nil {
			return err
		}
		switch words[0] {
		case "node":
			return p.node(words[1:])
		case "survey":
			return p.surveyValue(words[1:])
		}
		p.ended = true
		if len(words) != 2 || words[1] != strconv.Itoa(len(p.entries)) {
			return fmt.Errorf("expected 'end %d', the number of nodes before it", len(p.entries))
		}
		return nil
	case len(p.messages) == 0:
		return errors.New("expected a line that begins with 'node' or 'end'")
	case line == "part":
		p.addMessage()
		return nil
	}
	rr, err := dns.NewRR(line)
	if err != nil {
		return err
	}
	if rr == nil {
		return errors.New("expected a record")
	}
	m := p.messages[len(p.messages)-1]
	m.Ns = append(m.Ns, rr)
	return nil
}

func (p *exportParser) head(words []string) error {
	if len(words) < 2 || words[0] != exportName {
		return fmt.Errorf("expected '%s %s' and a zone: this is no export of a store", exportName, exportVersion)
	}
	if words[1] != exportVersion && words[1] != exportVersionSurvey {
		return fmt.Errorf("the export is of version '%s', this program reads versions %s and %s: use the program that has written it", words[1], exportVersion, exportVersionSurvey)
	}
	if len(words) != 5 || words[3] != "serial" || !dns.IsFqdn(words[2]) {
		return fmt.Errorf("expected '%s %s ZONE serial NUMBER'", exportName, exportVersion)
	}
	serial, err := strconv.ParseUint(words[4], 10, 32)
	if err != nil {
		return fmt.Errorf("invalid serial '%s': expected that of a zone, such as 1763800000", words[4])
	}
	p.version, p.zone, p.serial = words[1], words[2], uint32(serial)
	return nil
}

// node reads the words after "node".
func (p *exportParser) node(words []string) error {
	const form = "expected 'node NAME serial NUMBER', then 'resets NUMBER' if it was reset, and 'withdrawn' if it is"
	if len(words) < 3 || words[1] != "serial" || !registration.IsLabel(words[0]) {
		return errors.New(form)
	}
	e := Entry{Node: words[0], ZoneSerial: p.serial}
	if slices.ContainsFunc(p.entries, func(other Entry) bool { return other.Node == e.Node }) {
		return fmt.Errorf("node '%s' is given twice", e.Node)
	}
	var err error
	if e.Serial, err = strconv.ParseUint(words[2], 10, 64); err != nil {
		return fmt.Errorf("invalid serial '%s': expected the time in milliseconds since 1970", words[2])
	}
	rest := words[3:]
	if len(rest) >= 2 && rest[0] == "resets" {
		resets, err := strconv.ParseUint(rest[1], 10, 32)
		if err != nil {
			return errors.New(form)
		}
		e.Resets, rest = uint32(resets), rest[2:]
	}
	switch {
	case len(rest) == 0:
		p.addMessage()
	case len(rest) != 1 || rest[0] != "withdrawn":
		return errors.New(form)
	}
	p.entries = append(p.entries, e)
	return nil
}

// surveyValue reads the words after "survey".
func (p *exportParser) surveyValue(words []string) error {
	if len(words) < 2 {
		return errors.New("expected 'survey KEY VALUE', the key a prefix or a node")
	}
	key, value := words[0], []byte(strings.Join(words[1:], " "))
	if p.survey[key] != nil {
		return fmt.Errorf("what the survey knows of '%s' is given twice", key)
	}
	if err := p.check(key, value); err != nil {
		return fmt.Errorf("invalid measurements of '%s': %w", key, err)
	}
	p.survey[key] = value
	return nil
}

func (p *exportParser) addMessage() {
	m := new(dns.Msg)
	m.SetUpdate(p.zone)
	p.messages = append(p.messages, m)
}

// finish makes the registration of the last entry from its records.
func (p *exportParser) finish() error {
	if len(p.messages) == 0 {
		return nil
	}
	e := &p.entries[len(p.entries)-1]
	reg, err := join(p.messages)
	if err == nil && reg.Node != e.Node {
		err = fmt.Errorf("the records are those of node '%s'", reg.Node)
	}
	if err != nil {
		return fmt.Errorf("invalid registration of node '%s' above: %w", e.Node, err)
	}
	e.Registration, p.messages = reg, nil
	return nil
}

// ErrNotEmpty is the error of an import into a store that holds something else.
var ErrNotEmpty = errors.New("the store holds something else, and an import overwrites nothing")

// Missing returns what a store lacks which holds stored. The error is ErrNotEmpty if
// the store has a node in another state than the one to be imported, or another
// node. What the survey has measured meanwhile stays.
func Missing(stored, imported Contents) (Contents, error) {
	missing := slices.Clone(imported.Entries)
	for _, s := range stored.Entries {
		i := slices.IndexFunc(missing, func(e Entry) bool { return e.Node == s.Node })
		if i < 0 || missing[i].Serial != s.Serial || (missing[i].Registration == nil) != (s.Registration == nil) ||
			s.Registration != nil && !SameContent(s.Registration, missing[i].Registration) {
			return Contents{}, fmt.Errorf("node '%s', serial %d: %w", s.Node, s.Serial, ErrNotEmpty)
		}
		missing = slices.Delete(missing, i, i+1)
	}
	values := maps.Clone(imported.Survey)
	maps.DeleteFunc(values, func(key string, _ []byte) bool { return stored.Survey[key] != nil })
	return Contents{missing, values}, nil
}

// Import writes what a store lacks, each registration with a lease. When it fails
// some may have been written: the same import again writes the rest.
func Import(at Location, zone string, missing Contents, lease time.Duration) (err error) {
	var store Store
	switch at := at.(type) {
	case Local:
		if store, _, err = at.Open(zone); err != nil {
			return err
		}
	case Shared:
		store = at.Follow(zone, importer{})
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for _, e := range missing.Entries {
		txn := &Txn{Node: e.Node, Version: store.Version(e.Node), Serial: e.Serial, Resets: e.Resets, ZoneSerial: e.ZoneSerial,
			Altered: true, Registration: e.Registration}
		if e.Registration != nil {
			txn.Lease = lease
		}
		if txn.Version != 0 {
			return fmt.Errorf("node '%s': %w", e.Node, ErrNotEmpty)
		}
		if err := store.Write(txn); err != nil {
			return fmt.Errorf("write node '%s' to store: %w", e.Node, err)
		}
	}
	if s, ok := store.(SurveyStore); ok && len(missing.Survey) > 0 {
		if err := s.WriteSurvey(missing.Survey); err != nil {
			return fmt.Errorf("write measurements of the survey to store: %w", err)
		}
	}
	return nil
}

// importer is the replica of a store that only takes what is imported.
type importer struct{}

var _ Replica = importer{}

func (importer) Replace([]Entry)            {}
func (importer) Merge([]Entry)              {}
func (importer) NewerThan([]Entry) []string { return nil }
func (importer) Restate(string) *Txn        { return nil }
