package widearea

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

const (
	// foundWithin is the time from the first question of a client until it gets its
	// best server, on a machine that is not busy. Nodes ask for work every 10 s and
	// send some packets, and learn of the result with one of the next versions of the
	// map, of which they fetch one a minute.
	foundWithin = 2 * time.Minute
	// busy is how much longer a test waits on any machine.
	busy = 3
	// mostPackets is how many packets a node sends to an address, and mostForRouter how
	// many to measure the last router on the way.
	mostPackets, mostForRouter = 5, 10
	// lowBudget is the budget of the survey for the further networks, in packets a
	// second, and ahead for how many seconds of it work is given at once.
	lowBudget, ahead = 4, 10
	// saved is how long after a report DNS-B has written it.
	saved = 10*time.Second + overhead
)

// found is what came of the questions of a client.
type found struct {
	began time.Time // the first question
	first string    // answer
	since time.Time // of the last answer
	last  string    // answer, as all since then
}

// TestSurveyFindsBestServers has clients of three providers ask for a service, whose
// resolvers nobody wrote down. They must get their best servers by what the nodes
// measure: of the provider that is silent, its router. One node lies. Then DNS-B is
// killed, and may not measure anything again; and more networks ask than its budget
// allows to measure at once. All probes are counted on the wire.
func TestSurveyFindsBestServers(t *testing.T) {
	needNetwork(t, "go", "nsd", "nft", bind.program, knot.program, unbound.program)
	m := cities(t)
	l := newSurveyLab(t, m, build(t))
	s := &surveyTest{surveyLab: l, matrix: m, found: make(map[*stranger]*found), atLast: make(map[*stranger]found)}
	t.Cleanup(func() { s.print(t) })

	s.started = time.Now()
	s.wait(t, "all nodes to measure each other", func() string { return s.unmeasuredPair() })
	s.ready = time.Now()
	stop := sync.OnceFunc(s.askOn())
	defer stop()

	s.wait(t, "the best servers", s.notFound)
	s.wait(t, "the liar to be found out", func() string {
		if state := s.state(); !strings.Contains(state, fmt.Sprintf("%s asked for work", liar)) || !strings.Contains(state, "implausible latencies") {
			return state
		}
		return ""
	})
	s.done = time.Now()
	s.mu.Lock()
	for one, f := range s.found {
		s.atLast[one] = *f
	}
	s.mu.Unlock()
	s.checkBudgets(t)
	if t.Failed() {
		return
	}

	time.Sleep(saved)
	s.killed = time.Now()
	l.restartDNSB(t, fmt.Sprintf("budget %d", lowBudget))
	s.wait(t, "the further networks to be measured", s.crowdUnmeasured)
	s.wait(t, "the best servers", s.notFound)
	s.crowded = time.Now()
	again := l.wire.since(s.killed, func(p wireProbe) bool { return !slices.Contains(l.crowd.Addrs, p.to) })
	if len(again) > 0 {
		t.Errorf("Expected nothing to be measured again after DNS-B was killed, got %d probes, %s", len(again), s.describe(again...))
	}
	s.checkBudgets(t)
	stop()
}

// surveyTest is the state of the test, and what it prints.
type surveyTest struct {
	*surveyLab
	matrix                                *Matrix
	started, ready, done, killed, crowded time.Time

	mu     sync.Mutex
	found  map[*stranger]*found
	atLast map[*stranger]found // before DNS-B was killed
}

// wait waits for a condition, which returns what is missing.
func (s *surveyTest) wait(t *testing.T, event string, missing func() string) {
	t.Helper()
	began := time.Now()
	for deadline := began.Add(busy * foundWithin); ; time.Sleep(500 * time.Millisecond) {
		what := missing()
		if what == "" {
			t.Logf("Waited %.1f s for %s", time.Since(began).Seconds(), event)
			return
		}
		if t.Failed() || time.Now().After(deadline) {
			t.Fatalf("Expected %s within %v, got\n%s\n%s", event, busy*foundWithin, what, s.state())
		}
	}
}

// unmeasuredPair returns a pair of nodes of which an honest one has not measured the
// other one, or that they still do so.
func (s *surveyTest) unmeasuredPair() string {
	const quiet = 5 * time.Second // far longer than between two probes
	if len(s.wire.since(time.Now().Add(-quiet), anyProbe)) > 0 {
		return "nodes send probes"
	}
	for label, from := range s.nodes {
		for other, to := range s.nodes {
			if label == other || label == liar {
				continue
			}
			probes := s.wire.since(time.Time{}, func(p wireProbe) bool { return slices.Contains(from.Addrs, p.from) && slices.Contains(to.Addrs, p.to) })
			if len(probes) == 0 {
				return label + " to " + other
			}
		}
	}
	return ""
}

// askOn has all clients ask once a second until stop is called.
func (s *surveyTest) askOn() (stop func()) {
	ended := make(chan struct{})
	var asking sync.WaitGroup
	for _, one := range s.strangers {
		f := &found{began: time.Now()}
		s.found[one] = f
		asking.Go(func() {
			for {
				answer := s.lookUp(one)
				s.mu.Lock()
				if f.first == "" {
					f.first = answer
				}
				if f.last != answer {
					f.last, f.since = answer, time.Now()
				}
				s.mu.Unlock()
				select {
				case <-ended:
					return
				case <-time.After(time.Second):
				}
			}
		})
	}
	return func() { close(ended); asking.Wait() }
}

// want returns the city of the server for a provider: the nearest one.
func (s *surveyTest) want(one *stranger) string {
	server, _ := s.matrix.Nearest(one.city, serverCities)
	return server
}

// notFound returns the first provider whose clients do not get the expected server,
// or whose referral does not say why.
func (s *surveyTest) notFound() string {
	for _, one := range s.strangers {
		s.mu.Lock()
		f := *s.found[one]
		s.mu.Unlock()
		if f.last != s.want(one) {
			return fmt.Sprintf("%s: %s", one.resolver.Name, f.last)
		}
		why := s.referral(one.resolver.Addr())
		expected := []string{"layer survey", fmt.Sprintf("survey: %s implausible 0.1 ms", liar)}
		if one.silent {
			router := netip.PrefixFrom(s.matrix.RouterAddr(one.city, false), 24).Masked()
			expected = append(expected, fmt.Sprintf("survey: %s is silent, by %s; the latencies are those of a router on the way, in %s", one.site, one.resolver.Addr(), router),
				"by the latencies that were measured to a router on the way to "+one.site.String())
			// The map tells the nodes.
			why += "\n" + s.answer(fallback, one.resolver.Addr())
			expected = append(expected, fmt.Sprintf("map of DNS-B for %s: ", one.site), " (survey)", fmt.Sprintf("survey of a router on the way to %s, which is silent: ", one.site))
		}
		for _, line := range expected {
			if !strings.Contains(why, line) {
				return fmt.Sprintf("%s: no '%s' in\n%s", one.resolver.Name, line, why)
			}
		}
		if strings.Contains(why, "refer to "+liar) {
			return fmt.Sprintf("%s: referred to %s\n%s", one.resolver.Name, liar, why)
		}
	}
	return ""
}

// crowdUnmeasured has the further networks ask, and returns the first one that is not
// referred by the survey, or to the liar.
func (s *surveyTest) crowdUnmeasured() string {
	s.crowdAsks()
	for _, addr := range s.crowd.Addrs {
		why := s.referral(addr)
		for label := range surveyNodes {
			if !strings.Contains(why, "layer survey") || !strings.Contains(why, "survey: "+label) || strings.Contains(why, "refer to "+liar) {
				return why
			}
		}
	}
	return ""
}

// checkBudgets checks the probes on the wire.
func (s *surveyTest) checkBudgets(t *testing.T) {
	t.Helper()
	// A node begins with one packet at once; a busy machine sends some later.
	const late = 3
	for label, h := range s.nodes {
		probes := s.wire.since(time.Time{}, func(p wireProbe) bool { return slices.Contains(h.Addrs, p.from) })
		if label == liar {
			if len(probes) > 0 {
				t.Errorf("Expected the liar to send nothing, got %d probes", len(probes))
			}
			continue
		}
		if got := burstBeyond(probes, nodeBudget); got > 1+late {
			t.Errorf("Expected %s to send no more than %d probes a second, got %.1f more", label, nodeBudget, got-1)
		}
	}
	for _, addr := range s.wire.subjects {
		probes := s.wire.since(time.Time{}, probesTo(addr))
		// The nodes that measure together, and those that follow them.
		if got, most := burstBeyond(probes, 1), 3.0+2+late; got > most {
			t.Errorf("Expected no more than one probe a second to %s, got %.1f more", addr, got)
		}
		for label, h := range s.nodes {
			for forRouter, most := range map[bool]int{false: mostPackets, true: mostForRouter} {
				probes := s.wire.since(time.Time{}, func(p wireProbe) bool {
					return p.to == addr && slices.Contains(h.Addrs, p.from) && (p.method == "router") == forRouter
				})
				if len(probes) > most {
					t.Errorf("Expected at most %d probes from %s to %s, got %d: %s", most, label, addr, len(probes), s.describe(probes...))
				}
			}
		}
	}
	for _, one := range s.strangers {
		if !one.silent {
			continue
		}
		// Three nodes begin one connection each, and one may be late to give it up.
		connections := len(s.wire.since(time.Time{}, func(p wireProbe) bool { return p.to == one.resolver.Addr() && p.method == "tcp" }))
		if connections > 3+1 {
			t.Errorf("Expected three beginnings of connections to %s, got %d", one.resolver.Name, connections)
		}
	}
	if s.killed.IsZero() {
		return
	}
	if got, most := burstBeyond(s.wire.since(s.killed, anyProbe), lowBudget), float64(lowBudget*ahead+late); got > most {
		t.Errorf("Expected all nodes to send no more than %d probes a second, and %d ahead, got %.1f ahead", lowBudget, lowBudget*ahead, got)
	}
}

// describe says when probes were sent, after the nodes had measured each other.
func (s *surveyTest) describe(probes ...wireProbe) string {
	words := make([]string, len(probes))
	for i, p := range probes {
		words[i] = fmt.Sprintf("from %s to %s by %s after %.1f s", p.from, p.to, p.method, p.at.Sub(s.ready).Seconds())
	}
	return strings.Join(words, ", ")
}

// print prints what came of it.
func (s *surveyTest) print(t *testing.T) {
	t.Helper()
	var out strings.Builder
	out.WriteString("\nSurvey:\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  ISP\tresolver\tsite\tanswer at first\tanswer\tRTT ms\tbest ms\tafter s\tprobes\tby method\tlayer")
	for _, one := range s.strangers {
		f, ok := s.atLast[one]
		if !ok {
			continue
		}
		probes := s.wire.since(time.Time{}, probesTo(one.resolver.Addr()))
		byMethod := make(map[string]int)
		for _, p := range probes {
			byMethod[p.method]++
		}
		layer := "?"
		if _, rest, ok := strings.Cut(s.referral(one.resolver.Addr()), "\nlayer "); ok {
			layer, _, _ = strings.Cut(rest, "\n")
		}
		rtt := "-"
		if slices.Contains(serverCities, f.last) {
			rtt = fmt.Sprintf("%.1f", s.matrix.RTT(one.city, f.last).Seconds()*1000)
		}
		best, _ := s.matrix.Nearest(one.city, serverCities)
		after := f.since.Sub(f.began)
		note := ""
		if after > foundWithin {
			note = fmt.Sprintf(", MORE than %v", foundWithin)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%.1f%s\t%d\t%s\t%s\n", one.city, one.kind.name, one.site, f.first, f.last, rtt,
			s.matrix.RTT(one.city, best).Seconds()*1000, after.Seconds(), note, len(probes), strings.Trim(fmt.Sprint(byMethod), "map[]"), layer)
	}
	_ = w.Flush()
	between := func(from, to time.Time) (seconds float64, probes int) {
		if from.IsZero() || to.IsZero() {
			return 0, 0
		}
		return to.Sub(from).Seconds(), len(s.wire.since(from, func(p wireProbe) bool { return p.at.Before(to) }))
	}
	seconds, probes := between(s.started, s.ready)
	fmt.Fprintf(&out, "  The nodes measured each other in %.1f s, with %d probes.\n", seconds, probes)
	seconds, probes = between(s.ready, s.done)
	fmt.Fprintf(&out, "  All providers had their servers, and the liar was found out, after %.1f s, with %d probes.\n", seconds, probes)
	seconds, probes = between(s.killed, s.crowded)
	fmt.Fprintf(&out, "  After DNS-B was killed, %d further networks were measured in %.1f s, with %d probes.\n", crowdSites, seconds, probes)
	publish(t, out.String())
}
