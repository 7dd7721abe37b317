package registry

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// The form of an export: lines of words, and records as in zone files. The first
// line names the version and the zone, the last one the number of nodes, so that a
// file that was cut short is noticed.
//
//	coredns-dnslb-store 1 gslb.example.org. serial 1763800000
//	node nyc1 serial 1763800000125 withdrawn
//	node par1 serial 1763800000123
//	par1.lb.gslb.example.org. 0 IN A 192.0.2.53
//	…
//	part
//	1.par1.lb.gslb.example.org. 0 IN APL …
//	end 2
const (
	exportName    = "coredns-dnslb-store"
	exportVersion = "1"
)

// maxExportLine is the longest line of an export: an APL record of a whole
// message, whose prefixes are longer in text.
const maxExportLine = 1 << 20

// WriteExport writes what a store holds of a zone as text that ReadExport reads.
// The same entries give the same text.
func WriteExport(w io.Writer, zone string, entries []Entry) error {
	b := bufio.NewWriter(w)
	serial := uint32(0)
	for _, e := range entries {
		serial = max(serial, e.ZoneSerial)
	}
	fmt.Fprintf(b, "%s %s %s serial %d\n", exportName, exportVersion, zone, serial)
	entries = slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Node, b.Node) })
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

// ReadExport reads the text of WriteExport. An error names its line.
func ReadExport(r io.Reader) (zone string, entries []Entry, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxExportLine)
	p := exportParser{}
	number := 0
	for lines.Scan() {
		number++
		if p.ended {
			return "", nil, fmt.Errorf("line %d: a line follows the one that begins with 'end'", number)
		}
		if err := p.line(lines.Text()); err != nil {
			return "", nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return "", nil, err
	}
	if !p.ended {
		return "", nil, errors.New("the export is cut short: its last line, 'end' and the number of nodes, is missing")
	}
	return p.zone, p.entries, nil
}

type exportParser struct {
	zone    string
	serial  uint32
	entries []Entry
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
	case words[0] == "node" || words[0] == "end":
		if err := p.finish(); err != nil {
			return err
		}
		if words[0] == "node" {
			return p.node(words[1:])
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
	if words[1] != exportVersion {
		return fmt.Errorf("the export is of version '%s', this program reads version %s: use the program that has written it", words[1], exportVersion)
	}
	if len(words) != 5 || words[3] != "serial" || !dns.IsFqdn(words[2]) {
		return fmt.Errorf("expected '%s %s ZONE serial NUMBER'", exportName, exportVersion)
	}
	serial, err := strconv.ParseUint(words[4], 10, 32)
	if err != nil {
		return fmt.Errorf("invalid serial '%s': expected that of a zone, such as 1763800000", words[4])
	}
	p.zone, p.serial = words[2], uint32(serial)
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

// Missing returns the entries that a store lacks which holds stored. The error is
// ErrNotEmpty if the store has a node in another state than the one to be
// imported, or another node.
func Missing(stored, imported []Entry) ([]Entry, error) {
	missing := slices.Clone(imported)
	for _, s := range stored {
		i := slices.IndexFunc(missing, func(e Entry) bool { return e.Node == s.Node })
		if i < 0 || missing[i].Serial != s.Serial || (missing[i].Registration == nil) != (s.Registration == nil) ||
			s.Registration != nil && !SameContent(s.Registration, missing[i].Registration) {
			return nil, fmt.Errorf("node '%s', serial %d: %w", s.Node, s.Serial, ErrNotEmpty)
		}
		missing = slices.Delete(missing, i, i+1)
	}
	return missing, nil
}

// Import writes entries to a store that lacks them, each with a lease. When it
// fails some may have been written: the same import again writes the others.
func Import(at Location, zone string, entries []Entry, lease time.Duration) (err error) {
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
	for _, e := range entries {
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
	return nil
}

// importer is the replica of a store that only takes what is imported.
type importer struct{}

var _ Replica = importer{}

func (importer) Replace([]Entry)            {}
func (importer) Merge([]Entry)              {}
func (importer) NewerThan([]Entry) []string { return nil }
func (importer) Restate(string) *Txn        { return nil }
