//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	batch  = 64
	window = 512 // queries without a reply
)

// load asks a server, each time from the address of another client and for another
// service.
type load struct {
	work    *workload
	right   func(client, service int) []byte
	conn    *net.UDPConn
	packets interface {
		ReadBatch([]ipv4.Message, int) (int, error)
		WriteBatch([]ipv4.Message, int) (int, error)
	}
	next    int
	of      [1 << 16]int // query by message ID
	out, in []ipv4.Message
	source  int // where the source is in the control message

	replies, wrong int
	example        []byte
}

func newLoad(s *subject) (*load, error) {
	conn, err := net.ListenUDP(map[bool]string{false: "udp4", true: "udp6"}[s.work.v6], &net.UDPAddr{})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(4 << 20)
	l := &load{work: s.work, right: s.right, conn: conn}
	query, err := s.work.query()
	if err != nil {
		return nil, err
	}
	// The source is spec_dst in struct in_pktinfo, or ipi6_addr in struct in6_pktinfo.
	any4, any6 := &ipv4.ControlMessage{Src: net.IPv4(127, 0, 0, 1)}, &ipv6.ControlMessage{Src: net.IPv6loopback}
	control := any4.Marshal
	l.packets, l.source = ipv4.NewPacketConn(conn), 20
	if s.work.v6 {
		l.packets, l.source, control = ipv6.NewPacketConn(conn), 16, any6.Marshal
		if err := freeBind(conn); err != nil {
			return nil, err
		}
	}
	for range batch {
		l.out = append(l.out, ipv4.Message{Buffers: [][]byte{bytes.Clone(query)}, Addr: net.UDPAddrFromAddrPort(s.process.addr), OOB: control()})
		l.in = append(l.in, ipv4.Message{Buffers: [][]byte{make([]byte, 2048)}})
	}
	return l, nil
}

// freeBind lets a socket send from any address.
func freeBind(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1) }); e != nil { // #nosec G115 -- a descriptor
		return e
	}
	return err
}

func (l *load) close() { _ = l.conn.Close() }

// run asks for a while. A window that is lost is given up after 50 ms.
func (l *load) run(length time.Duration) {
	waiting := 0
	for end := time.Now().Add(length); time.Now().Before(end); {
		for waiting+batch <= window {
			l.send(batch)
			waiting += batch
		}
		_ = l.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := l.packets.ReadBatch(l.in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			waiting = 0
			continue
		}
		for i := range n {
			l.check(l.in[i].Buffers[0][:l.in[i].N])
		}
		waiting = max(0, waiting-n)
	}
}

// send sends the next n queries, and returns the ID of the first one.
func (l *load) send(n int) (first uint16) {
	first = uint16(l.next) // #nosec G115 -- wraps
	for i := range n {
		l.prepare(&l.out[i])
	}
	for sent := 0; sent < n; {
		more, err := l.packets.WriteBatch(l.out[sent:n], 0)
		if err != nil {
			log.Fatal(err)
		}
		sent += more
	}
	return first
}

// prepare makes a message the next query.
func (l *load) prepare(m *ipv4.Message) {
	id := uint16(l.next) // #nosec G115 -- wraps
	l.of[id] = l.next
	client, service := l.asked(l.next)
	l.next++
	packet := m.Buffers[0]
	binary.BigEndian.PutUint16(packet, id)
	for i := range digits { // of the first label, after its length and a letter
		packet[13+digits-i] = byte('0' + service%10) // #nosec G115 -- a digit
		service /= 10
	}
	addr := l.work.clients[client][:]
	if !l.work.v6 {
		addr = addr[12:]
	}
	copy(m.OOB[l.source:], addr)
}

// asked returns the client and the service of a query: neighbors have nothing in
// common.
func (l *load) asked(query int) (client, service int) {
	return query * 7919 % len(l.work.clients), query * 104729 % l.work.services
}

func (l *load) check(reply []byte) {
	l.replies++
	if len(reply) >= 12 && reply[3]&0xf == 0 && bytes.Contains(reply[12:], l.right(l.asked(l.of[binary.BigEndian.Uint16(reply)]))) {
		return
	}
	l.wrong++
	l.example = bytes.Clone(reply)
}

// verdict returns an error if there were no replies, or a wrong one.
func (l *load) verdict() error {
	if l.wrong > 0 || l.replies == 0 {
		return fmt.Errorf("%d replies, %d of them wrong, such as %x", l.replies, l.wrong, l.example)
	}
	return nil
}
