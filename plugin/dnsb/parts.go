package dnsb

import (
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// partsTime is how long the parts of a registration may take to arrive. A node
// sends them in a row, so what is not complete by then never will be.
const partsTime = time.Minute

// unfinished holds the parts that are there of a registration that is not
// complete. A node has one at most, so it takes no more than what the node may
// register anyway.
type unfinished struct {
	serial uint64
	parts  []*registration.Registration // nil: not yet there
	timer  *time.Timer
}

// collect keeps a part of a registration. It returns the whole if all parts are
// there, and nil if some are not, or if this is one of a registration that is done
// already. What is not complete disturbs nothing that is registered.
func (g *registry) collect(part *registration.Registration) (*registration.Registration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	node, mark := part.Node, g.marks[part.Node]
	if err := checkSerial(part.Serial, mark); err != nil {
		return nil, err
	}
	if part.Serial == mark {
		if !holds(g.records[node], part) {
			return nil, otherContent(part.Serial)
		}
		return nil, nil
	}

	u := g.unfinished[node]
	switch {
	case u == nil || u.serial < part.Serial:
		if u != nil {
			u.timer.Stop()
		}
		u = &unfinished{serial: part.Serial, parts: make([]*registration.Registration, part.Parts)}
		u.timer = time.AfterFunc(partsTime, func() { g.drop(node, u) })
		g.unfinished[node] = u
	case u.serial > part.Serial:
		return nil, fmt.Errorf("serial %d is older than %d, of which parts are here", part.Serial, u.serial)
	case len(u.parts) != part.Parts:
		return nil, fmt.Errorf("serial %d has %d parts, and not %d", u.serial, len(u.parts), part.Parts)
	}
	if was := u.parts[part.Part]; was != nil && !same(was, part) {
		return nil, otherContent(part.Serial)
	}
	u.parts[part.Part] = part
	if slices.Contains(u.parts, nil) {
		return nil, nil
	}
	whole, err := registration.Join(u.parts)
	if err != nil { // whichever part is wrong, sent again it would not help
		u.timer.Stop()
		delete(g.unfinished, node)
	}
	return whole, err
}

// drop forgets the parts of a registration that did not become complete.
func (g *registry) drop(node string, u *unfinished) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unfinished[node] != u {
		return
	}
	delete(g.unfinished, node)
	missing := 0
	for _, part := range u.parts {
		if part == nil {
			missing++
		}
	}
	log.Warningf("Registration of node %s is dropped, what it had stays: %d of its %d parts did not come within %s", node, missing, len(u.parts), partsTime)
}

// supersede drops, locked, parts that are not newer than what is registered.
func (g *registry) supersede(node string) {
	if u := g.unfinished[node]; u != nil && u.serial <= g.marks[node] {
		u.timer.Stop()
		delete(g.unfinished, node)
	}
}

// holds reports whether a part states nothing that is not in a record.
func holds(rec *record, part *registration.Registration) bool {
	if rec == nil {
		return false
	}
	if p := part; p.Part == 0 {
		c := content(p)
		c.Prefixes = rec.Prefixes
		if !same(c, rec.Registration) {
			return false
		}
	}
	there := make(map[registration.Prefix]bool, len(rec.Prefixes))
	for _, p := range rec.Prefixes {
		there[p] = true
	}
	return !slices.ContainsFunc(part.Prefixes, func(p registration.Prefix) bool { return !there[p] })
}

// checkSerial returns an error if a serial is older than the highest one that
// was here, or ahead of the clock.
func checkSerial(serial, mark uint64) error {
	millis := uint64(time.Now().UnixMilli()) // #nosec G115 -- positive since 1970
	switch {
	case serial > millis+uint64(maxAhead.Milliseconds()):
		return fmt.Errorf("serial %d is %s ahead of the clock here: compare the clocks", serial, (time.Duration(serial-millis) * time.Millisecond).Round(time.Second)) // #nosec G115 -- for people
	case serial < mark:
		return fmt.Errorf("serial %d is older than %d, which was here before", serial, mark)
	}
	return nil
}

func otherContent(serial uint64) error {
	return fmt.Errorf("serial %d was here before with other content", serial)
}

// shownPart is the list of prefixes at the name of a part.
type shownPart struct {
	name     string
	prefixes []registration.Prefix
}

// shownParts returns what is shown of prefixes that do not fit one message, nil
// if they do.
func shownParts(r *registration.Registration) []shownPart {
	lists := registration.SplitPrefixes(r.Prefixes)
	if len(lists) == 1 {
		return nil
	}
	parts := make([]shownPart, len(lists))
	for i, prefixes := range lists {
		parts[i] = shownPart{registration.PartName(i, r.Node, r.Zone), prefixes}
	}
	return parts
}

// records returns the records of a part of the type in h.
func (p *shownPart) records(h dns.RR_Header) []dns.RR {
	if h.Rrtype != dns.TypeAPL {
		return nil
	}
	return prefixLists(h, p.prefixes)
}
