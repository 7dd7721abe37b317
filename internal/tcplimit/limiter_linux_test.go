package tcplimit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// bind returns a listener of plain TCP.
func bind(t testing.TB, address string) net.Listener {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// listen serves connections at an address as CoreDNS does: what a client sends
// comes back, and a connection is closed when its client closes it.
func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l := bind(t, address)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l
}

// dial opens a connection from an address, that of a client or another one.
func dial(t testing.TB, from, to string) net.Conn {
	t.Helper()
	source, err := net.ResolveTCPAddr("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: source, Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// asks sends something and reports whether it comes back.
func asks(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("?")); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

// open reports whether the other end has not closed a connection, and waits for
// that as long as limit.
func open(c net.Conn, limit time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func portOf(t testing.TB, l net.Listener) ports {
	t.Helper()
	return ports{uint16(l.Addr().(*net.TCPAddr).Port): true}
}

func opened(t testing.TB) *descriptors {
	t.Helper()
	d, err := openDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

// eventually waits for what another goroutine or the kernel does.
func eventually(t testing.TB, event string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("Expected %s", event)
		}
	}
}

func TestConnectionsBeyondLimitOfClient(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	limiter := startLimiter()
	defer limiter.stop()
	limiter.setPorts(portOf(t, l))

	const limit = maxTotal / clients
	polite := dial(t, "127.0.0.3:0", l.Addr().String())
	before := testutil.ToFloat64(closedCount.WithLabelValues("client"))
	slow := make([]net.Conn, limit+20)
	for i := range slow {
		slow[i] = dial(t, "127.0.0.2:0", l.Addr().String())
		if i == 0 {
			time.Sleep(50 * time.Millisecond) // the clock of the kernel
		}
	}
	eventually(t, "20 closed connections", func() bool {
		return testutil.ToFloat64(closedCount.WithLabelValues("client")) == before+20
	})
	if open(slow[0], 10*time.Second) {
		t.Error("Expected the longest idle connection to be closed")
	}
	eventually(t, fmt.Sprintf("%d open connections of the client", limit), func() bool { // a busy machine delays what ends the others
		n := 0
		for _, c := range slow {
			if open(c, time.Millisecond) {
				n++
			}
		}
		return n == limit
	})
	if !asks(polite) {
		t.Error("Expected the connection of another client to stay")
	}
	eventually(t, "the remaining connections in the metric", func() bool { return testutil.ToFloat64(connectionCount) == limit+1 })
}

// TestOtherSocketsAreNoConnections has what a connection to DNS could be taken
// for: connections that this process opened (probes, transfers, etcd), also one
// with the port of DNS as its own port, and DNS over UDP.
func TestOtherSocketsAreNoConnections(t *testing.T) {
	other := listen(t, "127.0.0.1:0")
	dial(t, "127.0.0.1:0", other.Addr().String())
	var dns net.Listener
	for range 100 { // until nobody has the port at the other address, or by UDP
		dns = listen(t, "127.0.0.1:0")
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: dns.Addr().(*net.TCPAddr).Port}}
		samePort, err := d.Dial("tcp", other.Addr().String())
		if err == nil {
			defer samePort.Close()
			var udp net.PacketConn
			if udp, err = net.ListenPacket("udp", dns.Addr().String()); err == nil {
				defer udp.Close()
				break
			}
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	client := dial(t, "127.0.0.1:0", dns.Addr().String())

	d := opened(t)
	eventually(t, "one connection", func() bool {
		u, err := d.usage(portOf(t, dns))
		if err != nil {
			t.Fatal(err)
		}
		if len(u.conns) > 1 || len(u.listeners) != 1 {
			t.Fatalf("Expected one listener and one connection, got %v and %v", u.listeners, u.conns)
		}
		return len(u.conns) == 1 && u.conns[0].peer.String() == client.LocalAddr().String()
	})
}

func TestListenersOfBothFamilies(t *testing.T) {
	l := listen(t, ":0")
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	v4 := dial(t, "127.0.0.1:0", net.JoinHostPort("127.0.0.1", port))
	want := []string{v4.LocalAddr().String()}
	if v6, err := net.Dial("tcp", net.JoinHostPort("::1", port)); err == nil { // machines may have no IPv6
		defer v6.Close()
		want = append(want, v6.LocalAddr().String())
	}
	d := opened(t)
	eventually(t, fmt.Sprintf("connections of %s", want), func() bool {
		u, err := d.usage(portOf(t, l))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range u.conns {
			got = append(got, c.peer.String())
		}
		slices.Sort(got)
		slices.Sort(want)
		return slices.Equal(got, want)
	})
}

func TestConnectionIsDescribed(t *testing.T) {
	l := bind(t, "127.0.0.1:0")
	var clients []net.Conn
	accept := func() net.Conn {
		client := dial(t, "127.0.0.2:0", l.Addr().String())
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, client)
		return c
	}
	answer := func(c net.Conn) {
		if _, err := c.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
	}
	slow, idle, busy := accept(), accept(), accept()
	answer(idle)
	time.Sleep(300 * time.Millisecond)
	answered := time.Now()
	answer(busy)
	for _, c := range clients { // makes no connection busy: slow clients send something, too
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
	}

	d := opened(t)
	u, err := d.usage(portOf(t, l))
	if err != nil || len(u.conns) != 3 {
		t.Fatalf("Expected three connections, got %v, %v", u.conns, err)
	}
	described := make(map[string]socket)
	for _, c := range u.conns {
		described[c.peer.String()] = c
	}
	s, i, b := described[slow.RemoteAddr().String()], described[idle.RemoteAddr().String()], described[busy.RemoteAddr().String()]
	if s.answered || !i.answered || !b.answered {
		t.Errorf("Expected two of three connections to be answered, got %t, %t, %t", s.answered, i.answered, b.answered)
	}
	const coarse = 50 * time.Millisecond // the clock of the kernel
	since := time.Since(answered)
	if least := 300*time.Millisecond - coarse; s.idle < least || i.idle < least || s.idle > time.Hour || b.idle > since+coarse {
		t.Errorf("Expected two connections to be idle for 300ms and more, and one for %s at most, got %s, %s, %s", since, s.idle, i.idle, b.idle)
	}
}

// TestShutdownOfReusedDescriptor checks that what is chosen is hit and nothing
// else that has its descriptor meanwhile.
func TestShutdownOfReusedDescriptor(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	first, second := dial(t, "127.0.0.2:0", l.Addr().String()), dial(t, "127.0.0.2:0", l.Addr().String())
	if !asks(first) || !asks(second) {
		t.Fatal("Expected answers")
	}
	d := opened(t)
	u, err := d.usage(portOf(t, l))
	if err != nil || len(u.conns) != 2 {
		t.Fatalf("Expected two connections, got %v, %v", u.conns, err)
	}
	exchanged := slices.Clone(u.conns)
	exchanged[0].descriptor, exchanged[1].descriptor = exchanged[1].descriptor, exchanged[0].descriptor
	if n := d.shutdown(exchanged); n != 0 {
		t.Errorf("Expected no connection to be closed, got %d", n)
	}
	if !asks(first) || !asks(second) {
		t.Error("Expected both connections to stay")
	}
	if n := d.shutdown(u.conns[:1]); n != 1 {
		t.Errorf("Expected one connection to be closed, got %d", n)
	}
	if a, b := asks(first), asks(second); a == b {
		t.Errorf("Expected one of the connections to stay, got %t and %t", a, b)
	}
}

func TestRefusingListener(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	existing := dial(t, "127.0.0.2:0", l.Addr().String())
	if !asks(existing) {
		t.Fatal("Expected an answer")
	}
	d := opened(t)
	u, err := d.usage(portOf(t, l))
	if err != nil {
		t.Fatal(err)
	}
	if !d.refuse(u.listeners, true) {
		t.Fatal("Expected the listener to take a filter")
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), 50*time.Millisecond); err == nil {
		c.Close()
		t.Error("Expected no connection while the listener refuses them")
	}
	if !asks(existing) {
		t.Error("Expected an existing connection to stay")
	}
	if !d.refuse(u.listeners, false) {
		t.Error("Expected the listener to lose its filter")
	}
	if !asks(dial(t, "127.0.0.2:0", l.Addr().String())) {
		t.Error("Expected connections again")
	}
	if !d.refuse(u.listeners, false) {
		t.Error("Expected no error of a listener without a filter")
	}
}

// TestListenersTakeFilters checks that Go does not make listeners of Multipath
// TCP once there is a limiter.
func TestListenersTakeFilters(t *testing.T) {
	startLimiter().stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := opened(t)
	u, err := d.usage(portOf(t, l))
	if err != nil || len(u.listeners) != 1 {
		t.Fatalf("Expected a listener, got %v, %v", u.listeners, err)
	}
	if !d.refuse(u.listeners, true) {
		t.Error("Expected the listener to take a filter")
	}
}

func TestLimiterKeepsNoDescriptors(t *testing.T) {
	// All of them stand for this directory while nothing is examined.
	dir := fmt.Sprintf("/proc/%d/fd", os.Getpid())
	count := func() (n int) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && to == dir {
				n++
			}
		}
		return n
	}
	if n := count(); n != 0 {
		t.Fatalf("Expected no descriptor at the beginning, got %d", n)
	}
	l := startLimiter()
	eventually(t, "two descriptors", func() bool { return count() == 2 })
	l.stop()
	if n := count(); n != 0 {
		t.Errorf("Expected no descriptor at the end, got %d", n)
	}
}

func BenchmarkGlance(b *testing.B) {
	d := opened(b)
	for b.Loop() {
		d.lowestFree()
	}
}

func BenchmarkScan(b *testing.B) {
	for _, n := range []int{0, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			l := listen(b, "127.0.0.1:0")
			for i := range n {
				dial(b, fmt.Sprintf("127.0.1.%d:0", i%250+1), l.Addr().String())
			}
			d := opened(b)
			limiter := new(limiter)
			limiter.setPorts(portOf(b, l))
			for b.Loop() {
				limiter.scan(d, 0)
			}
		})
	}
}
