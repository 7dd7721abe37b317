//go:build linux

package main

import (
	"bufio"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// recorded is what a subject took when this was written: a change that makes it worse by
// more than a margin has to say why, and to record it here.
type recorded struct {
	subject     string
	cpu         float64 // ratio to the constant of the set: median of the rounds
	allocations float64 // of a query, at most
}

// margin is by how much the ratio of CPU time may differ on another, busy machine:
// medians of five rounds differ by up to a fifth from run to run.
const margin = 1.4

var short = []struct {
	set      *set
	recorded []recorded
}{
	{
		&set{
			name: "short-map", workload: workload{prefixes: 100_000, services: 1, qtype: dns.TypeA},
			peers: []*peer{coreDNS("dnsb", "prometheus"), coreDNS("dnsb", "chain", "prometheus"), constantPeer("referral")},
		},
		[]recorded{{"dnsb fast path, prometheus", 0.55, 0.1}, {"dnsb chain, prometheus", 1.8, 55}},
	}, {
		&set{
			name: "short-a", workload: workload{services: 1, servers: 2, qtype: dns.TypeA},
			peers: []*peer{coreDNS("dnslb", "prometheus"), coreDNS("dnslb", "chain", "prometheus"), constantPeer("answer")},
		},
		[]recorded{{"dnslb fast path, prometheus", 0.55, 0.1}, {"dnslb chain, prometheus", 1.9, 55}},
	},
}

// checkRecorded measures what is recorded and reports whether none of it got worse. What
// did is measured once more.
func checkRecorded(o *options) bool {
	ok := true
	for _, s := range short {
		if !s.set.check(o, s.recorded) {
			progress("measuring %s once more", s.set.name)
			ok = s.set.check(o, s.recorded) && ok
		}
	}
	return ok
}

func (s *set) check(o *options, all []recorded) bool {
	subjects, stop := start(o, &s.workload, s.peers)
	defer stop()
	before := make(map[*subject]float64)
	for _, s := range subjects[:len(all)] {
		before[s] = s.allocations()
	}
	costs := costsOf(subjects, o.rounds, time.Second)
	base, good := costs[subjects[len(all)]], true
	for i, r := range all {
		s := subjects[i]
		if s.name != r.subject {
			log.Fatalf("%s is recorded, %s is measured", r.subject, s.name)
		}
		cpu := median(costs[s].cpu.over(base.cpu))
		allocations := (s.allocations() - before[s]) / float64(costs[s].replies)
		verdict := "ok"
		if cpu > r.cpu*margin || allocations > r.allocations {
			verdict, good = "WORSE", false
		}
		fmt.Printf("%-30s CPU %.2f of the constant, recorded %.2f, allowed %.2f; %.2f allocations a query, allowed %.2f: %s\n",
			s.name, cpu, r.cpu, r.cpu*margin, allocations, r.allocations, verdict)
	}
	return good
}

// allocations returns how many the server has made, by its metrics.
func (s *subject) allocations() float64 {
	reply, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.addr.Port()+1000))
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Body.Close()
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				log.Fatal(err)
			}
			return n
		}
	}
	log.Fatalf("%s has no metric of its allocations", s.name)
	return 0
}
