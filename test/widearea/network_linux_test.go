package widearea

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// needNetwork skips a test if this process cannot make a Network or a program
// is missing. In CI the test fails.
func needNetwork(t *testing.T, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("This test makes network namespaces: run it without -short")
	}
	missing := CheckSupport()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = errors.Join(missing, err)
		}
	}
	switch {
	case missing == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("This test needs root, /dev/net/tun and the programs that test/README.md lists, and CI must have them: %v", missing)
	default:
		t.Skipf("This test needs root, /dev/net/tun and the programs that test/README.md lists: %v. Run 'sudo go test -timeout 50m ./test/...'", missing)
	}
}

func TestNetworkDelaysAndDropsPackets(t *testing.T) {
	needNetwork(t)
	m := twoCities(t, 80)
	n, host := newHosts(t, m)
	par := host("par", "Paris", parAddr, netip.MustParseAddr("2001:db8::1"))
	nyc := host("nyc", "NewYork", nycAddr, nycAddr6)
	par2 := host("par2", "Paris", netip.MustParseAddr("192.0.2.3"))
	n.Start()

	for _, to := range nyc.Addrs {
		if got := ping(t, par, to, attempts); got < 80*time.Millisecond || got > 80*time.Millisecond+slack {
			t.Errorf("Expected a reply of %s after 80ms and at most %v more, got %v", to, slack, got)
		}
	}
	if got := ping(t, par2, parAddr, attempts); got < Local || got > Local+slack {
		t.Errorf("Expected a reply inside a city after %v and at most %v more, got %v", Local, slack, got)
	}

	n.SetMatrix(m.With("Paris", "NewYork", 30*time.Millisecond))
	if got := ping(t, nyc, parAddr, attempts); got < 30*time.Millisecond || got > 30*time.Millisecond+slack {
		t.Errorf("Expected a reply over the changed path after 30ms and at most %v more, got %v", slack, got)
	}

	n.SetMatrix(m.WithLoss("Paris", "NewYork", 1))
	if got := ping(t, nyc, parAddr, 1); got != 0 {
		t.Errorf("Expected no reply over a path that loses all packets, got one after %v", got)
	}
	n.SetMatrix(m)
	nyc.Cut(true)
	if got := ping(t, par, nycAddr, 1); got != 0 {
		t.Errorf("Expected no reply of a disconnected host, got one after %v", got)
	}
	nyc.Cut(false)
	if got := ping(t, par, nycAddr, 1); got == 0 {
		t.Error("Expected a reply of a host that is connected again")
	}

	t.Run("tcp", func(t *testing.T) { carryTCP(t, par, nyc) })
	t.Run("process", func(t *testing.T) { runProcess(t, nyc) })
}

const (
	// slack is what a busy machine may add to the shortest round trip.
	slack = 25 * time.Millisecond
	// attempts is the number of round trips to find the shortest of.
	attempts = 10
)

// ping returns the shortest of some round trips, or 0 without a reply.
func ping(t *testing.T, from *Host, to netip.Addr, times int) (shortest time.Duration) {
	t.Helper()
	network, protocol := "ip4:icmp", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, protocol = "ip6:ipv6-icmp", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn *icmp.PacketConn
	err := from.Do(func() (err error) {
		conn, err = icmp.ListenPacket(network, "")
		return err
	})
	if err != nil {
		t.Fatalf("Expected a socket on %s, got %v", from.Name, err)
	}
	defer conn.Close()

	buf := make([]byte, mtu)
	for i := range times {
		echo, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: 77, Seq: i}}).Marshal(nil)
		if err != nil {
			t.Fatalf("Expected an echo request, got %v", err)
		}
		begin := time.Now()
		if _, err := conn.WriteTo(echo, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			t.Fatalf("Expected to send to %s, got error: %v", to, err)
		}
		if err := conn.SetReadDeadline(begin.Add(500 * time.Millisecond)); err != nil {
			t.Fatalf("Expected a deadline, got %v", err)
		}
		for {
			size, _, err := conn.ReadFrom(buf)
			if err != nil {
				break // lost
			}
			took := time.Since(begin)
			answer, err := icmp.ParseMessage(protocol, buf[:size])
			if err != nil || answer.Type != reply || answer.Body.(*icmp.Echo).Seq != i {
				continue
			}
			if shortest == 0 || took < shortest {
				shortest = took
			}
			break
		}
	}
	return shortest
}

// carryTCP sends more than one packet can hold, in both directions.
func carryTCP(t *testing.T, from, to *Host) {
	t.Helper()
	l, err := to.Listen("tcp", 7)
	if err != nil {
		t.Fatalf("Expected to listen, got %v", err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	defer l.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	begin := time.Now()
	conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to.Addr(), 7))
	if err != nil {
		t.Fatalf("Expected a connection, got %v", err)
	}
	defer conn.Close()
	if took := time.Since(begin); took < 80*time.Millisecond {
		t.Errorf("Expected a handshake of at least 80ms, got %v", took)
	}
	sent := strings.Repeat("0123456789abcdef", 4096)
	go func() {
		_, _ = io.WriteString(conn, sent)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || string(got) != sent {
		t.Errorf("Expected %d bytes back, got %d, %v", len(sent), len(got), err)
	}
}

// runProcess checks that a process has the addresses of the host and can be
// ended by its process group.
func runProcess(t *testing.T, h *Host) {
	t.Helper()
	var out strings.Builder
	show := exec.Command("ip", "-brief", "address", "show", "wan0")
	show.Stdout = &out
	if err := h.Run(show); err != nil {
		t.Fatalf("Expected a process, got %v", err)
	}
	if err := show.Wait(); err != nil || !strings.Contains(out.String(), h.Addr().String()) {
		t.Errorf("Expected address %s, got %q, %v", h.Addr(), out.String(), err)
	}

	sleep := exec.Command("sleep", "600")
	if err := h.Run(sleep); err != nil {
		t.Fatalf("Expected a process, got %v", err)
	}
	if err := syscall.Kill(-sleep.Process.Pid, syscall.SIGTERM); err != nil {
		t.Errorf("Expected to signal the process group, got error: %v", err)
	}
	if err := sleep.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("Expected the process to be terminated, got %v", err)
	}
}

// TestRoutersOnTheWay measures routers as a node of a survey does.
func TestRoutersOnTheWay(t *testing.T) {
	needNetwork(t)
	m := twoCities(t, 80)
	n, host := newHosts(t, m)
	par := host("par", "Paris", parAddr, netip.MustParseAddr("2001:db8::1"))
	host("nyc", "NewYork", nycAddr, nycAddr6)
	n.Hops()
	n.Start()
	for _, to := range []netip.Addr{nycAddr, nycAddr6} {
		var path *prober.Path
		if err := par.Do(func() (err error) {
			path, err = prober.OpenPath(t.Context(), prober.DNS{Port: 53, Name: "_survey.example.org.", Type: dns.TypeTXT}, to, netip.Addr{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer path.Close()
		for _, tc := range []struct {
			ttl  int
			want prober.Hop
		}{
			{2, prober.Hop{Addr: m.RouterAddr("NewYork", to.Is6()), RTT: 80 * time.Millisecond}},
			{1, prober.Hop{Addr: m.RouterAddr("Paris", to.Is6()), RTT: Local}},
			{9, prober.Hop{Addr: to, RTT: 80 * time.Millisecond, Last: true}}, // its port is closed
			{2, prober.Hop{Addr: m.RouterAddr("NewYork", to.Is6()), RTT: 80 * time.Millisecond}},
		} {
			best, times := prober.Hop{RTT: time.Hour}, attempts
			if tc.want.Last {
				times = 1 // the kernel does not refuse more packets in a row
			}
			for range times {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				hop, err := path.Probe(ctx, tc.ttl)
				cancel()
				if err != nil {
					t.Fatalf("%s with TTL %d: Expected an answer, got %v", to, tc.ttl, err)
				}
				if hop.RTT < best.RTT {
					best = hop
				}
			}
			if got := best.RTT; got < tc.want.RTT || got > tc.want.RTT+slack {
				t.Errorf("%s with TTL %d: Expected %s and at most %s more, got %s", to, tc.ttl, tc.want.RTT, slack, got)
			}
			if best.RTT = tc.want.RTT; best != tc.want {
				t.Errorf("%s with TTL %d: Expected %+v, got %+v", to, tc.ttl, tc.want, best)
			}
		}
	}
}
