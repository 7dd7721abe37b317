package widearea

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Router takes packets from hosts, and drops them or delivers them after half
// the round-trip time between the two cities. It has no clock, socket or
// goroutine: its caller passes the time, calls Receive for each packet from a
// host, and Deliver when packets are due.
//
// One goroutine calls Receive and Deliver, after all hosts are attached. Others
// may call SetMatrix and the methods of Port at any time.
type Router struct {
	matrix  atomic.Pointer[Matrix]
	ports   map[netip.Addr]*Port
	transit transit
	serial  uint64 // of the newest parcel
	random  *rand.Rand
	tap     func(now time.Time, packet []byte) // nil without one
	hops    bool
}

// Port is the attachment of a host to the router.
type Port struct {
	city  string
	write func(packet []byte)
	cut   atomic.Bool
	sent  sync.Map // *Port to *atomic.Uint64, number of packets
}

// NewRouter returns a Router without hosts. The seed makes the losses
// repeatable.
func NewRouter(m *Matrix, seed uint64) *Router {
	r := &Router{ports: make(map[netip.Addr]*Port), random: rand.New(rand.NewPCG(seed, 0))} // #nosec G404 -- losses need no secrets
	r.matrix.Store(m)
	return r
}

// Attach adds a host in a city of the matrix. It calls write with each packet
// for one of the addresses; write must not block, nor keep the packet.
func (r *Router) Attach(city string, write func(packet []byte), addrs ...netip.Addr) *Port {
	r.Matrix().mustIndex(city)
	p := &Port{city: city, write: write}
	for _, addr := range addrs {
		if _, ok := r.ports[addr]; ok {
			panic("two hosts have the address " + addr.String())
		}
		r.ports[addr] = p
	}
	return p
}

// Tap has a function see each packet that a host sends, also those that are lost.
// It must neither keep nor change the packet. Call Tap before Receive.
func (r *Router) Tap(see func(now time.Time, packet []byte)) { r.tap = see }

// Hops has packets pass routers, which tell the sender if a time to live ends there
// (hops.go). Without, a path has none. Call Hops before Receive.
func (r *Router) Hops() { r.hops = true }

// SetMatrix replaces the matrix. Packets in transit keep their delay.
func (r *Router) SetMatrix(m *Matrix) {
	for _, p := range r.ports {
		m.mustIndex(p.city)
	}
	r.matrix.Store(m)
}

// Matrix returns the current matrix.
func (r *Router) Matrix() *Matrix { return r.matrix.Load() }

// Cut disconnects the host, or connects it again. All packets from and to a
// disconnected host are dropped, including those in transit.
func (p *Port) Cut(cut bool) { p.cut.Store(cut) }

// Sent returns the number of packets from this host to another one, including
// lost packets.
func (p *Port) Sent(to *Port) uint64 {
	if n, ok := p.sent.Load(to); ok {
		return n.(*atomic.Uint64).Load()
	}
	return 0
}

// Receive takes a packet from a host. It copies the packet.
func (r *Router) Receive(now time.Time, from *Port, packet []byte) {
	if r.tap != nil {
		r.tap(now, packet)
	}
	to, ok := r.ports[destination(packet)]
	if !ok {
		return
	}
	n, _ := from.sent.LoadOrStore(to, new(atomic.Uint64))
	n.(*atomic.Uint64).Add(1)
	if from.cut.Load() || to.cut.Load() {
		return
	}
	m := r.matrix.Load()
	path := m.path[m.index[from.city]][m.index[to.city]]
	if path.loss > 0 && r.random.Float64() < path.loss {
		return
	}
	r.serial++
	if left := ttl(packet); r.hops && left <= hops {
		city, rtt := from.city, m.path[m.index[from.city]][m.index[from.city]].rtt
		if left == hops {
			city, rtt = to.city, path.rtt
		}
		reply := timeExceeded(m.RouterAddr(city, packet[0]>>4 == 6), packet)
		heap.Push(&r.transit, parcel{due: now.Add(rtt), serial: r.serial, from: to, to: from, packet: reply})
		return
	}
	heap.Push(&r.transit, parcel{due: now.Add(path.rtt / 2), serial: r.serial, from: from, to: to, packet: append([]byte(nil), packet...)})
}

// Deliver delivers the packets that are due, and returns when the next one is
// due; ok is false if none is in transit.
func (r *Router) Deliver(now time.Time) (next time.Time, ok bool) {
	for len(r.transit) > 0 {
		if first := r.transit[0]; first.due.After(now) {
			return first.due, true
		}
		p := heap.Pop(&r.transit).(parcel)
		if !p.from.cut.Load() && !p.to.cut.Load() {
			p.to.write(p.packet)
		}
	}
	return time.Time{}, false
}

// destination returns the destination address of an IP packet, or the zero
// Addr.
func destination(packet []byte) netip.Addr {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20]))
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40]))
	}
	return netip.Addr{}
}

// parcel is a packet in transit.
type parcel struct {
	due      time.Time
	serial   uint64 // order of packets that are due at the same time
	from, to *Port
	packet   []byte
}

// transit is a heap of the packets in transit, with the first that is due on
// top.
type transit []parcel

func (t transit) Len() int { return len(t) }

func (t transit) Less(i, j int) bool {
	if t[i].due.Equal(t[j].due) {
		return t[i].serial < t[j].serial
	}
	return t[i].due.Before(t[j].due)
}

func (t transit) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *transit) Push(x any)   { *t = append(*t, x.(parcel)) }

func (t *transit) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = parcel{}
	*t = old[:len(old)-1]
	return last
}
