package nodemap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Reader makes a Table of the records of a zone as they come in. Errors name the
// record.
type Reader struct {
	zone, nodes, lists string // owner names
	Serial             uint32

	soas  int
	known bool // the version
	names []string
	texts map[int]List
	four  []item[address4]
	six   []item[address6]
}

// NewReader returns a Reader for the map of a cut.
func NewReader(cut string) *Reader {
	zone := ZoneOf(cut)
	return &Reader{zone: zone, nodes: nodeLabel + "." + zone, lists: listLabel + "." + zone, texts: make(map[int]List)}
}

// Add reads one record. It ignores records of other types and names, as a later
// version may have them.
func (r *Reader) Add(rr dns.RR) error {
	name := dns.CanonicalName(rr.Header().Name)
	if !dns.IsSubDomain(r.zone, name) {
		return fmt.Errorf("record of %s, which is not in the zone %s", name, r.zone)
	}
	var err error
	switch rr := rr.(type) {
	case *dns.SOA:
		if name != r.zone {
			err = fmt.Errorf("expected it at %s", r.zone)
		}
		r.soas++
		r.Serial = rr.Serial
	case *dns.TXT:
		err = r.readText(name, strings.Join(rr.Txt, ""))
	case *dns.APL:
		err = r.readPrefixes(name, rr)
	}
	if err != nil {
		return fmt.Errorf("%s record of %s: %w", dns.Type(rr.Header().Rrtype), name, err)
	}
	return nil
}

func (r *Reader) readText(name, text string) error {
	switch name {
	case r.zone:
		word, _, _ := strings.Cut(text, " ")
		if err := dnsmsg.CheckVersion(word, version); err != nil {
			return err
		}
		r.known = true
	case r.nodes:
		node, _, _ := strings.Cut(text, " ") // a later version may say more of it
		if !registration.IsLabel(node) {
			return fmt.Errorf("invalid node '%s'", node)
		}
		if len(r.names) == maxNodes {
			return fmt.Errorf("more than %d nodes", maxNodes)
		}
		r.names = append(r.names, node)
	default:
		number, ok := r.listNumber(name)
		if !ok {
			return nil
		}
		list, err := parseList(text)
		if err != nil {
			return err
		}
		if _, twice := r.texts[number]; twice {
			return errors.New("the list is given twice")
		}
		r.texts[number] = list
	}
	return nil
}

// listNumber returns the number of the list whose records have a name.
func (r *Reader) listNumber(name string) (number int, ok bool) {
	label, ok := strings.CutSuffix(name, "."+r.lists)
	if !ok {
		return 0, false
	}
	number, err := strconv.Atoi(label)
	return number, err == nil && number >= 0 && number < maxLists
}

func (r *Reader) readPrefixes(name string, apl *dns.APL) error {
	number, ok := r.listNumber(name)
	if !ok {
		return nil
	}
	prefixes, err := registration.ParseAPL(apl)
	if err != nil {
		return err
	}
	if len(r.four)+len(r.six)+len(prefixes) > maxPrefixes {
		return fmt.Errorf("more than %d prefixes", maxPrefixes)
	}
	list := uint32(number) // #nosec G115 -- below maxLists
	for _, p := range prefixes {
		switch length := uint8(p.Bits()); { // #nosec G115 -- at most 128
		case p.Negated:
			return fmt.Errorf("prefix %s is negated", p.Prefix)
		case p.Addr().Is4():
			r.four = append(r.four, item[address4]{newAddress4(p.Addr()), list, length})
		default:
			r.six = append(r.six, item[address6]{newAddress6(p.Addr()), list, length})
		}
	}
	return nil
}

// Table returns the Table of a zone that was read as a whole.
func (r *Reader) Table() (*Table, error) {
	switch {
	case r.soas != 2:
		return nil, fmt.Errorf("transfer with %d SOA records, expected one at its begin and one at its end", r.soas)
	case !r.known:
		return nil, fmt.Errorf("no TXT record with the version at %s", r.zone)
	}
	slices.Sort(r.names)
	t := &Table{Names: slices.Compact(r.names), Prefixes: len(r.four) + len(r.six)}
	numbers, err := t.addLists(r.texts)
	if err != nil {
		return nil, err
	}
	if err := renumber(r.four, numbers); err != nil {
		return nil, err
	}
	if err := renumber(r.six, numbers); err != nil {
		return nil, err
	}
	t.first4, t.list4 = divide(r.four)
	t.first6, t.list6 = divide(r.six)
	if duplicate(r.four) || duplicate(r.six) {
		return nil, errors.New("a prefix is given twice")
	}
	return t, nil
}

// renumber replaces the numbers that lists have in the zone by indexes of lists.
func renumber[A any](items []item[A], numbers map[uint32]uint32) error {
	for i := range items {
		number, ok := numbers[items[i].list]
		if !ok {
			return fmt.Errorf("list %d has prefixes and no nodes", items[i].list)
		}
		items[i].list = number
	}
	return nil
}

// addLists adds lists without the nodes that do not serve the cut. Lists that are
// equal then are one; list 0 is empty. It returns the indexes of lists by their
// number in the zone.
func (t *Table) addLists(texts map[int]List) (map[uint32]uint32, error) {
	layers := make(map[string]string) // each of them once
	t.lists = []Candidates{{}}
	known := map[string]uint32{"": 0}
	numbers := make(map[uint32]uint32, len(texts))
	for number, list := range texts {
		var c Candidates
		key := List{}
		for _, n := range list {
			id, ok := slices.BinarySearch(t.Names, n.Node)
			if !ok {
				continue
			}
			if _, ok := layers[n.Layer]; !ok {
				layers[n.Layer] = n.Layer
			}
			c.Nodes = append(c.Nodes, NodeID(id)) // #nosec G115 -- below maxNodes
			c.Layers = append(c.Layers, layers[n.Layer])
			if byPrefix(n.Layer) {
				c.ByPrefix = len(c.Nodes)
			}
			key = append(key, n)
		}
		text := key.text()
		index, ok := known[text]
		if !ok {
			index = uint32(len(t.lists)) // #nosec G115 -- at most maxLists
			known[text] = index
			t.lists = append(t.lists, c)
		}
		numbers[uint32(number)] = index // #nosec G115 -- below maxLists
	}
	return numbers, nil
}

// NewTable returns the Table of a map in which one node has registered prefixes:
// what a node knows before it has a map.
func NewTable(node string, prefixes []registration.Prefix) *Table {
	t := &Table{Names: []string{node}, Prefixes: len(prefixes), lists: []Candidates{{}, {[]NodeID{0}, []string{"registration"}, 1}}}
	var (
		four []item[address4]
		six  []item[address6]
	)
	seen := make(map[netip.Prefix]bool, len(prefixes))
	for _, p := range prefixes {
		if seen[p.Prefix] {
			continue
		}
		seen[p.Prefix] = true
		list, length := uint32(1), uint8(p.Bits()) // #nosec G115 -- at most 128
		if p.Negated {
			list = 0
		}
		if p.Addr().Is4() {
			four = append(four, item[address4]{newAddress4(p.Addr()), list, length})
		} else {
			six = append(six, item[address6]{newAddress6(p.Addr()), list, length})
		}
	}
	t.first4, t.list4 = divide(four)
	t.first6, t.list6 = divide(six)
	return t
}
