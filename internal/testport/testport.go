// Package testport chooses ports for servers that tests start.
package testport

import (
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// Ports from first on, up to the ones that systems give to clients (from 32768
// on Linux, from 49152 elsewhere). A client must never get the port of a server
// that is down at that time: over UDP it would answer itself.
const (
	first = 10000
	count = 22768
)

// last is the last port that was tried, minus first. Test binaries that run at
// the same time begin at different ports.
var last atomic.Uint32

func init() { last.Store(rand.Uint32N(count)) } // #nosec G404 -- no secret

// Free returns a port of 127.0.0.1 that is free over UDP and TCP. It returns
// each port once.
func Free(t testing.TB) int {
	t.Helper()
	for range count {
		port := first + int(last.Add(1)%count)
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		p, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		_ = l.Close()
		if err == nil {
			_ = p.Close()
			return port
		}
	}
	t.Fatalf("Expected a free port from %d to %d", first, first+count-1)
	return 0
}
