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
	"github.com/coredns-dnslb/coredns-dnslb/internal/pacing"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Reader makes a Table of the records of a zone as they come in. Errors name the
// record.
type Reader struct {
	zone, nodes, lists, measured, byRouter string // owner names
	Serial                                 uint32

	soas  int
	known bool // the version
	names []string
	texts map[int]List
	items items
	pacer pacing.Pacer

	sites     []readSite
	latencies []Latency         // of sites
	measuring map[string]NodeID // numbers of the nodes in latencies
	routed    map[netip.Prefix]bool
}

// NewReader returns a Reader for the map of a cut.
func NewReader(cut string) *Reader {
	zone := ZoneOf(cut)
	return &Reader{
		zone: zone, nodes: nodeLabel + "." + zone, lists: listLabel + "." + zone, measured: siteLabel + "." + zone,
		byRouter: routerLabel + "." + zone,
		texts:    make(map[int]List), measuring: make(map[string]NodeID), routed: make(map[netip.Prefix]bool),
	}
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
	case r.measured:
		return r.readSite(text)
	case r.byRouter:
		return r.readRouted(text)
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
	if r.items.count()+len(prefixes) > maxPrefixes {
		return fmt.Errorf("more than %d prefixes", maxPrefixes)
	}
	for _, p := range prefixes {
		r.pacer.Step()
		if p.Negated {
			return fmt.Errorf("prefix %s is negated", p.Prefix)
		}
		r.items.add(p.Prefix, uint32(number)) // #nosec G115 -- below maxLists
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
	t := &Table{Names: slices.Compact(r.names), Prefixes: r.items.count()}
	numbers := t.addLists(r.texts)
	if err := renumber(r.items.four, numbers); err != nil {
		return nil, err
	}
	if err := renumber(r.items.six, numbers); err != nil {
		return nil, err
	}
	t.divide(r.items, &r.pacer)
	if duplicate(r.items.four) || duplicate(r.items.six) {
		return nil, errors.New("a prefix is given twice")
	}
	return t, t.setSites(r)
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
func (t *Table) addLists(texts map[int]List) map[uint32]uint32 {
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
	return numbers
}

// NewTable returns the Table of a map in which one node has registered prefixes:
// what a node knows before it has a map.
func NewTable(node string, prefixes []registration.Prefix) *Table {
	t := &Table{Names: []string{node}, Prefixes: len(prefixes), lists: []Candidates{{}, {[]NodeID{0}, []string{LayerRegistration}, 1}}}
	var all items
	seen := make(map[netip.Prefix]bool, len(prefixes))
	for _, p := range prefixes {
		if seen[p.Prefix] {
			continue
		}
		seen[p.Prefix] = true
		list := uint32(1)
		if p.Negated {
			list = 0
		}
		all.add(p.Prefix, list)
	}
	t.divide(all, nil)
	return t
}
