//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// first and second are the addresses of the two servers, or nodes, of a trial.
func first(trial int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 1, 0, byte(trial) + 1}) } // #nosec G115 -- up to 200
func second(trial int) netip.Addr { return netip.AddrFrom4([4]byte{10, 2, 0, byte(trial) + 1}) } // #nosec G115 -- up to 200

// sites returns the resolvers of a trial.
func sites(trial int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 3, byte(trial), 0}), 24) // #nosec G115 -- up to 200
}

// machines are those that the program measures. They accept connections at port 8000,
// and answer all questions by DNS.
type machines struct {
	listeners map[netip.Addr]net.Listener
	delays    map[netip.Addr]*atomic.Int64 // of DNS, nanoseconds
	servers   []*dns.Server
}

const filter = "reaction"

func newMachines(trials int, dnsPort uint16) (*machines, error) {
	m := &machines{listeners: make(map[netip.Addr]net.Listener), delays: make(map[netip.Addr]*atomic.Int64)}
	for i := range trials {
		for _, addr := range []netip.Addr{first(i), second(i)} {
			if err := m.add(addr, dnsPort); err != nil {
				return nil, errors.Join(err, m.closeAll())
			}
		}
	}
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader("table ip " + filter + " {\nset silent { type ipv4_addr; }\nchain input { type filter hook input priority 0; ip daddr @silent drop; }\n}\n")
	if out, err := nft.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("nft: %w: %s", err, out), m.closeAll())
	}
	return m, nil
}

func (m *machines) add(addr netip.Addr, dnsPort uint16) error {
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 8000).String())
	if err != nil {
		return err
	}
	m.listeners[addr] = l
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	conn, err := net.ListenPacket("udp", netip.AddrPortFrom(addr, dnsPort).String())
	if err != nil {
		return err
	}
	delay := new(atomic.Int64)
	m.delays[addr] = delay
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(time.Duration(delay.Load()))
		reply := new(dns.Msg).SetReply(r)
		reply.Authoritative = true
		reply.Answer = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60}, Ns: cut, Mbox: cut, Serial: 1}}
		_ = w.WriteMsg(reply)
	})}
	m.servers = append(m.servers, s)
	go func() { _ = s.ActivateAndServe() }()
	return nil
}

// refuse has a machine refuse connections.
func (m *machines) refuse(addr netip.Addr) error { return m.listeners[addr].Close() }

// silence has a machine get nothing.
func (m *machines) silence(addr netip.Addr) error {
	return execute(fmt.Sprintf("nft add element ip %s silent { %s }", filter, addr))
}

// slow has a machine answer 50 ms later.
func (m *machines) slow(addr netip.Addr) error {
	m.delays[addr].Store(int64(50 * time.Millisecond))
	return nil
}

func (m *machines) close() {
	_ = m.closeAll() // a listener that refuses is closed
	_ = execute("nft delete table ip " + filter)
}

func (m *machines) closeAll() (err error) {
	for _, l := range m.listeners {
		err = errors.Join(err, l.Close())
	}
	for _, s := range m.servers {
		err = errors.Join(err, s.PacketConn.Close())
	}
	return err
}

// process is the program.
type process struct {
	cmd *exec.Cmd
	log string
}

// start starts the program with a Corefile.
func start(program, dir, corefile string) (*process, error) {
	path := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(path, []byte(corefile), 0o600); err != nil {
		return nil, err
	}
	p := &process{log: filepath.Join(dir, "log")}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(program, "-conf", path) // #nosec G204 -- the caller names it
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// said returns what the program has logged first.
func (p *process) said() error {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	return fmt.Errorf("the program said: %.3000s", text)
}
