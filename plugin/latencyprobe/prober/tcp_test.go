package prober

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

func TestTCP(t *testing.T) {
	port := fmt.Sprint(testport.Free(t))
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan net.Addr, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			from <- conn.RemoteAddr()
			conn.Close()
		}
	}()
	rtt, err := probeLoopback(t, "127.0.0.9", "tcp", port)
	expectRTT(t, rtt, err, 1)
	if got := (<-from).String(); !strings.HasPrefix(got, "127.0.0.9:") {
		t.Errorf("Expected the source address, got %s", got)
	}
	l.Close()
	_, err = probeLoopback(t, "", "tcp", port)
	expectReason(t, err, Refused)
}
