package prober

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
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
	if rtt, ok := kernelHandshakeRTT(conn.(*net.TCPConn)); !ok || rtt <= 0 || rtt > patience {
		t.Errorf("Expected the kernel to have measured the handshake, got %s, %v", rtt, ok)
	}
}

// TestBusyProcessDoesNotAddLatency checks that the time that a goroutine waits
// to run is not part of a DNS latency.
func TestBusyProcessDoesNotAddLatency(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := enableArrivalTimes(conn); err != nil {
		t.Fatal(err)
	}
	query := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	reply, err := new(dns.Msg).SetReply(query).Pack()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel begins to note arrivals some time after it is asked to.
	for began := time.Now(); ; {
		sent := time.Now()
		if _, err := server.WriteTo(reply, conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		arrived := time.Since(sent) // at most: sending on loopback includes the arrival
		time.Sleep(20 * time.Millisecond)
		_, result, err := receive(conn, query, sent)
		if err == nil && result.KernelTimed && result.RTT > 0 && result.RTT <= arrived {
			return
		}
		if err != nil || time.Since(began) > patience {
			t.Fatalf("Expected at most %s, by the kernel, got %+v, %v", arrived, result, err)
		}
	}
}
