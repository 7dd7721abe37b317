//go:build linux

package main

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

func TestClientsHavePrefixesOfTheirOwn(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := workload{v6: v6, prefixes: 10_000, services: 1}
		w.draw()
		seen := make(map[netip.Prefix]bool)
		for _, c := range append(w.clients, w.strangers...) {
			p, addr := w.prefix(c), netip.AddrFrom16(c).Unmap()
			if seen[p] || !p.Contains(addr) || addr.Is6() != v6 || addr.IsLoopback() {
				t.Fatalf("Expected each client to have a prefix of its own, got %s in %s, seen before: %v", addr, p, seen[p])
			}
			seen[p] = true
		}
		if len(w.clients) != 10_000 {
			t.Errorf("Expected a client for each prefix, got %d", len(w.clients))
		}
	}
}

func TestQueriesAskForTheirService(t *testing.T) {
	w := workload{qtype: dns.TypeA, services: 100_000, servers: 1000}
	w.draw()
	s := &subject{peer: &peer{}, process: &process{}, work: &w, right: w.right}
	l, err := newLoad(s)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for range 1000 {
		query := l.next
		l.prepare(&l.out[0])
		client, service := l.asked(query)
		m := new(dns.Msg)
		if err := m.Unpack(l.out[0].Buffers[0]); err != nil {
			t.Fatal(err)
		}
		if want := label(service) + "." + cut + "."; m.Question[0].Name != want {
			t.Fatalf("Expected a query for %s, got %s", want, m.Question[0].Name)
		}
		if want := w.clients[client][12:]; !bytes.Equal(l.out[0].OOB[20:24], want) {
			t.Fatalf("Expected the source %v, got %v", want, l.out[0].OOB[20:24])
		}
	}
}

func TestWrongRepliesAreNoticed(t *testing.T) {
	w := workload{qtype: dns.TypeA, prefixes: 100, services: 1}
	w.draw()
	l, err := newLoad(&subject{peer: &peer{}, process: &process{}, work: &w, right: w.right})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.prepare(&l.out[0])
	client, _ := l.asked(0)
	reply := func(node, rcode int) []byte {
		m := new(dns.Msg)
		if err := m.Unpack(l.out[0].Buffers[0]); err != nil {
			t.Fatal(err)
		}
		m.SetRcode(m, rcode)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: nodeAddress(node).AsSlice()}}
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	l.check(reply(client%nodes, dns.RcodeSuccess))
	if err := l.verdict(); err != nil {
		t.Errorf("Expected the reply with the node of the client to be right, got %v", err)
	}
	l.check(reply((client+1)%nodes, dns.RcodeSuccess))
	l.check(reply(client%nodes, dns.RcodeServerFailure))
	l.check([]byte{0, 0})
	if l.wrong != 3 || l.verdict() == nil {
		t.Errorf("Expected three wrong replies, got %d, %v", l.wrong, l.verdict())
	}
}

func TestRatiosAreOfOneRound(t *testing.T) {
	if got := (series{2, 4, 9}).over(series{1, 4, 3}).spread(); got != "1.00/2.00/3.00" {
		t.Errorf("Expected 1.00/2.00/3.00, got %s", got)
	}
}

// lossyPackets answers all queries at once, but for those that are to be lost.
type lossyPackets struct {
	replies [][]byte
	right   []byte
	asked   int
	lost    func(query int) bool
}

func (p *lossyPackets) WriteBatch(queries []ipv4.Message, _ int) (int, error) {
	for _, q := range queries {
		if !p.lost(p.asked) {
			p.replies = append(p.replies, slices.Concat(q.Buffers[0], p.right))
		}
		p.asked++
	}
	return len(queries), nil
}

func (p *lossyPackets) ReadBatch(in []ipv4.Message, _ int) (int, error) {
	if len(p.replies) == 0 {
		time.Sleep(time.Millisecond)
		return 0, unix.EAGAIN
	}
	n := min(len(in), len(p.replies))
	for i, reply := range p.replies[:n] {
		in[i].N = copy(in[i].Buffers[0], reply)
	}
	p.replies = p.replies[n:]
	return n, nil
}

func TestLostQueriesAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workload{qtype: dns.TypeA, prefixes: 100, services: 1}
		w.draw()
		answer := []byte{192, 0, 2, 1}
		l, err := newLoad(&subject{peer: &peer{}, process: &process{}, work: &w, right: func(int, int) []byte { return answer }})
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		const queries, early, late = 250_000, 100, 7 // the IDs of the early ones come three times more
		l.packets = &lossyPackets{right: answer, lost: func(query int) bool { return query < early || query >= queries-late }}
		took, lost := l.runAt(queries, time.Second)
		if lost != early+late || len(took) != queries-early-early-late {
			t.Errorf("Expected %d queries to be lost and %d not to be counted, got %d and %d", early+late, early, lost, queries-len(took)-lost)
		}
		if err := l.verdict(); err != nil {
			t.Error(err)
		}
	})
}
