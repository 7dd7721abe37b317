package registry

import (
	"fmt"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// partsTime is how long the parts of a registration may take to arrive. A node
// sends them in a row, so what is not complete by then never will be.
const partsTime = time.Minute

// sender is who sends the parts of a registration. Those of one key are never
// joined with those of another one, which may register something else.
type sender struct{ node, key string }

// incomplete holds the parts that have arrived of a registration. A sender has one
// at most, so it takes no more memory than what the node may register anyway.
type incomplete struct {
	serial uint64
	parts  []*registration.Registration // nil: has not arrived
	timer  *time.Timer
}

// Collect adds a part to those of its registration, by the key that signed it. It
// returns the whole registration when that is complete, or when part is the last one
// of a registration that was applied already and is repeated to renew its lease; else
// it returns nil. An incomplete registration changes nothing that is registered.
func (r *Registry) Collect(part *registration.Registration, key string) (*registration.Registration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	node, last := part.Node, r.lastSerials[part.Node].serial
	if err := checkSerial(part.Serial, last); err != nil {
		return nil, err
	}
	if part.Serial == last {
		rec := r.records[node]
		if !contains(rec, part) {
			return nil, otherContent(part.Serial)
		}
		if part.Part < part.Parts-1 {
			return nil, nil
		}
		repeated := *rec.Registration
		repeated.Serial = part.Serial
		return &repeated, nil
	}

	from := sender{node, key}
	in := r.incomplete[from]
	switch {
	case in == nil || in.serial < part.Serial:
		if in != nil {
			in.timer.Stop()
		}
		in = &incomplete{serial: part.Serial, parts: make([]*registration.Registration, part.Parts)}
		in.timer = time.AfterFunc(partsTime, func() { r.drop(from, in) })
		r.incomplete[from] = in
	case in.serial > part.Serial:
		return nil, fmt.Errorf("serial %d is older than %d, of which parts have arrived", part.Serial, in.serial)
	case len(in.parts) != part.Parts:
		return nil, fmt.Errorf("serial %d has %s, not %d", in.serial, plural.Of(len(in.parts), "part"), part.Parts)
	}
	if earlier := in.parts[part.Part]; earlier != nil && !SameContent(earlier, part) {
		return nil, otherContent(part.Serial)
	}
	in.parts[part.Part] = part
	if slices.Contains(in.parts, nil) {
		return nil, nil
	}
	whole, err := registration.Join(in.parts)
	if err != nil { // whichever part is wrong, to send it again would not help
		in.timer.Stop()
		delete(r.incomplete, from)
	}
	return whole, err
}

// drop forgets the parts of a registration that did not become complete.
func (r *Registry) drop(from sender, in *incomplete) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.incomplete[from] != in {
		return
	}
	delete(r.incomplete, from)
	missing := 0
	for _, part := range in.parts {
		if part == nil {
			missing++
		}
	}
	log.Warningf("Dropped an incomplete registration of node %q, keeping the previous one: %d of %d parts did not arrive within %s", from.node, missing, len(in.parts), partsTime)
}

// dropOlderParts forgets parts that are not newer than what is registered.
func (r *Registry) dropOlderParts(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for from, in := range r.incomplete {
		if from.node == node && in.serial <= r.lastSerials[node].serial {
			in.timer.Stop()
			delete(r.incomplete, from)
		}
	}
}

// contains reports whether a part states nothing that is not in a record.
func contains(rec *Record, part *registration.Registration) bool {
	if rec == nil {
		return false
	}
	if part.Part == 0 {
		c := content(part)
		c.Prefixes = rec.Prefixes
		if !SameContent(c, rec.Registration) {
			return false
		}
	}
	registered := make(map[registration.Prefix]bool, len(rec.Prefixes))
	for _, p := range rec.Prefixes {
		registered[p] = true
	}
	return !slices.ContainsFunc(part.Prefixes, func(p registration.Prefix) bool { return !registered[p] })
}
