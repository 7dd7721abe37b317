//go:build linux

package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/miekg/dns"
)

// coreDNS returns this program by the name of the tier, with words: prometheus,
// "fast-path off", or file, for a backend zone.
func coreDNS(tier string, words ...string) *peer {
	p := &peer{
		name:         tier + " " + strings.Join(words, ", "),
		reload:       reloadBySignal,
		disturbances: map[string]disturbance{"reread": rereadMap, "registrations": register, "rankings": changeRankings},
	}
	switch {
	case len(words) == 0:
		p.name = tier + " fast path"
	case words[0] != "chain":
		p.name = tier + " fast path, " + strings.Join(words, ", ")
	}
	p.command = func(w *workload, dir string, at netip.AddrPort) []string {
		zone := zone
		if w.prefixes == 0 {
			zone = cut
		}
		return []string{program, "-conf", write(dir, "Corefile", func(line func(string, ...any)) {
			line("%s:%d {\nbind %s", zone, at.Port(), at.Addr())
			for _, word := range words {
				switch word {
				case "prometheus":
					line("prometheus 127.0.0.1:%d", at.Port()+1000)
				case "file":
					line("file %s", zoneFile(w, dir))
				}
			}
			property := ""
			if words != nil && words[0] == "chain" {
				property = "fast-path off"
			}
			if w.prefixes > 0 {
				dnsb(w, dir, line, property)
			} else {
				dnslb(w, dir, line, property)
			}
			line("}")
		})}
	}
	return p
}

// program is this program, by the flag.
var program string

func reloadBySignal(p *process) error { return p.cmd.Process.Signal(syscall.SIGUSR1) }

func dnsb(w *workload, dir string, line func(string, ...any), property string) {
	mapFile := write(dir, "map", func(line func(string, ...any)) {
		for i, client := range w.clients {
			line("%s n%d", w.prefix(client), i%nodes)
		}
	})
	line("tsig {\nsecret %s %s\n}\ndnsb {\nns b1 127.0.0.1\nmap %s\naccept %[1]s %[4]s any for %s", key, secret, mapFile, registered, cut)
	for i := range nodes {
		line("node n%d %s", i, nodeAddress(i))
	}
	line("cut svc%s\n%s\n}", each(nodes, " n%d"), property)
}

func dnslb(w *workload, dir string, line func(string, ...any), property string) {
	services := write(dir, "services", func(line func(string, ...any)) {
		for i := range w.servers {
			line("server s%d %s %s", i, serverAddress(i, false), serverAddress(i, true))
		}
		for i := range w.services {
			var servers strings.Builder
			for _, s := range w.serversOf(i) {
				fmt.Fprintf(&servers, " s%d", s)
			}
			line("service %s.%s%s", label(i), cut, &servers)
		}
	})
	if w.qtype == dns.TypeHTTPS {
		property += "\nnode n0 127.0.0.1" // else the chain completes HTTPS records
	}
	line("latencyprobe {\nrtt tcp %d\ninterval %s\n}\ndnslb {\nservices %s\nadmin %s/admin\n%s\n}", probed, cmp.Or(w.interval, "10s"), services, dir, property)
}

// zoneFile writes a zone with the addresses of the services.
func zoneFile(w *workload, dir string) string {
	return write(dir, "zone", func(line func(string, ...any)) {
		line("$ORIGIN %s.\n$TTL 60\n@ SOA ns1 hostmaster 1 7200 1800 86400 120\n@ NS ns1\nns1 A 127.0.0.1", cut)
		for i := range w.services {
			s := w.serversOf(i)
			for _, server := range s {
				line("%s A %s\n%[1]s AAAA %[3]s", label(i), serverAddress(server, false), serverAddress(server, true))
			}
			if w.qtype == dns.TypeHTTPS {
				line("%s HTTPS 1 . alpn=h2 ipv4hint=%s,%s", label(i), serverAddress(s[0], false), serverAddress(s[1], false))
			}
		}
	})
}

// filePlugin returns CoreDNS with nothing but the addresses of the services in a zone.
func filePlugin() *peer {
	return &peer{name: "CoreDNS file", reload: reloadBySignal, command: func(w *workload, dir string, at netip.AddrPort) []string {
		return []string{program, "-conf", write(dir, "Corefile", func(line func(string, ...any)) {
			line("%s:%d {\nbind %s\nfile %s\n}", cut, at.Port(), at.Addr(), zoneFile(w, dir))
		})}
	}}
}

// each returns a text for each number below n.
func each(n int, format string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(format, "%d", strconv.Itoa(i)))
	}
	return b.String()
}
