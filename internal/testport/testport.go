// Package testport chooses ports for servers that tests start.
package testport

import (
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
)

// Ports from first on, up to the ones that systems give to clients (from 32768
// on Linux, from 49152 elsewhere). A client must never get the port of a server
// that is down at that time: over UDP it would answer itself, over TCP it would
// connect to itself.
const (
	first     = 10000
	blockSize = 64
	blocks    = (32768 - first) / blockSize
)

// allocator gives the ports of blocks away. A block belongs to the process that
// listens at its first port, for as long as that runs: test binaries that run at
// the same time share no port, whether its server is up or down.
type allocator struct {
	mu        sync.Mutex
	listeners []net.Listener
	next, end int
}

var ports allocator

// Free returns a port of 127.0.0.1 that is free over UDP and TCP. It returns
// each port once.
func Free(t testing.TB) int {
	t.Helper()
	port, ok := ports.take()
	if !ok {
		t.Fatalf("Expected a free port from %d to %d", first, first+blocks*blockSize-1)
	}
	return port
}

func (a *allocator) take() (port int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.next == a.end && !a.takeBlock() {
			return 0, false
		}
		port = a.next
		a.next++
		l, err := listen(port)
		if err != nil {
			continue
		}
		p, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		_ = l.Close()
		if err == nil {
			_ = p.Close()
			return port, true
		}
	}
}

// takeBlock takes a block that belongs to nobody.
func (a *allocator) takeBlock() bool {
	return slices.ContainsFunc(rand.Perm(blocks), a.own) // #nosec G404 -- no secret
}

// own makes a block this process's, and reports whether it was nobody's.
func (a *allocator) own(block int) bool {
	begin := first + block*blockSize
	l, err := listen(begin)
	if err != nil {
		return false
	}
	a.listeners = append(a.listeners, l)
	a.next, a.end = begin+1, begin+blockSize
	return true
}

func listen(port int) (net.Listener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}
