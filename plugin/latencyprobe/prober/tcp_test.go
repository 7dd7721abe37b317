package prober

import (
	"net"
	"strings"
	"testing"
)

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
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
