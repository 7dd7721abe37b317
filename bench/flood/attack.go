package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// attack is one way to harm a server.
type attack struct {
	name, about string
	udp         bool // else TCP
	rate        int  // messages a second, over TCP each in a connection of its own; 0: without a pause
	connections int  // with rate 0
	registered  bool // the node of the stolen key has the most prefixes
	node        bool // a DNS-LB is attacked, and not DNS-B
	messages    func() [][]byte
	lines       func(dir string) (string, error) // of dnsb
}

var attacks = append([]attack{
	{name: "header-100", rate: 100, messages: one(compressed(zone, 1800)), about: "100 UPDATEs of 64 kB a second with 5,400 compressed names, unsigned"},
	{name: "header-unknown-100", rate: 100, messages: one(unknownKey(compressed(zone, 1800))), about: "the same, signed with an unknown key"},
	{name: "records-50", rate: 50, messages: one(compressed(zone, 1500)), about: "50 UPDATEs of 54 kB a second with 4,500 compressed names, the most that are unpacked, unsigned"},
	{name: "records-100", rate: 100, messages: one(compressed(zone, 1500)), about: "100 a second"},
	{name: "records-unknown-50", rate: 50, messages: one(unknownKey(compressed(zone, 1500))), about: "50 a second, signed with an unknown key"},
	{name: "records-unknown-100", rate: 100, messages: one(unknownKey(compressed(zone, 1500))), about: "100 a second"},
	{name: "stray-100", rate: 100, messages: one(unknownKey(compressed("example.net.", 1500))), about: "the same for a zone that the server does not have"},
	{name: "names-100", rate: 100, messages: one(rendezvous(zone, dns.OpcodeUpdate)), about: "100 UPDATEs of 64 kB a second with 32,000 names in one record, unsigned"},
	{name: "names-unknown-100", rate: 100, messages: one(unknownKey(rendezvous(zone, dns.OpcodeUpdate))), about: "the same, signed with an unknown key"},
	{name: "names-query-100", rate: 100, messages: one(rendezvous(zone, dns.OpcodeQuery)), about: "the same record in a query"},
	{name: "strings-query-100", rate: 100, messages: one(textStrings()), about: "100 queries of 64 kB a second with 65,000 empty strings in one record"},
	{name: "apl", udp: true, rate: 2000, registered: true, messages: one(question(registration.PartName(1, stolen, zone), dns.TypeAPL)), about: "2,000 questions a second for a list of 9,000 prefixes"},
	{name: "explain", udp: true, rate: 200, lines: millionPrefixes, messages: one(question("_explain."+cut, dns.TypeTXT)), about: "200 explanations a second at a server with a map of 1,000,000 lines"},
	{name: "explain-2000", udp: true, rate: 2000, lines: millionPrefixes, messages: one(question("_explain."+cut, dns.TypeTXT)), about: "2,000 a second"},
	{name: "unmapped", udp: true, rate: 2000, lines: millionPrefixes, messages: one(question("unmapped._explain."+zone, dns.TypeTXT)), about: "2,000 lists of unmapped resolvers a second"},
	{name: "queries-500", connections: 500, messages: one(question(zone, dns.TypeSOA)), about: "500 connections that ask for SOA without a pause, to compare with those below"},
	{name: "key-500", connections: 500, messages: many(200, func(i int) []byte { return registers(node(stolen, i)) }), about: "500 connections that register with a stolen key without a pause"},
	{name: "key-large-500", connections: 500, registered: true, messages: many(100, func(i int) []byte {
		r := node(stolen, i)
		r.Prefixes = prefixes(9_000, i)
		return registers(r)
	}), about: "the same with 9,000 prefixes, which are others each time"},
	{name: "key-malformed-500", connections: 500, messages: many(1, func(int) []byte { return signedStrings() }), about: "500 connections that send UPDATEs of 64 kB with one TXT record, signed with a stolen key"},
	{name: "prerequisites-5000", connections: 50, registered: true, messages: many(1, func(int) []byte { return prerequisites(5000) }), about: "50 connections that send 5,000 prerequisites on another node"},
	{name: "prerequisites-32", connections: 50, registered: true, messages: many(1, func(int) []byte { return prerequisites(32) }), about: "the same with 32, the most that are unpacked"},
	{name: "cuts", connections: 50, messages: many(200, func(i int) []byte { return registers(manyCuts(i)) }), about: "50 connections that register 1,000 cuts, which are others each time"},
}, nodeAttacks...)

// view is the zone with the view of the DNS-LB that is attacked, to which nobody
// without the view key may get.
const view = "n0._view." + cut

// nodeAttacks are those on a DNS-LB.
var nodeAttacks = []attack{
	{name: "node-axfr", node: true, udp: true, rate: 2000, messages: one(question(view, dns.TypeAXFR)), about: "2,000 questions a second for the view of a DNS-LB, unsigned"},
	{name: "node-axfr-unknown", node: true, udp: true, rate: 2000, messages: one(unknownKey(question(view, dns.TypeAXFR))), about: "the same, signed with an unknown key"},
	{name: "node-axfr-500", node: true, connections: 500, messages: one(unknownKey(question(view, dns.TypeAXFR))), about: "500 connections that ask for it without a pause, signed with an unknown key"},
	{name: "node-notify", node: true, udp: true, rate: 2000, messages: one(notify(view)), about: "2,000 NOTIFYs a second for a view, unsigned"},
	{name: "node-notify-unknown", node: true, udp: true, rate: 2000, messages: one(unknownKey(notify(view))), about: "the same, signed with an unknown key"},
	{name: "node-map-notify", node: true, udp: true, rate: 2000, messages: one(notify("_map." + cut)), about: "2,000 NOTIFYs a second for the map, from the address of its DNS-B"},
	{name: "node-explain", node: true, udp: true, rate: 2000, messages: one(question("_explain.www."+cut, dns.TypeTXT)), about: "2,000 explanations a second of a service"},
	{name: "node-summary", node: true, udp: true, rate: 2000, messages: one(question("_explain."+cut, dns.TypeTXT)), about: "2,000 explanations a second of the server block"},
	{name: "node-nxdomain", node: true, udp: true, rate: 2000, messages: many(1000, func(i int) []byte {
		return question(fmt.Sprintf("x%d.%s", i, cut), dns.TypeA)
	}), about: "2,000 questions a second for names that do not exist"},
	{name: "node-subnet", node: true, udp: true, rate: 2000, messages: one(badSubnet("www." + cut)), about: "2,000 questions a second with a malformed client subnet"},
	{name: "node-strings-100", node: true, rate: 100, messages: one(textStrings()), about: "100 queries of 64 kB a second with 65,000 empty strings in one record"},
	{name: "node-stray-100", node: true, rate: 100, messages: one(unknownKey(compressed(cut, 1500))), about: "100 UPDATEs of 54 kB a second, signed with an unknown key"},
}

// one returns the same message each time.
func one(m []byte) func() [][]byte { return func() [][]byte { return [][]byte{m} } }

// many returns n messages. They are made before the attack, and signed then.
func many(n int, message func(i int) []byte) func() [][]byte {
	return func() [][]byte {
		list := make([][]byte, n)
		for i := range list {
			list[i] = message(i)
		}
		return list
	}
}

// millionPrefixes writes a map of so many lines, and returns the lines that read it.
func millionPrefixes(dir string) (string, error) {
	path := filepath.Join(dir, "map")
	f, err := os.Create(path) // #nosec G304 -- in a directory of our own
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range 1_000_000 {
		fmt.Fprintf(w, "%d.%d.%d.0/24 %s\n", 16+i>>16, i>>8&255, i&255, nodeName(i%nodes))
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return "map " + path + "\nexplain 127.0.0.0/8", nil
}

// flood is an attack under way. Without an attack nothing happens.
type flood struct {
	*attack
	all [][]byte // messages, which are sent in turn

	sent, sentBytes, replies, replyBytes atomic.Int64
	done                                 sync.WaitGroup
}

func (f *flood) start(s *server, stop <-chan struct{}) {
	switch {
	case f.attack == nil:
	case f.udp:
		f.done.Go(func() { f.sendPackets(s, stop) })
	case f.rate > 0:
		f.done.Go(func() {
			paced(f.rate, stop, func(i int) {
				f.done.Go(func() { f.connect(s, func(conn *dns.Conn) { f.exchange(conn, i) }) })
			})
		})
	default:
		var next atomic.Int64
		send := func(conn *dns.Conn) {
			for running(stop) && f.exchange(conn, int(next.Add(1))) {
			}
		}
		for range f.connections {
			f.done.Go(func() {
				for running(stop) {
					f.connect(s, send)
				}
			})
		}
	}
}

func (f *flood) wait() { f.done.Wait() }

// text returns what was sent and received, for a line of the table.
func (f *flood) text(length time.Duration) string {
	if f.attack == nil {
		return ""
	}
	factor := float64(f.replyBytes.Load()) / float64(max(f.sentBytes.Load(), 1))
	return fmt.Sprintf("%7.0f %8.0f %7.2f", float64(f.sent.Load())/length.Seconds(), float64(f.replies.Load())/length.Seconds(), factor)
}

// connect calls use with a connection to the server.
func (f *flood) connect(s *server, use func(*dns.Conn)) {
	conn, err := net.DialTimeout("tcp", s.address, time.Second)
	if err != nil {
		time.Sleep(100 * time.Millisecond)
		return
	}
	defer conn.Close()
	use(&dns.Conn{Conn: conn})
}

// exchange sends a message and reads the reply. It reports whether one came.
func (f *flood) exchange(conn *dns.Conn, i int) bool {
	m := f.all[i%len(f.all)]
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(m); err != nil {
		return false
	}
	f.sent.Add(1)
	f.sentBytes.Add(int64(len(m)))
	n, err := conn.Read(make([]byte, 65535))
	if err != nil {
		return false
	}
	f.replies.Add(1)
	f.replyBytes.Add(int64(n))
	return true
}

func (f *flood) sendPackets(s *server, stop <-chan struct{}) {
	conn, err := net.Dial("udp", s.address)
	if err != nil {
		return
	}
	defer conn.Close()
	f.done.Go(func() {
		b := make([]byte, 65535)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			f.replies.Add(1)
			f.replyBytes.Add(int64(n))
		}
	})
	paced(f.rate, stop, func(i int) {
		m := f.all[i%len(f.all)]
		if _, err := conn.Write(m); err == nil {
			f.sent.Add(1)
			f.sentBytes.Add(int64(len(m)))
		}
	})
}

// paced calls do so often a second until it is stopped.
func paced(rate int, stop <-chan struct{}, do func(i int)) {
	begin := time.Now()
	for i := 0; running(stop); {
		for due := int(time.Since(begin).Seconds() * float64(rate)); i < due; i++ {
			do(i)
		}
		time.Sleep(min(time.Second/time.Duration(rate), 2*time.Millisecond))
	}
}

func running(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}
