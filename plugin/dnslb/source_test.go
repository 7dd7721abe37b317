package dnslb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// fakeZone is a zone plugin with one zone.
type fakeZone struct {
	mu      sync.Mutex
	serial  uint32
	records []string
	err     error
}

func (z *fakeZone) set(serial uint32, err error, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.serial, z.err, z.records = serial, err, records
}

func (z *fakeZone) Transfer(zone string, serial uint32) (<-chan []dns.RR, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return nil, z.err
	}
	if zone != testZone {
		return nil, transfer.ErrNotAuthoritative
	}
	soa := newRR(fmt.Sprintf("%s 300 IN SOA ns.example.org. hostmaster.example.org. %d 7200 1800 86400 300", testZone, z.serial))
	sent := [][]dns.RR{{soa}}
	if serial == 0 || serial != z.serial { // as CoreDNS does
		for _, r := range z.records {
			sent = append(sent, []dns.RR{newRR(r)})
		}
		sent = append(sent, []dns.RR{soa})
	}
	ch := make(chan []dns.RR)
	go func() {
		defer close(ch)
		for _, rrs := range sent {
			ch <- rrs
		}
	}()
	return ch, nil
}

func newRR(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// shown lists the services of a snapshot with their servers, in order.
func shown(t *snapshot) string {
	var lines []string
	for owner, n := range t.names {
		if n.service == nil {
			continue
		}
		line := strings.TrimSuffix(owner, "."+testZone)
		for _, p := range []*pool{n.service.a, n.service.aaaa} {
			if p == nil {
				continue
			}
			for _, m := range p.members {
				line += " " + m.label
				if m.label != m.addr.String() {
					line += "=" + m.addr.String()
				}
				if m.weight != 1 {
					line += fmt.Sprintf("*%d", m.weight)
				}
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

func TestServicesOfZone(t *testing.T) {
	zone := &fakeZone{serial: 1, records: []string{
		testZone + " 300 IN NS ns1." + testZone,
		testZone + " 300 IN MX 10 mail." + testZone,
		"ns1." + testZone + " 300 IN A 192.0.2.61",
		"ns1." + testZone + " 300 IN A 192.0.2.62",
		"www." + testZone + " 300 IN A 0.0.0.0", // no address of a host
		"www." + testZone + " 300 IN AAAA ff02::1",
		"mail." + testZone + " 300 IN A 192.0.2.71",
		"mail." + testZone + " 300 IN A 192.0.2.72",
		"WWW." + testZone + " 300 IN A 192.0.2.1",
		"www." + testZone + " 300 IN A 192.0.2.2",
		"www." + testZone + " 300 IN AAAA 2001:db8::1",
		"www." + testZone + " 300 IN TXT \"text\"",
		"one." + testZone + " 300 IN A 192.0.2.1",
		"*.any." + testZone + " 300 IN AAAA 2001:db8::1",
		"*.any." + testZone + " 300 IN AAAA 2001:db8::2",
		"sub." + testZone + " 300 IN NS ns.sub." + testZone,
		"ns.sub." + testZone + " 300 IN A 192.0.2.81",
		"ns.sub." + testZone + " 300 IN A 192.0.2.82",
	}}
	fra := serverConfig{[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, settings{weight: 3, tier: 1}}
	tests := []struct {
		name     string
		services []serviceConfig
		want     string
	}{
		{
			"every name with a choice", nil,
			"*.any fra=2001:db8::1*3 2001:db8::2; www fra=192.0.2.1*3 192.0.2.2 fra=2001:db8::1*3",
		}, {
			"those that are named", []serviceConfig{
				{name: "one." + testZone, options: options{answers: 1}},
				{name: "mail." + testZone, options: options{answers: 1}},
				{name: "none." + testZone, options: options{answers: 1}},
				{name: "ns.sub." + testZone, options: options{answers: 1}},
				{name: "own." + testZone, servers: labelsOf("fra"), options: options{answers: 1}},
			},
			"mail 192.0.2.71 192.0.2.72; one fra=192.0.2.1*3; own fra=192.0.2.1*3 fra=2001:db8::1*3",
		},
	}
	for _, tc := range tests {
		s := newSources(&config{Zones: []string{testZone}, inventory: inventory{map[string]serverConfig{"fra": fra}, tc.services}, probes: []string{""}})
		s.setBackends([]transfer.Transferer{zone}, false)
		snap := s.snapshot()
		if got := shown(snap); got != tc.want {
			t.Errorf("%s: Expected %s, got %s", tc.name, tc.want, got)
		}
		if got := snap.names["www."+testZone].types; !slices.Equal(got, []uint16{dns.TypeA, dns.TypeTXT, dns.TypeAAAA}) {
			t.Errorf("%s: Expected the types of a name, got %v", tc.name, got)
		}
		for _, missing := range []string{"ns.sub." + testZone, "none." + testZone} {
			if n, exists := snap.lookup(missing); exists || n.service != nil {
				t.Errorf("%s: Expected %s not to be in the zone", tc.name, missing)
			}
		}
	}
}

// TestCheck checks what is wrong only with the other plugins of the block.
func TestCheck(t *testing.T) {
	at := corefile.Position{File: "Corefile", Line: 3}
	services := []serviceConfig{{name: "www." + testZone, from: corefile.Position{File: "Corefile", Line: 7}}}
	zone := []transfer.Transferer{&fakeZone{}}
	tests := []struct {
		name string
		conf config
		zone []transfer.Transferer
		want string
	}{
		{"nothing at all", config{probes: []string{""}}, nil, "Corefile:3 - Error during parsing: no service"},
		{"a zone", config{probes: []string{""}}, zone, ""},
		{"a zone and a probe by name", config{probes: []string{"web"}}, zone, "no unnamed latencyprobe"},
		{"no server and no zone", config{probes: []string{""}, inventory: inventory{services: services}}, nil, "Corefile:7 - Error during parsing: service 'www.svc.gslb.example.org' names no server"},
		{"no server and a zone", config{probes: []string{""}, inventory: inventory{services: services}}, zone, ""},
	}
	for _, tc := range tests {
		s := newSources(&tc.conf)
		s.setBackends(tc.zone, false)
		err := s.check(at)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Expected %q, got %v", tc.name, tc.want, err)
		}
	}
}

// TestServiceKeepsFirstServerInNewSnapshot checks that a service keeps its first
// server when its servers change, and is ranked before queries see it.
func TestServiceKeepsFirstServerInNewSnapshot(t *testing.T) {
	zone := &fakeZone{serial: 1, records: []string{"www." + testZone + " 300 IN A 192.0.2.1", "www." + testZone + " 300 IN A 192.0.2.2"}}
	d := newDNSLB(config{Zones: []string{testZone}, probes: []string{""}, ttlLow: 20, ttlHigh: 60}, nil)
	d.state = newBlockState()
	d.sources.setBackends([]transfer.Transferer{zone}, false)
	rank := func(snap *snapshot, ms ...float64) string {
		d.state.setSnapshot(snap, d)
		status := make([]latencyprobe.Status, len(snap.targets))
		for i, v := range ms {
			if v > 0 {
				status[i] = latencyprobe.Status{State: latencyprobe.Up, Estimate: ranking.Estimate{Round: 1, RTT: v, Value: v}}
			}
		}
		r := testRanker(d, snap, observations{status: status})
		r.rankPools(snap.pools)
		return fmt.Sprint(snap.pools[0].answer.Load().addrs)
	}
	if got := rank(d.sources.snapshot(), 30, 10); got != "[192.0.2.2]" {
		t.Fatalf("Expected the fastest server, got %s", got)
	}
	zone.set(2, nil, append([]string{"www." + testZone + " 300 IN A 192.0.2.3"}, zone.records...)...)
	// A server that is a little faster is no reason to switch.
	if got := rank(d.sources.snapshot(), 0, 9.5, 10); got != "[192.0.2.2]" {
		t.Errorf("Expected the first server to stay, got %s", got)
	}
}

// TestWarnings checks that services which cannot work as intended are logged:
// once, and again when other services are concerned.
func TestWarnings(t *testing.T) {
	out := logtest.Capture(t)
	d := frontOfZone(t, "")
	d.sources.snapshot()
	const hides = "Found 1 service at the name of a CNAME record or delegation in the zone, answering in its place; resolvers that follow a delegation get other answers: out.svc.gslb.example.org."
	out.Expect(t, ": 20 names", hides)
	services := &d.sources.conf.inventory.services
	*services = append(*services, serviceConfig{name: "sub." + testZone, servers: labelsOf("iad"), options: options{answers: 1}}, serviceConfig{name: "none.www." + testZone, options: options{answers: 1}})
	d.sources.snapshot()
	out.Expect(t, "Found 1 service without any server: the 'service' line names none, and the zone has no address at the name: none.www.svc.gslb.example.org.", "Found 2 services at the name of a CNAME record or delegation in the zone")
	*services = (*services)[:1]
	d.sources.snapshot()
	out.Expect(t)
}

// TestAddressesBeyondThoseThatCanBeRanked has more addresses at a name of a zone than a
// service can have, of a service that is configured and of one that is not.
func TestAddressesBeyondThoseThatCanBeRanked(t *testing.T) {
	out := logtest.Capture(t)
	name := "many." + testZone
	addrs := make([]netip.Addr, ranking.MaxServers+1)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	zones := func(n int) map[string]*zonesource.Zone {
		return map[string]*zonesource.Zone{testZone: {SOA: newSOA(testZone, 7), Names: map[string]*zonesource.Name{name: {Types: []uint16{dns.TypeA}, Addrs: addrs[:n]}}}}
	}
	for _, services := range [][]serviceConfig{nil, {{name: name, options: options{answers: 1}}}} {
		d := frontOfZone(t, "")
		i := &d.sources.conf.inventory
		i.services = services
		out.Lines()
		snap := build(d.sources.conf, *i, zones(len(addrs)), nil)
		members := snap.names[name].service.a.members
		if len(members) != ranking.MaxServers || members[len(members)-1].addr != addrs[ranking.MaxServers-1] {
			t.Errorf("Expected the first %d addresses, got %d", ranking.MaxServers, len(members))
		}
		logged := d.sources.problems(snap).log(problems{}, d.Zones)
		out.Expect(t, "Ignored addresses of the zone beyond the first 65535, the most that can be ranked, for 1 service: "+name)
		d.sources.problems(snap).log(logged, d.Zones)
		out.Expect(t)
		d.sources.problems(build(d.sources.conf, *i, zones(ranking.MaxServers), nil)).log(problems{}, d.Zones)
		out.Expect(t)
	}
}
