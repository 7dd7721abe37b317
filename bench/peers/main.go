//go:build linux

// Command peers measures the CPU time that servers take for a query, or with -rate how
// long replies take, side by side:
// this program with the fast path and without, a plugin of CoreDNS that answers a
// constant, and gdnsd, which must be installed.
//
// It needs a network namespace in which all addresses are local, so that queries
// come from the addresses of the map: see 'make bench-peers'. Servers take turns, one
// core is theirs, another one that of the load. Each reply is checked.
package main

import (
	"cmp"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	nodes = 50
	port  = 5300
)

// subject is a server, and a question to it.
type subject struct {
	name   string
	server *server
	query  []byte
	// right is the address that the reply to a client with an index must have.
	right func(client int) []byte
	costs []float64 // CPU µs a query, by round
	rates []float64 // replies a second
}

func main() {
	prefixes := flag.Int("prefixes", 1_000_000, "prefixes in the map")
	rounds := flag.Int("rounds", 5, "rounds")
	seconds := flag.Float64("seconds", 3, "seconds for each server in a round")
	rate := flag.Int("rate", 0, "measure latencies at this many queries a second, instead of CPU time")
	only := flag.String("only", "", "measure the servers whose names begin with this")
	binary := flag.String("binary", "./coredns-dnslb", "the program")
	constant := flag.Bool("constant", false, "be the server that answers a constant")
	flag.Parse()
	runtime.LockOSThread()
	if *constant {
		serveConstant(flag.Arg(0))
		return
	}
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	clients := distinctSites(*prefixes)
	subjects, stop := start(dir, *binary, *only, clients)
	defer stop()
	if *rate > 0 {
		reportLatency(subjects, measureLatency(subjects, clients, *rounds, time.Duration(*seconds*float64(time.Second)), *rate))
		return
	}
	measure(subjects, clients, *rounds, time.Duration(*seconds*float64(time.Second)))
	report(subjects)
}

// distinctSites returns the first addresses of some /24, in no order.
func distinctSites(n int) []uint32 {
	r := rand.New(rand.NewPCG(1, 1))
	seen, sites := make(map[uint32]bool, n), make([]uint32, 0, n)
	for len(sites) < n {
		site := (1<<16 + r.Uint32N(222<<16)) << 8
		if first := site >> 24; first != 127 && !seen[site] {
			seen[site] = true
			sites = append(sites, site)
		}
	}
	return sites
}

func address(site uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], site)
	return netip.AddrFrom4(b)
}

// nodeAddress returns that of a node of the map.
func nodeAddress(client int) []byte { return []byte{192, 0, 2, byte(client%nodes) + 1} }

// shuffled returns the subjects in a random order: none profits from its place in all
// rounds.
func shuffled(subjects []*subject) []*subject {
	order := slices.Clone(subjects)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

func measure(subjects []*subject, clients []uint32, rounds int, length time.Duration) {
	for round := range rounds {
		for _, s := range shuffled(subjects) {
			l, err := newLoad(s, clients)
			if err != nil {
				log.Fatal(err)
			}
			l.run(length / 4) // to warm up
			l.replies = 0
			before, begin := s.server.cpu(), time.Now()
			l.run(length)
			used, took := s.server.cpu()-before, time.Since(begin)
			l.close()
			if l.wrong > 0 || l.replies == 0 {
				log.Fatalf("%s: %d replies, %d of them wrong, such as %x", s.name, l.replies, l.wrong, l.example)
			}
			s.costs = append(s.costs, float64(used.Microseconds())/float64(l.replies))
			s.rates = append(s.rates, float64(l.replies)/took.Seconds())
			fmt.Fprintf(os.Stderr, "round %d of %d: %-28s %.2f µs, %.0f/s\n", round+1, rounds, s.name, s.costs[round], s.rates[round])
		}
	}
}

// report prints costs as minimum, median and maximum, and the ratios of each pair in
// one round.
func report(subjects []*subject) {
	fmt.Printf("%-28s %20s %14s %8s\n", "CPU for a query", "µs min/median/max", "replies/s", "RSS MiB")
	for _, s := range subjects {
		fmt.Printf("%-28s %20s %14.0f %8d\n", s.name, spread(s.costs), median(s.rates), s.server.rss()>>20)
	}
	for _, s := range subjects {
		if !strings.Contains(s.name, "fast path") {
			continue
		}
		kind, _, _ := strings.Cut(s.name, " ")
		for _, other := range subjects {
			if other == s || !strings.HasPrefix(other.name, kind) {
				continue
			}
			ratios := make([]float64, len(s.costs))
			for i := range ratios {
				ratios[i] = s.costs[i] / other.costs[i]
			}
			fmt.Printf("%s / %s: %s\n", s.name, other.name, spread(ratios))
		}
	}
}

func spread(values []float64) string {
	return fmt.Sprintf("%.2f/%.2f/%.2f", slices.Min(values), median(values), slices.Max(values))
}

func median[T cmp.Ordered](values []T) T { return slices.Sorted(slices.Values(values))[len(values)/2] }

// cpu returns the CPU time that a process has used.
func (s *server) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		log.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(field)
		if err != nil {
			log.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func (s *server) rss() int {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		log.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		log.Fatal(err)
	}
	return pages * os.Getpagesize()
}

var serverAddr = net.IPv4(127, 0, 0, 1)
