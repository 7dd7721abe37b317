package tcplimit

import (
	"context"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sys/unix"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

const (
	// scanInterval is the time between two scans of a quiet process.
	scanInterval = 250 * time.Millisecond
	// glanceInterval is the time between two glances at the lowest free
	// descriptor, two system calls each, which tell whether a scan is urgent.
	glanceInterval = 20 * time.Millisecond
	// alarmInterval is the time between two scans while few descriptors are free.
	// In it CoreDNS closes what the last scan has shut down.
	alarmInterval = 5 * time.Millisecond
	// burst is how many more descriptors make a scan urgent at the least.
	burst = 16
)

var (
	connectionCount = promauto.NewGauge(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: "tcplimit",
		Name:      "connections",
		Help:      "Gauge of connections of clients by DNS over TCP and TLS.",
	})

	closedCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: "tcplimit",
		Name:      "closed_total",
		Help:      "Counter of connections closed beyond a limit, by the limit: of a client, or in all.",
	}, []string{"reason"})
)

func init() {
	closedCount.WithLabelValues("client") // so that the first one is an increase
	closedCount.WithLabelValues("total")
}

// limiter scans the descriptors of the process. Its goroutine ends with stop.
type limiter struct {
	ports  atomic.Pointer[ports]
	cancel context.CancelFunc
	done   chan struct{}

	// Owned by the goroutine.
	refusing bool // listeners drop all packets
	urgent   int  // a lowest free descriptor as high as this
	logged   reminder.Keyed
}

func startLimiter() *limiter {
	ctx, cancel := context.WithCancel(context.Background())
	l := &limiter{cancel: cancel, done: make(chan struct{})}
	l.ports.Store(new(ports))
	avoidMultipath()
	go l.run(ctx)
	return l
}

// avoidMultipath makes CoreDNS, which does not listen yet, listen to plain TCP:
// the listeners of Multipath TCP, Go's default, take no filters. An operator who
// wants it says so in GODEBUG.
func avoidMultipath() {
	const name, setting = "GODEBUG", "multipathtcp"
	if debug := os.Getenv(name); !strings.Contains(debug, setting) {
		_ = os.Setenv(name, strings.TrimPrefix(debug+","+setting+"=0", ",")) // cannot fail: no zero bytes
	}
}

func (l *limiter) setPorts(p ports) { l.ports.Store(&p) }

func (l *limiter) stop() {
	l.cancel()
	<-l.done
}

func (l *limiter) run(ctx context.Context) {
	defer close(l.done)
	d, err := openDescriptors()
	if err != nil {
		clog.Warningf("Failed to list the descriptors of this process, connections over TCP are not limited: %v", err)
		return
	}
	defer d.close()
	var last time.Time // of the last scan
	pause := time.NewTimer(glanceInterval)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			l.end(d)
			return
		case <-pause.C:
		}
		free, full := d.lowestFree()
		if !full && !l.refusing && free < l.urgent && time.Since(last) < scanInterval {
			pause.Reset(glanceInterval)
			continue
		}
		last = time.Now()
		l.scan(d, free)
		interval := glanceInterval
		if full || l.refusing {
			interval = alarmInterval
		}
		pause.Reset(max(interval, 4*time.Since(last))) // at most a fifth of a core
	}
}

// end lets listeners accept connections again: a reload that comes to nothing
// keeps them.
func (l *limiter) end(d *descriptors) {
	connectionCount.Set(0)
	if u, err := d.usage(*l.ports.Load()); err == nil && l.refusing {
		_ = d.refuse(u.listeners, false)
	}
}

// scan closes what is beyond the limits.
func (l *limiter) scan(d *descriptors, free int) {
	u, err := d.usage(*l.ports.Load())
	if err != nil {
		return // it will be tried again
	}
	connectionCount.Set(float64(len(u.conns)))
	var allowed unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &allowed); err != nil {
		return
	}
	descriptors := int(min(allowed.Cur, math.MaxInt32)) // #nosec G115 -- bounded
	limit := limitsFor(descriptors, u.others)
	l.urgent = free + max(burst, (limit.total-len(u.conns))/2)

	// The accept loop of CoreDNS takes a whole core while a connection waits for
	// a free descriptor, and those that are closed would come back at once.
	if refuse := u.total > descriptors-limit.spare; refuse != l.refusing && d.refuse(u.listeners, refuse) {
		l.refusing = refuse
		if refuse && l.logged.Failed("descriptors", "") {
			clog.Warningf("Refusing new connections over TCP for a moment: %d descriptors of %d are in use, the others are for probes and files", u.total, descriptors)
		}
	}

	ofClient, ofAll := choose(u.conns, limit)
	if n := d.shutdown(ofClient); n > 0 {
		closedCount.WithLabelValues("client").Add(float64(n))
		if l.logged.Failed("client", "") {
			clog.Warningf("Closed %s over TCP of clients with more than %d, such as %s", plural.Of(n, "connection"), limit.perClient, ofClient[0].peer.Addr())
		}
	}
	if n := d.shutdown(ofAll); n > 0 {
		closedCount.WithLabelValues("total").Add(float64(n))
		if l.logged.Failed("total", "") {
			clog.Warningf("Closed %s over TCP, more than %d in all", plural.Of(n, "connection"), limit.total)
		}
	}
}
