package secure

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const bindSecondaryConfig = `options {
	directory "DIR";
	pid-file none;
	lock-file none;
	session-keyfile none;
	listen-on { ` + bindSecondary + `; };
	listen-on-v6 { none; };
	transfer-source ` + bindSecondary + `;
	recursion no;
	dnssec-validation no;
};
controls { };
zone "gslb.example.org" {
	type secondary;
	primaries { ` + dnsbAddr + `; };
	file "DIR/zone";
	notify no;
};
`

const nsdSecondaryConfig = `server:
	server-count: 1
	ip-address: ` + nsdSecondary + `
	username: ""
	chroot: ""
	zonesdir: "DIR"
	database: ""
	pidfile: "DIR/pid"
	xfrdfile: "DIR/xfrd"
	xfrdir: "DIR"
	zonelistfile: "DIR/zones"
	cookie-secret-file: "DIR/cookies"
remote-control:
	control-enable: no
zone:
	name: "gslb.example.org"
	request-xfr: AXFR ` + dnsbAddr + ` NOKEY
	allow-notify: ` + dnsbAddr + ` NOKEY
	outgoing-interface: ` + nsdSecondary + `
`

// TestSecondariesFollowRegistrations has BIND and NSD transfer the zone of
// DNS-B, with all records of the nodes, and follow a registration by NOTIFY.
func TestSecondariesFollowRegistrations(t *testing.T) {
	needs(t, "named", "nsd")
	start(t)
	run(t, map[string]string{"conf": bindSecondaryConfig}, "named", "-g", "-n", "1", "-c", "DIR/conf")
	run(t, map[string]string{"conf": nsdSecondaryConfig}, "nsd", "-d", "-c", "DIR/conf")
	secondaries := map[string]string{"BIND": bindSecondary, "NSD": nsdSecondary}

	// has reports whether the answer of a server has a record that contains
	// text.
	has := func(server, name string, qtype uint16, text string) bool {
		r, err := ask(server, name+".gslb.example.org.", qtype)
		if err != nil {
			return false
		}
		for _, rr := range append(r.Answer, r.Ns...) {
			if strings.Contains(rr.String(), text) {
				return true
			}
		}
		return false
	}
	for name, addr := range secondaries {
		took := wait(t, 20*time.Second, name+" to load the zone", func() bool { return has(addr, "par1.lb", dns.TypeA, nodeAddr) })
		t.Logf("%s loaded the zone after %s", name, took.Round(time.Millisecond))
	}

	r := fra1()
	r.Location = "50 7 0.000 N 8 41 0.000 E 112m 1m 10000m 10m"
	r.Deputies = []string{"par1"}
	r.DS = []registration.DS{{Cut: r.Cuts[0], KeyTag: 4711, Algorithm: 13, DigestType: 2, Digest: strings.Repeat("c0de", 16)}}
	for i := range 300 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24) // #nosec G115 -- low bytes
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: prefix, Negated: i%50 == 1})
	}
	register(t, dnsbAddr, r)
	registered := time.Now()
	for name, addr := range secondaries {
		for _, want := range []struct {
			name  string
			qtype uint16
			text  string
		}{
			{"fra1.lb", dns.TypeTXT, "deputy=par1"},
			{"fra1.lb", dns.TypeAPL, "1:10.1.43.0/24"},
			{"fra1.lb", dns.TypeAPL, "!1:10.0.1.0/24"},
			{"fra1.lb", dns.TypeLOC, "50 07"},
			{"fra1.lb", dns.TypeAAAA, "2001:db8::55"},
			{"other", dns.TypeDS, "4711 13 2"},
			{"www.other", dns.TypeA, "fra1.lb"}, // a referral
			{"www.plain", dns.TypeA, "nyc1.lb"},
			{"svc", dns.TypeDS, " 13 2 "},
		} {
			wait(t, 10*time.Second-min(9*time.Second, time.Since(registered)), name+" to have "+want.text+" at "+want.name, func() bool {
				return has(addr, want.name, want.qtype, want.text)
			})
		}
		t.Logf("%s followed after %s", name, time.Since(registered).Round(time.Millisecond))
	}
}
