package latencyprobe

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// answerDelay is the delay of the DNS server.
const answerDelay = 50 * time.Millisecond

// servers run in processes of their own, by TestMain: a busy test does not
// delay them, and their cost is not part of what a benchmark measures.
var servers = map[string]func() error{"dns": serveDNS}

func TestMain(m *testing.M) {
	serve, ok := servers[os.Getenv("LATENCYPROBE_SERVER")]
	if !ok {
		os.Exit(m.Run())
	}
	go func() { _, _ = os.Stdin.Read(make([]byte, 1)); os.Exit(0) }() // until the test ends
	fmt.Fprintln(os.Stderr, serve())
	os.Exit(1)
}

func serveDNS() error {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(pc.LocalAddr())
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(answerDelay)
		_ = w.WriteMsg(new(dns.Msg).SetReply(r))
	})
	return (&dns.Server{PacketConn: pc, Handler: handler}).ActivateAndServe()
}

// serverProcess starts one of servers until the test ends and returns its
// address.
func serverProcess(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LATENCYPROBE_SERVER="+name)
	cmd.Stderr = os.Stderr
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
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line))
}
