//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	batch  = 64
	window = 512 // queries without a reply
)

// load is a closed loop of queries, each from the address of another client.
type load struct {
	subject *subject
	conn    *net.UDPConn
	packets *ipv4.PacketConn
	to      *net.UDPAddr
	clients []uint32
	next    int
	of      [1 << 16]int32 // client by message ID
	out, in []ipv4.Message

	replies, wrong int
	example        []byte
}

func newLoad(s *subject, clients []uint32) (*load, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(4 << 20)
	l := &load{subject: s, conn: conn, packets: ipv4.NewPacketConn(conn), to: &net.UDPAddr{IP: serverAddr, Port: s.server.port}, clients: clients}
	for range batch {
		l.out = append(l.out, ipv4.Message{Buffers: [][]byte{bytes.Clone(s.query)}, Addr: l.to, OOB: (&ipv4.ControlMessage{Src: serverAddr}).Marshal()})
		l.in = append(l.in, ipv4.Message{Buffers: [][]byte{make([]byte, 2048)}})
	}
	return l, nil
}

func (l *load) close() { _ = l.conn.Close() }

// run asks for a while. A window that is lost is given up after 50 ms.
func (l *load) run(length time.Duration) {
	waiting := 0
	for end := time.Now().Add(length); time.Now().Before(end); {
		for waiting+batch <= window {
			l.send()
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

func (l *load) send() {
	for i := range l.out {
		l.prepare(i)
	}
	for sent := 0; sent < len(l.out); {
		n, err := l.packets.WriteBatch(l.out[sent:], 0)
		if err != nil {
			return
		}
		sent += n
	}
}

// prepare makes the next query the i-th one to be sent, and returns its ID.
func (l *load) prepare(i int) uint16 {
	id, client := uint16(l.next), l.next*7919%len(l.clients) // #nosec G115 -- wraps
	l.next++
	l.of[id] = int32(client) // #nosec G115 -- a million
	m := &l.out[i]
	binary.BigEndian.PutUint16(m.Buffers[0], id)
	// The source is spec_dst in struct in_pktinfo, at the end of the header.
	binary.BigEndian.PutUint32(m.OOB[20:], l.clients[client]|1)
	return id
}

func (l *load) check(reply []byte) {
	l.replies++
	if len(reply) < 12 || reply[3]&0xf != 0 || !bytes.Contains(reply[12:], l.subject.right(int(l.of[binary.BigEndian.Uint16(reply)]))) {
		l.wrong++
		l.example = bytes.Clone(reply)
	}
}
