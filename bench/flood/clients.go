package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	queriesPerSecond = 1000
	queryTimeout     = time.Second
)

// clients are resolvers that ask and nodes that register.
type clients struct {
	server *server
	done   sync.WaitGroup

	mu          sync.Mutex
	queries     int
	answers     []time.Duration
	updates     int
	accepted    []time.Duration
	outstanding map[uint16]time.Time
}

func newClients(s *server) *clients {
	return &clients{server: s, outstanding: make(map[uint16]time.Time)}
}

func (c *clients) start(stop <-chan struct{}) {
	c.done.Go(func() { c.resolve(stop) })
	for i := range nodes {
		if c.server.node {
			break // nobody registers there
		}
		c.done.Go(func() { c.renew(i, stop) })
	}
}

func (c *clients) wait() { c.done.Wait() }

// resolve sends queries, and takes those as answered that get a referral in time.
func (c *clients) resolve(stop <-chan struct{}) {
	conn, err := net.Dial("udp", c.server.address)
	if err != nil {
		return
	}
	c.done.Go(func() { c.read(conn) })
	query := question("www."+cut, dns.TypeA)
	paced(queriesPerSecond, stop, func(i int) {
		id := uint16(i) // #nosec G115 -- wraps
		binary.BigEndian.PutUint16(query, id)
		c.mu.Lock()
		c.queries++
		c.outstanding[id] = time.Now()
		c.mu.Unlock()
		_, _ = conn.Write(query)
	})
	time.Sleep(queryTimeout)
	_ = conn.Close()
}

func (c *clients) read(conn net.Conn) {
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		wanted := 8 // number of records of the authority section: a referral
		if c.server.node {
			wanted = 6 // of the answer section
		}
		if n < 12 || binary.BigEndian.Uint16(b[wanted:]) == 0 {
			continue
		}
		id := binary.BigEndian.Uint16(b)
		c.mu.Lock()
		if sent, ok := c.outstanding[id]; ok {
			delete(c.outstanding, id)
			if wait := time.Since(sent); wait < queryTimeout {
				c.answers = append(c.answers, wait)
			}
		}
		c.mu.Unlock()
	}
}

// renew registers a node once a second.
func (c *clients) renew(i int, stop <-chan struct{}) {
	time.Sleep(time.Second * time.Duration(i) / nodes)
	for running(stop) {
		begin := time.Now()
		err := c.server.register(node(nodeName(i), 0))
		wait := time.Since(begin)
		c.mu.Lock()
		c.updates++
		if err == nil {
			c.accepted = append(c.accepted, wait)
		}
		c.mu.Unlock()
		select {
		case <-stop:
		case <-time.After(time.Second - min(wait, time.Second)):
		}
	}
}

// String returns what clients got, for a line of the table.
func (c *clients) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%8d %5.1f%% %6.2f %6.2f %8d %6.0f%% %6.1f %8.0f", c.queries, lost(c.queries, len(c.answers)),
		quantile(c.answers, 0.5), quantile(c.answers, 0.99), c.updates, lost(c.updates, len(c.accepted)), quantile(c.accepted, 0.5), quantile(c.accepted, 1))
}

func lost(of, got int) float64 { return 100 * float64(of-got) / float64(max(of, 1)) }

// quantile returns one of some times, in milliseconds.
func quantile(times []time.Duration, q float64) float64 {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return float64(times[int(q*float64(len(times)-1))]) / float64(time.Millisecond)
}
