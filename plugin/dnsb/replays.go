package dnsb

import (
	"fmt"
	"sync"
	"time"
)

// replays refuses UPDATEs that arrived before (RFC 8945, section 5.2.3). A
// registration with a serial is in order by that. One without gets the time at
// which it was signed as its serial: the registry remembers the last serial of
// each node, in its store and at all servers that share it. Times of signatures
// are in seconds, so the order within the last second of each node is remembered
// here. Times are compared for each node, not for each key: nodes that share a key
// may differ in their clocks. It is safe for concurrent use; the zero value is
// ready.
type replays struct {
	mu    sync.Mutex
	nodes map[string]*accepted
}

// accepted is what was accepted of a node in the second of its last serial.
type accepted struct {
	serial uint64
	macs   map[string]bool // of UPDATEs without a serial
	last   string          // MAC; "": the last one had a serial
	all    bool            // none was accepted by another server or an earlier process
}

const secondOfSerials = 1000 // serials are milliseconds

// serial returns the serial of an UPDATE about a node that has none, given the
// last serial of the node.
func (r *replays) serial(node string, sig signature, last uint64) (uint64, error) {
	second := uint64(max(sig.time.Unix(), 0)) * secondOfSerials // #nosec G115 -- not negative
	if last < second {
		return max(second, 1), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.nodes[node]
	switch {
	case last >= second+secondOfSerials:
		ahead := time.Duration(last-second) * time.Millisecond // #nosec G115 -- bounded by maxAhead of serials
		return 0, &replayError{fmt.Sprintf("signed %s earlier than the last registration of node %s: a replay, or two senders with different clocks", ahead.Round(time.Second), node)}
	case a == nil || a.serial != last || !a.all:
		return last, nil // for the same content only
	case a.last != "" && a.last == sig.mac:
		return last, nil
	case a.macs[sig.mac] || last+1 == second+secondOfSerials:
		return 0, &replayError{fmt.Sprintf("node %s has registered again since this update was signed: sign it again", node)}
	}
	return last + 1, nil
}

// accept notes that an UPDATE was accepted and made serial the last one of the
// node, after another one. mac is "" if the UPDATE had that serial.
func (r *replays) accept(node string, serial, previous uint64, mac string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.nodes[node]
	if a == nil || a.serial/secondOfSerials != serial/secondOfSerials {
		if r.nodes == nil {
			r.nodes = make(map[string]*accepted)
		}
		a = &accepted{macs: make(map[string]bool), all: previous/secondOfSerials < serial/secondOfSerials}
		r.nodes[node] = a
	} else if a.serial != previous {
		a.all = false
	}
	a.serial, a.last = serial, mac
	if mac != "" {
		a.macs[mac] = true
	}
}
