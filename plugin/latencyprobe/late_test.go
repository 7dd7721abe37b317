package latencyprobe

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// distance is how late the server below answers.
const distance = 50 * time.Millisecond

// TestMain is also the server of TestBusyCores, in a process of its own: what
// delays the prober must not delay the server.
func TestMain(m *testing.M) {
	if os.Getenv("LATENCYPROBE_SERVER") == "" {
		os.Exit(m.Run())
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(pc.LocalAddr())
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(distance)
		_ = w.WriteMsg(new(dns.Msg).SetReply(r))
	})
	go func() { _, _ = os.Stdin.Read(make([]byte, 1)); os.Exit(0) }() // until the test ends
	_ = (&dns.Server{PacketConn: pc, Handler: handler}).ActivateAndServe()
}

// TestBusyCores checks that the delay of our own scheduler is not counted as
// latency: with all cores busy in this process, medians move by less than 5 %.
func TestBusyCores(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LATENCYPROBE_SERVER=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(strings.TrimSpace(line))
	m, err := parseMethod([]string{"dns", fmt.Sprint(to.Port()), "www.example.org"})
	if err != nil {
		t.Fatal(err)
	}

	// The kernel's clock against that of this goroutine, side by side.
	measure := func() (median, naive time.Duration) {
		var rtts, clocks []time.Duration
		for range 31 {
			began := time.Now()
			got, err := m.measure(t.Context(), to.Addr(), netip.Addr{})
			clocks = append(clocks, time.Since(began))
			if err != nil {
				t.Fatal(err)
			}
			rtts = append(rtts, got.rtt)
		}
		slices.Sort(rtts)
		slices.Sort(clocks)
		return rtts[len(rtts)/2], clocks[len(clocks)/2]
	}
	idle, _ := measure()

	var (
		stop atomic.Bool
		wg   sync.WaitGroup
	)
	for range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() { //revive:disable-line:empty-block -- that is the load
			}
		})
	}
	busy, naive := measure()
	stop.Store(true)
	wg.Wait()
	t.Logf("Median %s idle, %s with all cores busy; by the goroutine's own clock %s", idle, busy, naive)
	if moved := (busy - idle).Abs(); moved > idle/20 {
		t.Errorf("Expected the median to move by less than 5 %% of %s, got %s", idle, moved)
	}
}

// TestKernelHandshake checks that the kernel's time of a handshake is taken,
// which is shorter than what this process sees.
func TestKernelHandshake(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("The kernel's measurement is read on Linux only")
	}
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
	if rtt, ok := handshakeRTT(conn.(*net.TCPConn)); !ok || rtt <= 0 || rtt > time.Second {
		t.Errorf("Expected the kernel to know, got %s, %v", rtt, ok)
	}
}
