//go:build linux

package main

import (
	"time"

	"github.com/miekg/dns"
)

// set is a measurement of some peers with the same workload.
type set struct {
	name, title string
	workload    workload
	peers       []*peer
	conditions  []condition // of latencies and memory
	run         func(*options, *set)
}

func setNames() []string {
	names := make([]string, len(sets))
	for i, s := range sets {
		names[i] = s.name
	}
	return names
}

// sets are all of them, in the order of a whole run.
var sets = []*set{
	mapSet("map-1k", "CPU of a referral, 1,000 prefixes", 1000, false, powerDNS()),
	mapSet("map-100k", "CPU of a referral, 100,000 prefixes", 100_000, false, powerDNS()),
	mapSet("map-1m", "CPU of a referral, 1,000,000 prefixes", 1_000_000, false),
	mapSet("map-1m-v6", "CPU of a referral, 1,000,000 prefixes, over IPv6", 1_000_000, true),
	answerSet("a", "CPU of an A answer, 1 service of 2 servers", workload{qtype: dns.TypeA, services: 1, servers: 2}, powerDNS()),
	answerSet("aaaa", "CPU of an AAAA answer, 1 service of 2 servers", workload{qtype: dns.TypeAAAA, services: 1, servers: 2}, powerDNS()),
	{
		name: "https", title: "CPU of an HTTPS answer with hints, 1 service of 2 servers, in front of a zone", run: measureCost,
		workload: workload{qtype: dns.TypeHTTPS, services: 1, servers: 2},
		peers: []*peer{
			coreDNS("dnslb", "file"), coreDNS("dnslb", "file", "prometheus"), coreDNS("dnslb", "chain", "file"),
			gdnsd(), filePlugin(), constantPeer("answer"),
		},
	},
	answerSet("a-1000-probes", "CPU of an A answer, 500 services of 1,000 servers, each probed every 10 s", manyProbes),
	{
		name: "a-100k", title: "CPU of an A answer, 100,000 services of 1,000 servers", run: measureCost,
		workload: workload{qtype: dns.TypeA, services: 100_000, servers: 1000},
		peers: []*peer{
			coreDNS("dnslb"), coreDNS("dnslb", "prometheus"), coreDNS("dnslb", "chain", "prometheus"), filePlugin(), constantPeer("answer"),
		},
	},
	{
		name: "services", title: "Start and memory of 100,000 services, each of 8 of 10,000 servers in both families, each probed every 5 s", run: measureStart,
		workload: workload{qtype: dns.TypeA, services: 100_000, servers: 10_000, each: 8, interval: "5s"},
		peers:    []*peer{coreDNS("dnslb", "prometheus")},
	},
	{
		name: "latency-map", title: "Latency of a referral, 1,000,000 prefixes", run: measureLatency,
		workload:   million,
		peers:      []*peer{coreDNS("dnsb", "prometheus"), coreDNS("dnsb", "chain", "prometheus"), gdnsd(), constantPeer("referral")},
		conditions: mapConditions,
	},
	{
		name: "latency-a", title: "Latency of an A answer, 500 services of 1,000 servers, each probed every 10 s", run: measureLatency,
		workload:   manyProbes,
		peers:      []*peer{coreDNS("dnslb", "prometheus"), coreDNS("dnslb", "chain", "prometheus"), gdnsd(), constantPeer("answer")},
		conditions: answerConditions,
	},
	{
		name: "latency-chain", title: "Latency of a referral through the chain, 1,000,000 prefixes", run: measureLatency,
		workload:   million,
		peers:      []*peer{coreDNS("dnsb", "chain"), constantPeer("referral")},
		conditions: []condition{{"quiet", 4 * time.Second}, {"reread", 9 * time.Second}},
	},
	{
		name: "half-map", title: "Latency of a referral at half of saturation, 1,000,000 prefixes", run: measureAtHalf,
		workload:   million,
		peers:      []*peer{coreDNS("dnsb", "prometheus"), coreDNS("dnsb", "chain", "prometheus")},
		conditions: mapConditions,
	},
	{
		name: "half-a", title: "Latency of an A answer at half of saturation, 500 services of 1,000 servers, each probed every 10 s", run: measureAtHalf,
		workload:   manyProbes,
		peers:      []*peer{coreDNS("dnslb", "prometheus"), coreDNS("dnslb", "chain", "prometheus")},
		conditions: answerConditions,
	},
	{
		name: "memory-map", title: "Memory at saturation, 1,000,000 prefixes", run: measureMemory,
		workload:   million,
		peers:      []*peer{coreDNS("dnsb", "prometheus"), coreDNS("dnsb", "chain", "prometheus")},
		conditions: mapConditions,
	},
	{
		name: "readers", title: "Replies a second with one reader and with two, both cores for servers and load", run: measureReaders,
		workload: workload{prefixes: 100_000, qtype: dns.TypeA, services: 1},
	},
}

var (
	million    = workload{prefixes: 1_000_000, qtype: dns.TypeA, services: 1}
	manyProbes = workload{qtype: dns.TypeA, services: 500, servers: 1000}

	mapConditions = []condition{
		{"quiet", 4 * time.Second}, {"reread", 9 * time.Second}, {"registrations", 4 * time.Second}, {"reload", 5 * time.Second},
	}
	answerConditions = []condition{{"quiet", 4 * time.Second}, {"rankings", 9 * time.Second}, {"reload", 5 * time.Second}}
)

func mapSet(name, title string, prefixes int, v6 bool, more ...*peer) *set {
	peers := append([]*peer{
		coreDNS("dnsb"), coreDNS("dnsb", "prometheus"), coreDNS("dnsb", "chain", "prometheus"), gdnsd(), knot(), constantPeer("referral"),
	}, more...)
	return &set{name: name, title: title, run: measureCost, workload: workload{v6: v6, prefixes: prefixes, qtype: dns.TypeA, services: 1}, peers: peers}
}

func answerSet(name, title string, w workload, more ...*peer) *set {
	peers := append([]*peer{
		coreDNS("dnslb"), coreDNS("dnslb", "prometheus"), coreDNS("dnslb", "chain", "prometheus"), gdnsd(), filePlugin(), constantPeer("answer"),
	}, more...)
	return &set{name: name, title: title, run: measureCost, workload: w, peers: peers}
}
