//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const soa = "@ 60 SOA ns1 hostmaster 1 7200 1800 86400 120\n@ 60 NS ns1\nns1 60 A 127.0.0.1"

// gdnsd is gdnsd with the plugins geoip, or metafo and TCP probes. It knows no HTTPS
// records: these are constant.
func gdnsd() *peer {
	return &peer{name: "gdnsd", command: func(w *workload, dir string, at netip.AddrPort) []string {
		record, plugins := "DYNA geoip!r", ""
		if w.prefixes > 0 {
			nets := write(dir, "nets", func(line func(string, ...any)) {
				for i, client := range w.clients {
					line("%s => [n%d]", w.prefix(client), i%nodes)
				}
			})
			var dcmap strings.Builder
			for i := range nodes {
				fmt.Fprintf(&dcmap, "n%d => %s\n", i, nodeAddress(i))
			}
			plugins = fmt.Sprintf("plugins => { geoip => { maps => { m => { datacenters => [%s], nets => %s } }, resources => { r => { map => m, dcmap => { %s } } } } }",
				strings.TrimPrefix(each(nodes, ", n%d"), ", "), nets, &dcmap)
		} else {
			record = "DYNA metafo!r%d"
			var resources strings.Builder
			for i := range w.services {
				s := w.serversOf(i)
				fmt.Fprintf(&resources, "r%d => { dcmap => { a => %s, b => %s } }\n", i, serverAddress(s[0], w.qtype == dns.TypeAAAA), serverAddress(s[1], w.qtype == dns.TypeAAAA))
			}
			plugins = fmt.Sprintf("service_types => { t => { plugin => tcp_connect, port => %d, interval => 10 } }\n"+
				"plugins => { metafo => { service_types => t, datacenters => [a, b], resources => { %s } } }", probed, &resources)
		}
		write(dir, "zones/"+zone, func(line func(string, ...any)) {
			line("%s", soa)
			for i := range w.services {
				if w.qtype == dns.TypeHTTPS {
					data := httpsData(w, i)
					line(`%s.svc 60 TYPE65 \# %d %x`, label(i), len(data), data)
					continue
				}
				line("%s.svc 60 %s", label(i), strings.ReplaceAll(record, "%d", strconv.Itoa(i)))
			}
		})
		write(dir, "config", func(line func(string, ...any)) {
			line(`options => { listen => "%s", udp_threads => 1, tcp_threads => 1, run_dir => %s/run, state_dir => %[2]s/state }`, at, dir)
			line("%s", plugins)
		})
		return []string{"gdnsd", "-c", dir, "start"}
	}, reload: func(p *process) error { return control(p, "replace") }, halt: func(p *process) error { return control(p, "stop") }}
}

// control gives gdnsd a command.
func control(p *process, command string) error {
	return exec.Command("gdnsdctl", "-c", p.dir, command).Run() // #nosec G204 -- the commands above
}

// httpsData returns the data of the HTTPS record of a service.
func httpsData(w *workload, service int) []byte {
	s := w.serversOf(service)
	return slices.Concat([]byte{0, 1, 0, 0, 1, 0, 3, 2, 'h', '2', 0, 4, 0, 8}, serverAddress(s[0], false).AsSlice(), serverAddress(s[1], false).AsSlice())
}

// knot is Knot DNS with the module geoip.
func knot() *peer {
	return &peer{name: "Knot DNS geoip", command: func(w *workload, dir string, at netip.AddrPort) []string {
		geo := write(dir, "geo", func(line func(string, ...any)) {
			line("%s.%s:", label(0), cut)
			for i, client := range w.clients {
				line("  - net: %s\n    A: %s", w.prefix(client), nodeAddress(i%nodes))
			}
		})
		write(dir, zone+".zone", func(line func(string, ...any)) { line("%s\n%s.svc 60 A 127.0.0.1", soa, label(0)) })
		conf := write(dir, "knot.conf", func(line func(string, ...any)) {
			line("server:\n  listen: %s@%d\n  rundir: %s\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1", at.Addr(), at.Port(), dir)
			line("database:\n  storage: %s/db\ntemplate:\n  - id: default\n    storage: %[1]s\n    journal-content: none", dir)
			line("mod-geoip:\n  - id: g\n    config-file: %s\n    ttl: 60\n    mode: subnet", geo)
			line("zone:\n  - domain: %s\n    file: %[1]s.zone\n    zonefile-sync: -1\n    module: mod-geoip/g", zone)
		})
		return []string{"knotd", "-c", conf}
	}}
}

// powerDNS is PowerDNS with the backend geoip, without caches, as neighbors have other
// answers, or with the backend bind and records in Lua that probe.
func powerDNS() *peer {
	return &peer{name: "PowerDNS", command: func(w *workload, dir string, at netip.AddrPort) []string {
		args := []string{"pdns_server", "--no-config", "--daemon=no", "--guardian=no", "--disable-syslog", "--socket-dir=" + dir, "--version-string=anonymous",
			"--local-address=" + at.Addr().String(), fmt.Sprint("--local-port=", at.Port()), "--receiver-threads=1", "--distributor-threads=1", "--zone-cache-refresh-interval=0"}
		if w.prefixes > 0 {
			path := write(dir, "geo.yaml", func(line func(string, ...any)) {
				line("domains:\n- domain: %s\n  ttl: 60\n  records:\n    %[1]s:\n      - soa: ns1.%[1]s hostmaster.%[1]s 1 7200 1800 86400 120\n      - ns: ns1.%[1]s", zone)
				for i := range nodes {
					line("    n%d.%s:\n      - a: %s", i, zone, nodeAddress(i))
				}
				line("  services:\n    %s.%s:", label(0), cut)
				for i, client := range w.clients {
					line("      '%s': n%d.%s", w.prefix(client), i%nodes, zone)
				}
			})
			return append(args, "--launch=geoip", "--geoip-zones-file="+path, "--geoip-database-files=", "--cache-ttl=0", "--query-cache-ttl=0", "--negquery-cache-ttl=0")
		}
		write(dir, "zone", func(line func(string, ...any)) {
			line("%s", soa)
			rrtype := dns.TypeToString[w.qtype]
			for i := range w.services {
				s := w.serversOf(i)
				v6 := w.qtype == dns.TypeAAAA
				line(`%s.svc 60 LUA %s "ifportup(%d, {'%s', '%s'})"`, label(i), rrtype, probed, serverAddress(s[0], v6), serverAddress(s[1], v6))
			}
		})
		named := write(dir, "named.conf", func(line func(string, ...any)) {
			line(`zone "%s" { type master; file "%s"; };`, zone, filepath.Join(dir, "zone"))
		})
		return append(args, "--launch=bind", "--bind-config="+named, "--enable-lua-records=shared")
	}}
}
