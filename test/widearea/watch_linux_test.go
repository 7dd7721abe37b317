package widearea

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// watcher has one client repeat one question to its resolver.
type watcher struct {
	isp      *isp
	question question

	mu     sync.Mutex
	answer string    // city of the server, or a lasting failure
	since  time.Time // first time of answer
	misses int       // queries without an address, in a row

	// Since the last event.
	at       time.Time // of the event
	deadline time.Time // for the expected answer to settle
	before   string    // answer before the event
	want     string    // expected answer
	settled  time.Time // time of the expected answer once it lasts, or zero
	lost     string    // another lasting answer after that
	failed   int       // queries without an address
	wrong    string    // first other answer, or failure other than no reply
}

type question struct {
	name  string
	qtype uint16
}

// questions are the questions of each client. The table shows the answer to the
// first.
var questions = []question{{"www", dns.TypeA}, {"www", dns.TypeAAAA}, {"shop", dns.TypeA}}

func (q question) String() string { return q.name + " " + dns.TypeToString[q.qtype] }

// noReply is the answer of a client without a reply.
const noReply = "no reply"

const (
	// every is the time between two queries of a client.
	every = 250 * time.Millisecond
	// patience is how long a client waits for a reply, as operating systems do
	// before they ask again.
	patience = 5 * time.Second
	// steady is the number of failures in a row that change the answer.
	steady = 3
	// stays is how long an answer must stay the same to be settled: some
	// resolvers ask a node and its deputy in turns, and both must give the
	// answer.
	stays = 12 * time.Second
	// strictly is how long no answer may be wrong in a strict step: until long
	// after a dead node is down.
	strictly = 90 * time.Second
)

// watchers are the watchers of all clients.
type watchers struct {
	*lab
	all []*watcher
}

// watch starts all clients, which end with the test.
func (l *lab) watch(t *testing.T) *watchers {
	t.Helper()
	ws := &watchers{lab: l}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, i := range l.isps {
		for _, q := range questions {
			w := &watcher{isp: i, question: q}
			ws.all = append(ws.all, w)
			running.Go(func() {
				tick := time.NewTicker(every)
				defer tick.Stop()
				for {
					w.note(l.lookup(i, q))
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
				}
			})
		}
	}
	return ws
}

// lookup returns the city of the server in the answer to a client, or a
// failure.
func (l *lab) lookup(i *isp, q question) (city string, ok bool) {
	reply, _, err := ask(i.client, i.resolver.Addr(), q.name+".example.org.", q.qtype, true, patience)
	if err != nil {
		return noReply, false
	}
	addrs := addresses(reply)
	if len(addrs) != 1 {
		return fmt.Sprintf("%s with %d addresses", dns.RcodeToString[reply.Rcode], len(addrs)), false
	}
	for city, h := range l.servers {
		if slices.Contains(h.Addrs, addrs[0]) && addrs[0].Is4() == (q.qtype == dns.TypeA) {
			return city, true
		}
	}
	return addrs[0].String(), false
}

// note records the result of one query.
func (w *watcher) note(answer string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.misses++
	if answer != w.want && answer != noReply && w.wrong == "" {
		w.wrong = fmt.Sprintf("%s after %.1f s", answer, time.Since(w.at).Seconds())
	}
	if ok {
		w.misses = 0
	} else if w.failed++; w.misses < steady {
		return // a lost query does not change the answer
	}
	if answer != w.answer {
		w.answer, w.since = answer, time.Now()
		switch {
		case w.settled.IsZero():
		case w.since.Before(w.deadline):
			w.settled = time.Time{} // a node and its deputy switch one after the other
		case w.lost == "":
			w.lost = answer
		}
	}
	if w.settled.IsZero() && w.answer == w.want && time.Since(w.since) >= stays {
		w.settled = w.since
	}
}

// expect sets the expected answer after an event.
func (w *watcher) expect(want string, at, deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.deadline, w.before, w.want = at, deadline, w.answer, want
	w.settled, w.lost, w.failed, w.wrong = time.Time{}, "", 0, ""
	if w.answer == want {
		w.settled = at
	}
}

// outcome is a copy of the fields of a watcher.
type outcome struct {
	before, answer, lost, wrong string
	settled                     time.Time
	failed                      int
}

func (w *watcher) outcome() outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	return outcome{w.before, w.answer, w.lost, w.wrong, w.settled, w.failed}
}

// pending reports whether the expected answer has not settled and still can: an
// answer just before the deadline gets the time to settle.
func (w *watcher) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.settled.IsZero() && time.Now().Before(w.deadline.Add(stays+every+patience))
}

// await waits until all clients get the expected answer after an event, fails
// the test for those that do not get it in the allowed time, and adds a row for
// each city to the table.
func (ws *watchers) await(t *testing.T, table *table, event string, at time.Time, want func(city string) string, allowed time.Duration, strict bool) {
	t.Helper()
	counts := make(map[*isp]packetCounts)
	for _, i := range ws.isps {
		counts[i] = ws.packetCounts(i)
	}
	for _, w := range ws.all {
		w.expect(want(w.isp.city), at, at.Add(allowed))
	}
	if strict {
		time.Sleep(strictly)
	}
	for slices.ContainsFunc(ws.all, (*watcher).pending) {
		time.Sleep(every / 5)
	}
	for _, i := range ws.isps {
		r := &row{event: event, city: i.city, resolver: i.kind.name, deputyShare: ws.packetCounts(i).deputyShare(counts[i]), allowed: allowed}
		table.rows = append(table.rows, r)
		for _, w := range ws.all {
			if w.isp != i {
				continue
			}
			o := w.outcome()
			r.failed += o.failed
			if r.answer == "" || o.answer != want(i.city) {
				r.answer = o.answer
			}
			switch {
			case strict && o.wrong != "":
				r.wrong = true
				t.Errorf("%s: Expected the client in %s to get only %s for %s, got %s", event, i.city, want(i.city), w.question, o.wrong)
			case o.settled.IsZero():
				r.wrong = true
				t.Errorf("%s: Expected the answer to the client in %s to change from '%s' to %s for %s within %v, got '%s'", event, i.city, o.before, want(i.city), w.question, r.allowed, o.answer)
			case o.settled.Sub(at) > r.allowed:
				t.Errorf("%s: Expected the answer to the client in %s to change from '%s' to %s for %s within %v, got %v", event, i.city, o.before, want(i.city), w.question, r.allowed, o.settled.Sub(at))
			case o.lost != "":
				t.Errorf("%s: Expected the client in %s to keep %s for %s, got '%s' for some time", event, i.city, want(i.city), w.question, o.lost)
			}
			r.reacted = max(r.reacted, o.settled.Sub(at))
		}
		ws.measure(t, r, i)
	}
}

// measure adds the referral and the latencies of a city to a row.
func (ws *watchers) measure(t *testing.T, r *row, i *isp) {
	t.Helper()
	var err error
	if r.node, err = ws.referral(i); err != nil {
		t.Errorf("%s: Expected a referral for %s, got error: %v", r.event, i.city, err)
	}
	var live []string
	for city, h := range ws.servers {
		if !h.port.cut.Load() {
			live = append(live, city)
		}
	}
	slices.Sort(live)
	r.steered = steered{ws.Matrix(), live}
	fastest, _ := ws.Matrix().Nearest(i.city, live)
	r.best = ws.Matrix().RTT(i.city, fastest)
	h, ok := ws.servers[r.answer]
	if !ok {
		return
	}
	expected := ws.Matrix().RTT(i.city, r.answer)
	r.rtt, err = connect(i.client, h.Addr(), expected+slack)
	if err != nil || r.rtt < expected || r.rtt > expected+slack {
		t.Errorf("%s: Expected %s to be %v from %s and at most %v more, got %v, %v", r.event, r.answer, expected, i.city, slack, r.rtt, err)
	}
}

// connect returns the time of the shortest of many TCP handshakes: on a busy machine
// most of them wait for a core. It stops at the first one that is short enough.
func connect(from *Host, to netip.Addr, enough time.Duration) (shortest time.Duration, err error) {
	for range 10 * attempts {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		began := time.Now()
		conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to, 80))
		took := time.Since(began)
		cancel()
		if err != nil {
			return 0, err
		}
		_ = conn.Close()
		if shortest == 0 || took < shortest {
			shortest = took
		}
		if shortest <= enough {
			break
		}
	}
	return shortest, nil
}
