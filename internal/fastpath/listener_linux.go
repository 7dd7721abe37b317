package fastpath

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin/metrics/vars"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// drainTime is how long the kernel may still give datagrams to a reader after it
	// was told not to.
	drainTime = 10 * time.Millisecond
	// graceTime is how long the chain has to answer at the end, as in CoreDNS.
	graceTime = 5 * time.Second
)

// listener has the sockets of the fast path at one address, over all reloads.
type listener struct {
	addr    string // of the server of CoreDNS
	results results
	enabled prometheus.Gauge

	changing sync.Mutex // while configure or close runs
	closed   bool
	sockets  []*os.File
	local    net.Addr

	mu    sync.RWMutex // of state, read-locked while a batch is answered
	state *state

	test     atomic.Pointer[selfTest] // nil: none is running
	stopping atomic.Bool
	cancel   context.CancelFunc // of the self-test
	readers  sync.WaitGroup
	others   sync.WaitGroup // handovers and self-tests
}

// state is what a listener serves between two reloads.
type state struct {
	site     site
	handover *handover
	off      atomic.Bool // it has switched itself off
}

func newListener(addr string) *listener { return &listener{addr: addr} }

// configure makes the listener serve a site. Until its server has started, the
// listener serves the previous one.
func (l *listener) configure(s site) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if s.server == nil || l.closed {
		return nil
	}
	if l.sockets == nil {
		if err := l.open(); err != nil {
			l.closeSockets()
			return err
		}
	}
	st := &state{site: s, handover: newHandover(s.server, l.local, l.sockets[0])}
	l.others.Go(func() { <-st.handover.done })
	previous := l.swap(st)
	if previous != nil {
		l.cancel()
		previous.handover.close()
	} else {
		for _, socket := range l.sockets {
			r := newReader(l, socket)
			l.readers.Go(r.run)
		}
	}
	if err := attach(l.sockets[0], classifier(len(l.sockets))); err != nil {
		return err
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.enabled.Set(1)
	l.others.Go(func() { l.selfTest(ctx, st) })
	return nil
}

// open opens the sockets, one for each core. What they receive before the classifier
// is attached is handed over, if it is not simple.
func (l *listener) open() error {
	l.results, l.enabled = newResults(l.addr), enabledGauge.WithLabelValues(l.addr)
	for i := range runtime.GOMAXPROCS(0) {
		socket, err := openSocket(l.addr)
		if err != nil {
			return fmt.Errorf("open a socket: %w", err)
		}
		l.sockets = append(l.sockets, socket)
		if i > 0 {
			continue
		}
		if err := attach(socket, bypass); err != nil {
			return err
		}
		if l.local, err = net.ResolveUDPAddr("udp", hostPort(l.addr)); err != nil {
			return fmt.Errorf("resolve its address: %w", err)
		}
		if udp := l.local.(*net.UDPAddr); udp.IP == nil { // of a wildcard
			udp.IP = net.IPv6unspecified
		}
	}
	return nil
}

// swap makes st the state and returns the previous one, which no reader uses any
// more.
func (l *listener) swap(st *state) *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	previous := l.state
	l.state = st
	return previous
}

// disable leaves all queries to the chain until the next reload.
func (l *listener) disable(st *state, why string) {
	if st.off.Swap(true) {
		return
	}
	log.Errorf("Switched the fast path at %s off, leaving all queries to the plugin chain: %s", l.addr, why)
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.state != st {
		return // another instance has replaced it
	}
	l.enabled.Set(0)
	if err := attach(l.sockets[0], bypass); err != nil {
		log.Warningf("Failed to bypass the fast path at %s, passing all queries on to the plugin chain: %v", l.addr, err)
	}
}

// answer answers a query. If that panics, the fast path is off.
func (l *listener) answer(st *state, z *zone, q *Query, out []byte) (n int, ok bool) {
	if z == nil || st.off.Load() {
		return 0, false
	}
	defer func() {
		if p := recover(); p != nil {
			n, ok = 0, false
			vars.Panic.Inc()
			why := fmt.Sprintf("it panicked at query %x, please report this as an error of the program: %v\n%s", q.packet, p, debug.Stack())
			l.others.Go(func() { l.disable(st, why) }) // it takes the lock that a reader holds
		}
	}()
	if q.Trial {
		q.basis = z.answerer.Basis(q)
	}
	return z.answerer.Answer(q, out)
}

// of returns the zone of a query, nil if the chain answers for it.
func (zs zones) of(q *Query) *zone {
	for _, label := range q.Labels {
		if z, ok := zs[string(q.Name[label:])]; ok {
			return z
		}
	}
	return nil
}

// close ends the listener. The chain gets the datagrams from now on, and answers those
// that have come.
func (l *listener) close() {
	l.changing.Lock()
	defer l.changing.Unlock()
	l.closed = true
	if l.state == nil { // it was never open
		l.closeSockets()
		return
	}
	l.cancel()
	if err := attach(l.sockets[0], bypass); err != nil {
		log.Warningf("Failed to bypass the fast path at %s before it closes, losing queries of this moment: %v", l.addr, err)
	}
	time.Sleep(drainTime)
	l.stopping.Store(true)
	l.readers.Wait()
	l.swap(nil).handover.close()
	answered := make(chan struct{})
	go func() { l.others.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(graceTime):
	}
	l.closeSockets()
	enabledGauge.DeleteLabelValues(l.addr)
}

func (l *listener) closeSockets() {
	for _, socket := range l.sockets {
		_ = socket.Close()
	}
	l.sockets = nil
}
