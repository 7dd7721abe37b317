package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	zone   = "gslb.example.org."
	cut    = "svc." + zone
	secret = "Zmxvb2QtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=" // #nosec G101 -- of a server that lives for seconds
	nodes  = 10                                             // that renew their registrations
	stolen = "stolen"                                       // the node whose key the attacker has
)

// server is a running program.
type server struct {
	cmd     *exec.Cmd
	dir     string
	log     bytes.Buffer
	address string
	node    bool // a DNS-LB
}

// startServer starts the program with a Corefile for an attack, and waits until it
// has the nodes.
func startServer(program string, a attack) (*server, error) {
	dir, err := os.MkdirTemp("", "flood")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, node: a.node}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.address = "127.0.0.1:" + strconv.Itoa(port)
	var keys, accepts strings.Builder
	for i := range nodes {
		fmt.Fprintf(&keys, "secret %s %s\n", keyName(nodeName(i)), secret)
		fmt.Fprintf(&accepts, "accept %s %s any\n", keyName(nodeName(i)), nodeName(i))
	}
	fmt.Fprintf(&keys, "secret %s %s\n", keyName(stolen), secret)
	fmt.Fprintf(&accepts, "accept %s %s any\n", keyName(stolen), stolen)
	lines := ""
	if a.lines != nil {
		if lines, err = a.lines(dir); err != nil {
			return nil, err
		}
	}
	corefile := fmt.Sprintf("%s:%d {\nbind 127.0.0.1\ntsig {\n%s}\ndnsb {\nns b1 127.0.0.1\nlease 1m 2h\n%s%s\n}\n}\n", zone, port, &keys, &accepts, lines)
	if a.node {
		corefile = nodeCorefile(port)
	}
	path := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(path, []byte(corefile), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(program, "-conf", path) // #nosec G204 -- the caller names it
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.prepare(a); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w; the program said: %s", err, &s.log)
	}
	return s, nil
}

// nodeCorefile returns the Corefile of a DNS-LB with 100 services of two servers
// each, whose DNS-B does not answer.
func nodeCorefile(port int) string {
	var lines strings.Builder
	for i := range 20 {
		fmt.Fprintf(&lines, "server s%d 127.0.1.%d\n", i, i+1)
	}
	fmt.Fprintf(&lines, "service www.%s s0 s1\n", cut)
	for i := range 100 {
		fmt.Fprintf(&lines, "service w%d.%s s%d s%d\n", i, cut, i%20, (i+1)%20)
	}
	return fmt.Sprintf("%s:%d {\nbind 127.0.0.1\ntsig {\nsecret views.key. %s\n}\nlatencyprobe {\nrtt tcp %d\n}\n"+
		"dnslb {\nnode n0 127.0.0.1\nnear 198.51.100.0/24\nregister 127.0.0.1:1\nkey %s %s\ndeputy n1\nview-key views.key.\nexplain 127.0.0.0/8\n%s}\n}\n",
		cut, port, secret, port, keyName("n0"), secret, &lines)
}

// prepare waits until a DNS-LB answers, or registers all nodes, the stolen one with the most that it may have.
func (s *server) prepare(a attack) error {
	deadline := time.Now().Add(time.Minute)
	if s.node {
		m := new(dns.Msg).SetQuestion("www."+cut, dns.TypeA)
		for {
			if r, _, err := new(dns.Client).Exchange(m, s.address); err == nil && len(r.Answer) > 0 {
				return nil
			} else if time.Now().After(deadline) {
				return fmt.Errorf("no answer of the DNS-LB: %v, %w", r, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for i := 0; i < nodes; {
		switch err := s.register(node(nodeName(i), 0)); {
		case err == nil:
			i++
		case time.Now().After(deadline):
			return err
		default:
			time.Sleep(100 * time.Millisecond)
		}
	}
	if !a.registered {
		return nil
	}
	messages, err := largest(0).Messages()
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := s.send(m, keyName(stolen), time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// register sends a registration and returns once it is accepted.
func (s *server) register(r *registration.Registration) error {
	m, err := r.Message()
	if err != nil {
		return err
	}
	return s.send(m, keyName(r.Node), 2*time.Second)
}

func (s *server) send(m *dns.Msg, key string, timeout time.Duration) error {
	c := &dns.Client{Net: "tcp", Timeout: timeout, TsigSecret: map[string]string{key: secret}}
	m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	r, _, err := c.Exchange(m, s.address)
	if err == nil && r.Rcode != dns.RcodeSuccess {
		err = fmt.Errorf("registration: %s", dns.RcodeToString[r.Rcode])
	}
	return err
}

func (s *server) stop() {
	if s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// usage is what the server took during a measurement.
type taken struct {
	cores  float64 // mean number of processors
	memory int64   // bytes, at most
}

// observe runs load until it is stopped, for a time, and returns what the server
// took meanwhile.
func (s *server) observe(length time.Duration, load func(stop <-chan struct{})) (taken, error) {
	stop := make(chan struct{})
	before, _, err := s.usage()
	if err != nil {
		return taken{}, err
	}
	begin := time.Now()
	load(stop)
	var u taken
	for time.Since(begin) < length {
		time.Sleep(50 * time.Millisecond)
		_, memory, err := s.usage()
		if err != nil {
			close(stop)
			return u, err
		}
		u.memory = max(u.memory, memory)
	}
	after, _, err := s.usage()
	u.cores = float64(after-before) / float64(time.Since(begin))
	close(stop)
	return u, err
}

// usage returns the CPU time and the resident memory of the server by now (proc(5)).
func (s *server) usage() (cpu time.Duration, memory int64, err error) {
	const tick = time.Second / 100
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(n) * tick
	}
	pages, err := strconv.ParseInt(fields[21], 10, 64)
	return cpu, pages * int64(os.Getpagesize()), err
}

// freePort returns a port that is free over UDP and TCP, and that no client gets: it
// would answer itself while the server starts.
func freePort() (int, error) {
	var last error
	for range 100 {
		port := 6000 + rand.IntN(2000) // #nosec G404 -- no secret
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if last = err; err != nil {
			continue
		}
		p, err := net.ListenPacket("udp", address)
		_ = l.Close()
		if last = err; err == nil {
			_ = p.Close()
			return port, nil
		}
	}
	return 0, last
}

func nodeName(i int) string      { return "n" + strconv.Itoa(i) }
func keyName(node string) string { return node + ".key." }
func address(i int) netip.Addr   { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 250)}) } // #nosec G115 -- below 250
func serial() uint64             { return nextSerial.next() }

// serials makes each serial larger than the one before.
type serials struct {
	mu   sync.Mutex
	last uint64
}

var nextSerial serials

func (s *serials) next() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last+1, uint64(time.Now().UnixMilli())) // #nosec G115 -- positive since 1970
	return s.last
}
