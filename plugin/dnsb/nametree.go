package dnsb

import "github.com/miekg/dns"

// nameTree is a set of names below a zone, which finds those above and below
// another name by its labels. The zero value is empty.
type nameTree struct {
	names map[string]bool
	below map[string]string // name to one of those below it
}

func (t *nameTree) add(name string) {
	if t.names == nil {
		t.names, t.below = make(map[string]bool), make(map[string]string)
	}
	t.names[name] = true
	for parent := range parents(name) {
		t.below[parent] = name
	}
}

// nested returns a name of the set that is below or above name, "" if there is
// none.
func (t *nameTree) nested(name string) string {
	for parent := range parents(name) {
		if t.names[parent] {
			return parent
		}
	}
	return t.below[name]
}

// parents yields the names above name, up to a top-level domain.
func parents(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			off, end := dns.NextLabel(name, 0)
			if end {
				return
			}
			if name = name[off:]; !yield(name) {
				return
			}
		}
	}
}
