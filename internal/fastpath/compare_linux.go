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
	reply    []byte
}

// compare compares the reply of the chain. If it differs, the tables may have
// changed meanwhile: then the reply that the fast path has now is the same.
func (t *trial) compare(chain []byte) {
	if bytes.Equal(t.reply, chain) {
		return
	}
	var out [MaxReply]byte
	q := new(Query)
	now := out[:0]
	if q.Parse(t.packet) {
		q.Server, q.From, q.Trial = t.state.site.server.Addr, t.from, true
		if n, ok := t.listener.answer(t.state, t.state.site.zones.of(q), q, out[:]); ok {
			now = out[:n]
		}
	}
	if !bytes.Equal(now, chain) {
		t.listener.disable(t.state, fmt.Sprintf("the answers to query %x from %s differ, please report this as an error of the program: the fast path has %x, the plugin chain %x",
			t.packet, t.from, t.reply, chain))
	}
}
