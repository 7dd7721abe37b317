package test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	packetFilter  = regexp.MustCompile("(?ms)^~~~ nft\n(.*?)^~~~$")
	packetCounter = regexp.MustCompile(`counter packets (\d+)`)
)

// TestPacketFilterOfLimits loads the packet filter of docs/limits.md in a network
// namespace, and checks that it limits one network and no other.
func TestPacketFilterOfLimits(t *testing.T) {
	nft, ip := program(t, "nft", "nftables"), program(t, "ip", "iproute2")
	text, err := os.ReadFile(filepath.Join(root, "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	filter := packetFilter.FindSubmatch(text)
	if filter == nil {
		t.Fatal("Expected a packet filter in docs/limits.md")
	}
	path := filepath.Join(t.TempDir(), "limits.nft")
	if err := os.WriteFile(path, filter[1], 0o600); err != nil {
		t.Fatal(err)
	}

	// The thread ends with the test, and the namespace with the thread and the
	// sockets that it opened.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Expected a network namespace, got: %v", err)
		}
		t.Skipf("No network namespace: %v", err)
	}
	for _, args := range [][]string{
		{ip, "link", "set", "lo", "up"},
		{ip, "address", "add", "192.0.2.53/32", "dev", "lo"},
		{nft, "--file", path},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	filtersUDP(t) // subtests would have threads of their own
	filtersTCP(t)
	out, err := exec.Command(nft, "list", "chain", "inet", "dns_limits", "input").Output()
	if err != nil {
		t.Fatal(err)
	}
	dropped := packetCounter.FindAllSubmatch(out, -1)
	if len(dropped) != 4 || string(dropped[0][1]) == "0" || string(dropped[2][1]) == "0" {
		t.Errorf("Expected packets of both floods to be dropped, got\n%s", out)
	}
}

func filtersUDP(t *testing.T) {
	t.Helper()
	const rate, burst, sent = 2000, 4000, 20_000
	server, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() { // echoes
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	dial := func(from string) *net.UDPConn {
		t.Helper()
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, server.LocalAddr().(*net.UDPAddr))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	exchanged := func(conn net.Conn) bool {
		_, _ = conn.Write([]byte("query"))
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := conn.Read(make([]byte, 100))
		return err == nil
	}

	flood := dial("127.9.1.1")
	defer flood.Close()
	received := make(chan int)
	go func() {
		n, b := 0, make([]byte, 100)
		for {
			if _, err := flood.Read(b); err != nil {
				received <- n
				return
			}
			n++
		}
	}()
	begin := time.Now()
	for range sent {
		_, _ = flood.Write([]byte("query"))
	}
	_ = flood.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	n, most := <-received, burst+int(rate*time.Since(begin).Seconds())+100
	if n == 0 || n > most {
		t.Errorf("Expected at most %d of %d packets of a flood to be answered, got %d", most, sent, n)
	}
	other := dial("127.9.2.1")
	defer other.Close()
	for range 100 {
		if !exchanged(other) {
			t.Fatal("Expected another network to be served")
		}
	}
}

func filtersTCP(t *testing.T) {
	t.Helper()
	const rate, burst, sent = 64 << 10, 256 << 10, 4 << 20
	server, err := net.Listen("tcp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	// receive returns how much of what one client sends has arrived after a time.
	receive := func(from string, limit time.Duration) int64 {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		client, err := d.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = client.SetDeadline(time.Now().Add(limit))
		_ = conn.SetDeadline(time.Now().Add(limit))
		go func() {
			_, _ = client.Write(make([]byte, sent))
			_ = client.(*net.TCPConn).CloseWrite()
		}()
		n, _ := io.Copy(io.Discard, conn)
		return n
	}
	begin := time.Now()
	n := receive("127.9.3.1", time.Second)
	if most := int64(burst + 2*rate*time.Since(begin).Seconds()); n == 0 || n > most {
		t.Errorf("Expected at most %d of %d bytes of a flood to arrive, got %d", most, sent, n)
	}
	if n := receive("192.0.2.53", time.Minute); n != sent {
		t.Errorf("Expected all %d bytes of a node to arrive, got %d", sent, n)
	}
}
