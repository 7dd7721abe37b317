package prober

import (
	"net"
	"testing"
	"time"
)

func TestKernelHandshakeRTT(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if rtt, ok := kernelHandshakeRTT(conn.(*net.TCPConn)); !ok || rtt <= 0 || rtt > time.Second {
		t.Errorf("Expected the kernel to have measured the handshake, got %s, %v", rtt, ok)
	}
}
