package widearea

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Router is what lies between the hosts: it takes a packet from one, drops it or keeps it for half the round-trip time between their cities, and hands it to the
// other. It has no clock, no socket and no goroutine: whoever drives it says what time it is, calls Receive for packets that came and Deliver when some are due.
//
// Receive and Deliver are for one goroutine, and hosts are attached before it starts. SetMatrix and the methods of Port may be called by others at any time.
type Router struct {
	matrix  atomic.Pointer[Matrix]
	ports   map[netip.Addr]*Port
	transit transit
	serial  uint64
	random  *rand.Rand
}

// Port is where a host is attached to the router.
type Port struct {
	city  string
	write func(packet []byte)
	cut   atomic.Bool
	sent  sync.Map // *atomic.Uint64, how many packets, by *Port
}

// NewRouter returns a Router without hosts. The seed makes losses repeatable.
func NewRouter(m *Matrix, seed uint64) *Router {
	r := &Router{ports: make(map[netip.Addr]*Port), random: rand.New(rand.NewPCG(seed, 0))} // #nosec G404 -- losses need no secrets
	r.matrix.Store(m)
	return r
}

// Attach adds a host: write is called with each packet that arrives for one of its addresses, and must not block or keep it. The matrix must have the city.
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

// SetMatrix replaces the matrix. Packets on their way keep the time of the one before.
func (r *Router) SetMatrix(m *Matrix) {
	for _, p := range r.ports {
		m.mustIndex(p.city)
	}
	r.matrix.Store(m)
}

// Matrix returns the matrix in force.
func (r *Router) Matrix() *Matrix { return r.matrix.Load() }

// Cut takes the host off the network, or puts it back: as long as it is off, all packets from it and to it are dropped, those on their way included.
func (p *Port) Cut(off bool) { p.cut.Store(off) }

// Sent returns how many packets the host has sent to another one, those that were lost included.
func (p *Port) Sent(to *Port) uint64 {
	if n, ok := p.sent.Load(to); ok {
		return n.(*atomic.Uint64).Load()
	}
	return 0
}

// Receive takes a packet that a host sent at the time given. It keeps no reference to the packet.
func (r *Router) Receive(now time.Time, from *Port, packet []byte) {
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
	way := m.path[m.index[from.city]][m.index[to.city]]
	if way.loss > 0 && r.random.Float64() < way.loss {
		return
	}
	r.serial++
	heap.Push(&r.transit, parcel{due: now.Add(way.rtt / 2), serial: r.serial, from: from, to: to, packet: append([]byte(nil), packet...)})
}

// Deliver hands over the packets that are due and returns when the next one will be. It is false if none is on its way.
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

// destination returns where an IP packet is to go, or the zero Addr.
func destination(packet []byte) netip.Addr {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20]))
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40]))
	}
	return netip.Addr{}
}

// parcel is a packet on its way.
type parcel struct {
	due      time.Time
	serial   uint64 // packets due at one time keep their order
	from, to *Port
	packet   []byte
}

// transit is a heap of the packets on their way, the first one due on top.
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
