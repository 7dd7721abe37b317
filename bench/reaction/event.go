//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

const (
	zone = "gslb.example.org."
	cut  = "svc." + zone
	port = 5300 // of this program, and of nodes

	spread   = 10 * time.Second // in which the trials of an event begin
	longest  = 3 * time.Minute  // until a reaction
	interval = 50 * time.Millisecond
)

// event is what this program reacts to.
type event struct {
	name    string
	measure func(o *options, dir string) ([]time.Duration, error)
}

var events = []event{
	{"server refuses (tcp)", serverEvent("tcp 8000", (*machines).refuse)},
	{"server is silent (tcp)", serverEvent("tcp 8000", (*machines).silence)},
	{"server is silent (icmp)", serverEvent("icmp", (*machines).silence)},
	{"server is silent (dns)", serverEvent("dns 5353 "+cut, (*machines).silence)},
	{"server is 50 ms slower (dns)", serverEvent("dns 5353 "+cut, (*machines).slow)},
	{"node dies", nodeEvent},
	{"node registers", registrationEvent},
}

// serverEvent has a DNS-LB with a service for each trial, and something happen to the
// first server of each.
func serverEvent(method string, happen func(*machines, netip.Addr) error) func(*options, string) ([]time.Duration, error) {
	return func(o *options, dir string) ([]time.Duration, error) {
		m, err := newMachines(o.trials, 5353)
		if err != nil {
			return nil, err
		}
		defer m.close()
		var b strings.Builder
		fmt.Fprintf(&b, "%s:%d {\nbind 127.0.0.1\nlatencyprobe {\nrtt %s\n}\ndnslb {\n", cut, port, method)
		trials := make([]trial, o.trials)
		for i := range trials {
			// The second server costs more than its latency.
			fmt.Fprintf(&b, "server a%d %s\nserver b%[1]d %[3]s bias 20ms\nservice w%[1]d.%[4]s a%[1]d b%[1]d\n", i, first(i), second(i), cut)
			trials[i] = trial{name: fmt.Sprintf("w%d.%s", i, cut), from: netip.AddrFrom4([4]byte{127, 0, 0, 1}), before: first(i).String(), after: second(i).String()}
			trials[i].happen = func() error { return happen(m, first(i)) }
		}
		b.WriteString("}\n}\n")
		return o.runTrials(dir, b.String(), trials)
	}
}

// nodeEvent has a DNS-B with two nodes for each trial, and one of them die.
func nodeEvent(o *options, dir string) ([]time.Duration, error) {
	m, err := newMachines(o.trials, port)
	if err != nil {
		return nil, err
	}
	defer m.close()
	var b, cuts strings.Builder
	fmt.Fprintf(&b, "%s:%d {\nbind 127.0.0.1\nlatencyprobe\ndnsb {\nns b1 127.0.0.1\n", zone, port)
	trials := make([]trial, o.trials)
	for i := range trials {
		fmt.Fprintf(&b, "node a%d %s\nnode b%[1]d %[3]s\nprefix %[4]s a%[1]d b%[1]d\n", i, first(i), second(i), sites(i))
		fmt.Fprintf(&cuts, " a%d b%[1]d", i)
		trials[i] = trial{name: "www." + cut, from: sites(i).Addr().Next(), before: fmt.Sprintf("a%d.lb.%s", i, zone), after: fmt.Sprintf("b%d.lb.%s", i, zone)}
		trials[i].happen = func() error { return m.silence(first(i)) }
	}
	fmt.Fprintf(&b, "cut %s%s\n}\n}\n", cut, &cuts)
	return o.runTrials(dir, b.String(), trials)
}

// runTrials starts the program and runs all trials at a time, each at its own.
func (o *options) runTrials(dir, corefile string, trials []trial) ([]time.Duration, error) {
	p, err := start(o.program, dir, corefile)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	for i := range trials {
		if err := trials[i].await(trials[i].before, interval); err != nil {
			return nil, errors.Join(err, p.said())
		}
	}
	time.Sleep(3 * spread) // until all was measured several times
	o.progress("all is measured")
	type outcome struct {
		took time.Duration
		err  error
	}
	outcomes := make(chan outcome)
	for _, t := range trials {
		go func() {
			time.Sleep(rand.N(spread)) // #nosec G404 -- no secret
			took, err := t.run(interval)
			outcomes <- outcome{took, err}
		}()
	}
	took := make([]time.Duration, 0, len(trials))
	var failed error
	for range trials {
		out := <-outcomes
		took, failed = append(took, out.took), errors.Join(failed, out.err)
		o.progress("%d of %d trials: %.3f s", len(took), len(trials), out.took.Seconds())
	}
	if failed != nil {
		return nil, errors.Join(failed, p.said())
	}
	return took, nil
}
