package fastpath

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// The kernel numbers sockets as they were bound. Whether those of the fast path have
// the numbers that the classifier has for them shows only when a query comes. While a
// reload ends, old sockets of CoreDNS may be in between.
const (
	testAttempts = 50
	testWait     = 200 * time.Millisecond
)

// selfTest is a set of queries of this process, one for each number of a reader.
type selfTest struct {
	queries [][]byte
	arrived chan int // the number of a query that a reader received
}

// selfTest switches the fast path off if simple queries do not come here.
func (l *listener) selfTest(ctx context.Context, st *state) {
	var err error
	for range testAttempts {
		if err = l.tryOnce(ctx); err == nil || ctx.Err() != nil {
			return
		}
	}
	l.disable(st, fmt.Sprintf("its sockets do not receive simple queries: %v", err))
}

// tryOnce sends the queries of a self-test, and returns an error unless all arrive.
func (l *listener) tryOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, testWait)
	defer cancel()
	test := &selfTest{arrived: make(chan int, len(l.sockets))}
	for i := range l.sockets {
		query := new(dns.Msg).SetQuestion(rand.Text()+".invalid.", dns.TypeA)
		query.Id = uint16(i) // #nosec G115 -- a few
		packet, err := query.Pack()
		if err != nil {
			return err
		}
		test.queries = append(test.queries, packet)
	}
	l.test.Store(test)
	defer l.test.Store(nil)

	to := *l.local.(*net.UDPAddr)
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 1)
	}
	conn, err := net.DialUDP("udp", nil, &to)
	if err != nil {
		<-ctx.Done()
		return err
	}
	defer conn.Close()
	for _, query := range test.queries {
		if _, err := conn.Write(query); err != nil {
			<-ctx.Done()
			return err
		}
	}
	for missing := len(test.queries); missing > 0; missing-- {
		select {
		case <-test.arrived:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d did not arrive", missing, len(test.queries))
		}
	}
	return nil
}

// receive reports whether a datagram is of a self-test, and counts it there.
func (t *selfTest) receive(packet []byte) bool {
	for i, query := range t.queries {
		if bytes.Equal(query, packet) {
			select {
			case t.arrived <- i:
			default:
			}
			return true
		}
	}
	return false
}
