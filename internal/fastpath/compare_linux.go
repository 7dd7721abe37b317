package fastpath

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
)

// The chain answers one query of each reader in compareInterval, and the first
// compareFirst after a change, of those that the fast path could have answered.
const (
	compareInterval = time.Second
	compareFirst    = 16
)

// trial is a query that the chain answers, with the reply that the fast path has.
type trial struct {
	listener *listener
	state    *state
	packet   []byte
	from     netip.Addr
	basis    any // of the reply, from before it was made
	reply    []byte
}

// compare compares the reply of the chain. If they differ, and come from the same
// basis, it is an error. The basis is the same now as before both were made, and
// none comes again, so that it was the same all the time.
func (t *trial) compare(chain []byte) {
	if bytes.Equal(t.reply, chain) {
		return
	}
	q := new(Query)
	if !q.Parse(t.packet) || t.state.site.zones.of(q).answerer.Basis(q) != t.basis {
		return
	}
	t.listener.disable(t.state, fmt.Sprintf("the answers to query %x from %s differ, please report this as an error of the program: the fast path has %x, the plugin chain %x",
		t.packet, t.from, t.reply, chain))
}
