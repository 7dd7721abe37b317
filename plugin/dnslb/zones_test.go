package dnslb

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/secondary"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
)

// www are records of a name with a choice.
var www = []string{"www." + testZone + " 300 IN A 192.0.2.1", "www." + testZone + " 300 IN A 192.0.2.2"}

func TestServicesFollowZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := &fakeZone{err: errors.New("no transfer yet")}
		s := newSources(&config{Zones: []string{testZone}, probes: []string{""}})
		s.setBackends([]transfer.Transferer{zone}, false)
		if got := shown(s.snapshot()); got != "" || s.loaded() {
			t.Fatalf("Expected to wait for the zone, got %q", got)
		}
		wait := s.zones.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		snapshots := make(chan *snapshot)
		done := make(chan struct{})
		go func() { defer close(done); s.follow(ctx, snapshots, nil, func() {}) }()

		zone.set(7, nil, www...)
		begin := time.Now()
		if got := shown(<-snapshots); got != "www 192.0.2.1 192.0.2.2" || time.Since(begin) > wait || !s.loaded() {
			t.Errorf("Expected the zone at once, got %q after %s", got, time.Since(begin))
		}
		select {
		case <-snapshots:
			t.Error("Expected no snapshot while the zone is the same")
		case <-time.After(time.Minute):
		}
		zone.set(7, errors.New("gone"))
		select {
		case <-snapshots:
			t.Error("Expected no snapshot while the zone fails")
		case <-time.After(time.Minute):
		}
		if !s.loaded() {
			t.Error("Expected the previous zone to stay")
		}
		// After a failure another version may have the same serial.
		zone.set(7, nil, append(slices.Clone(www), "www."+testZone+" 300 IN A 192.0.2.3")...)
		if got := shown(<-snapshots); got != "www 192.0.2.1 192.0.2.2 192.0.2.3" {
			t.Errorf("Expected the new zone, got %q", got)
		}
		cancel()
		<-done
	})
}

// fromZone returns the sources of a server block with a backend plugin.
func fromZone(backend transfer.Transferer) *sources {
	s := newSources(&config{Zones: []string{testZone}, probes: []string{""}})
	s.setBackends([]transfer.Transferer{backend}, false)
	return s
}

// TestResumedZoneExpires checks that the zone of the previous instance is used
// while a secondary does not have it again, over several reloads, until it would
// have expired (RFC 1035, section 3.3.13).
func TestResumedZoneExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logtest.Capture(t)
		const services = "www 192.0.2.1 192.0.2.2"
		old := &DNSLB{Next: test.ErrorHandler()}
		zone := &fakeZone{serial: 7, records: www}
		previous := fromZone(zone).snapshot()
		log.Expect(t, `Loaded zone "`+testZone+`", serial 7: 2 names`)

		zone.set(7, errors.New("no SOA"))
		s := fromZone(zone)
		s.resume(instanceSnapshot{old, previous})
		snap := s.snapshot()
		if got := shown(snap); got != services || !s.loaded() {
			t.Errorf("Expected the previous zone, got %q", got)
		}
		log.Expect(t)
		time.Sleep(23 * time.Hour)
		if s.poll() {
			t.Error("Expected no other snapshot")
		}
		log.Expect(t, `Failed to transfer zone "`+testZone+`" since the reload, keeping the previous version until 2000-01-02T00:00:00Z: no SOA`)

		s = fromZone(zone)
		s.resume(instanceSnapshot{old, snap})
		if got := shown(s.snapshot()); got != services {
			t.Errorf("Expected the zone to stay over one more reload, got %q", got)
		}
		time.Sleep(time.Hour)
		if !s.poll() || shown(s.build()) != "" || s.loaded() {
			t.Errorf("Expected the zone to expire, got %q", shown(s.build()))
		}
		log.Expect(t, `Failed to transfer zone "`+testZone+`", no longer ranking its services: no SOA`)

		zone.set(7, nil, append(slices.Clone(www), "www."+testZone+" 300 IN A 192.0.2.3")...)
		s = fromZone(zone)
		s.resume(instanceSnapshot{old, snap})
		if got := shown(s.snapshot()); got != services+" 192.0.2.3" || s.zones.Zones()[testZone].Resumed() {
			t.Errorf("Expected the zone of the backend plugin, got %q", got)
		}
	})
}

// TestPreviousBackendAnswersAfterReload checks that the backend plugin of the
// previous instance answers for a zone until that of this instance has the zone.
func TestPreviousBackendAnswersAfterReload(t *testing.T) {
	old, d := frontOfZone(t, "par1"), frontOfZone(t, "par1")
	backend := d.Next.(*file.File)
	zone := backend.Z[testZone]
	backend.Z[testZone] = file.NewZone(testZone, "")
	// A second reload makes no difference.
	for _, previous := range []*DNSLB{old, d} {
		snap := previous.snapshot.Load()
		d.sources = newSources(&d.config)
		d.sources.setBackends([]transfer.Transferer{backend}, false)
		d.sources.resume(instanceSnapshot{previous, snap})
		d.snapshot.Store(d.sources.snapshot())
		for _, tc := range []wire{
			{name: "www", qtype: "A", answer: []string{"www 60 A 192.0.2.1"}},
			{name: "six", qtype: "A", ns: []string{soa30}},
			{name: "@", qtype: "SOA", answer: []string{"@ 300 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120"}},
			{name: "www", qtype: "TXT", answer: []string{`www 300 TXT "of the zone"`}},
			{name: "alias", qtype: "A", answer: []string{"alias 300 CNAME www", "www 60 A 192.0.2.1"}},
			{name: "x.mail", qtype: "A", rcode: dns.RcodeNameError, ns: []string{soa120}},
		} {
			tc.check(t, d)
		}
	}
	backend.Z[testZone] = zone
	if !d.sources.poll() {
		t.Fatal("Expected the zone of the backend plugin")
	}
	d.snapshot.Store(d.sources.build())
	old.Next.(*file.File).Z = nil
	wire{name: "www", qtype: "TXT", answer: []string{`www 300 TXT "of the zone"`}}.check(t, d)
}

// TestMissingZone checks that a zone which does not come is logged once, and that
// meanwhile only the addresses of services are answered.
func TestMissingZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logtest.Capture(t)
		zone := &fakeZone{err: errors.New("no SOA")}
		s := fromZone(zone)
		s.conf.inventory = inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + testZone, servers: labelsOf("a"), options: options{answers: 1}}}}
		d := newDNSLB(*s.conf, nil)
		d.Next = test.NextHandler(dns.RcodeRefused, nil)
		d.state = newBlockState()
		d.snapshot.Store(s.snapshot())
		time.Sleep(zonesource.LoadTime - time.Second)
		s.poll()
		log.Expect(t)
		time.Sleep(time.Second)
		for range 2 {
			if s.poll() || s.loaded() {
				t.Error("Expected to wait for the zone")
			}
		}
		log.Expect(t, `Failed to load zone "`+testZone+`" since 2000-01-01T00:00:00Z, server block not ready without it: no SOA`)
		if got := d.summary(0).Lines(); !slices.Contains(got, "missing zone: "+testZone) {
			t.Errorf("Expected the missing zone, got %q", got)
		}
		for _, name := range []string{"@", "none", "none.www"} {
			fails(t, d, name, dns.RcodeRefused)
		}
		wire{name: "www", qtype: "A", answer: []string{"www 0 A 192.0.2.1"}}.check(t, d)
		wire{name: "www", qtype: "AAAA", ns: []string{"@ 30 SOA svc.gslb.example.org. hostmaster.svc.gslb.example.org. 0 14400 3600 1209600 300"}}.check(t, d)

		// The plugin does not have the zone, and may get it.
		zone.set(1, transfer.ErrNotAuthoritative)
		if !s.poll() || !s.loaded() {
			t.Error("Expected not to wait for a zone whose services have servers")
		}
		d.snapshot.Store(s.build())
		fails(t, d, "none", dns.RcodeRefused)

		zone.set(1, nil, www...)
		if !s.poll() || !s.loaded() {
			t.Error("Expected the zone")
		}
		log.Expect(t, "serial 1: 2 names")
	})
}

// TestServicesEndWithZone checks that the services of a zone end with the zone,
// but not while a plugin may still read its zones after a reload.
func TestServicesEndWithZone(t *testing.T) {
	log := logtest.Capture(t)
	zone := &fakeZone{serial: 7, records: www}
	old := &DNSLB{Next: test.ErrorHandler()}
	previous := fromZone(zone).snapshot()
	log.Expect(t, "serial 7: 2 names")
	zone.set(7, transfer.ErrNotAuthoritative)
	s := fromZone(zone)
	s.resume(instanceSnapshot{old, previous})
	if got := shown(s.snapshot()); got == "" {
		t.Error("Expected the zone to stay at first")
	}
	log.Expect(t)
	if !s.poll() || shown(s.build()) != "" {
		t.Errorf("Expected no service of a zone that is gone, got %q", shown(s.build()))
	}
	log.Expect(t, `Failed to transfer zone "`+testZone+`", no longer ranking its services: no backend plugin in this server block has the zone`)
	if s.poll() {
		t.Error("Expected nothing new")
	}
	log.Expect(t)
}

// fails checks that a query gets an RCODE without a message.
func fails(t *testing.T, d *DNSLB, name string, want int) {
	t.Helper()
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	rcode, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion(absolute(name), dns.TypeA))
	if rcode != want || err != nil || w.Msg != nil {
		t.Errorf("%s: Expected %s, got %s, %v, %v", name, dns.RcodeToString[want], dns.RcodeToString[rcode], err, w.Msg)
	}
}

// TestExpiredZone checks that no service is answered from a zone that has expired
// at its secondary, and that unranked answers of the backend plugin have a short
// TTL while the zone is missing.
func TestExpiredZone(t *testing.T) {
	log := logtest.Capture(t)
	d := frontOfZone(t, "par1")
	backend := &secondary.Secondary{File: *d.Next.(*file.File)}
	backend.ZoneLookupFunc = func(string) (string, *file.Zone, bool) { return testZone, backend.Z[testZone], true }
	d.Next = backend
	d.sources.setBackends([]transfer.Transferer{backend}, false)
	d.inventory.services = []serviceConfig{
		{name: "www." + testZone, options: options{answers: 1}},
		{name: "both." + testZone, servers: labelsOf("iad"), options: options{answers: 1}},
	}
	ranked := wire{name: "www", qtype: "A", answer: []string{"www 60 A 203.0.113.1"}}
	named := wire{name: "both", qtype: "A", answer: []string{"both 60 A 192.0.2.2"}}
	d.snapshot.Store(d.sources.snapshot())
	ranked.check(t, d)

	z := backend.Z[testZone]
	z.Expired = true
	if !d.sources.poll() {
		t.Fatal("Expected another snapshot")
	}
	d.snapshot.Store(d.sources.build())
	log.Expect(t, "serial 42: 20 names", "Found 1 service at the name of a CNAME record or delegation in the zone", "serial 42: 20 names", `Failed to transfer zone "`+testZone+`", no longer ranking its services: zone expired at its secondary`)
	fails(t, d, "www", dns.RcodeServerFailure)
	fails(t, d, "none", dns.RcodeServerFailure)
	named.check(t, d)
	if d.sources.poll() {
		t.Error("Expected nothing new")
	}

	z.Expired = false
	wire{name: "www", qtype: "A", answer: []string{"www 20 A 203.0.113.1", "www 20 A 203.0.113.2"}}.check(t, d)
	if !d.sources.poll() {
		t.Fatal("Expected another snapshot")
	}
	d.snapshot.Store(d.sources.build())
	ranked.check(t, d)
}

// TestSignedZoneIsLeftToBackend checks that nothing is ranked in a zone that has
// signatures already: ranked answers would have none.
func TestSignedZoneIsLeftToBackend(t *testing.T) {
	log := logtest.Capture(t)
	sig := testZone + " 300 IN RRSIG SOA 13 4 300 20300101000000 20200101000000 1 " + testZone + " AAAA"
	zone := &fakeZone{serial: 1, records: www}
	s := fromZone(zone)
	s.conf.inventory = inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + testZone}, {name: "ftp." + testZone, servers: labelsOf("a")}}}
	if got := shown(s.snapshot()); got == "" {
		t.Fatal("Expected services")
	}
	log.Expect(t, "serial 1: 2 names")
	zone.set(2, nil, append(slices.Clone(www), sig)...)
	if !s.poll() || shown(s.build()) != "" {
		t.Errorf("Expected no service in a signed zone, got %q", shown(s.build()))
	}
	log.Expect(t, "serial 2: 2 names", `Zone "`+testZone+`" is already signed, not ranking its services: load it unsigned, and sign it with 'dnssec' in the server block`)
	if s.poll() {
		t.Error("Expected nothing new")
	}
	err := fromZone(zone).check(corefile.Position{File: "Corefile", Line: 3})
	if want := `Corefile:3 - Error during parsing: zone "` + testZone + `" is already signed`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Expected %q, got %v", want, err)
	}

	// After a reload the backend plugin answers as soon as it has the zone.
	next := fromZone(zone)
	next.resume(instanceSnapshot{&DNSLB{Next: test.ErrorHandler()}, s.build()})
	if snap := next.snapshot(); !snap.signed(testZone) || snap.zones[testZone].Resumed() {
		t.Errorf("Expected the signed zone of the backend plugin, got %+v", snap.zones[testZone])
	}
	log.Expect(t, "serial 2: 2 names", "is already signed")

	d := newDNSLB(*s.conf, nil)
	d.Next = test.NextHandler(dns.RcodeYXDomain, nil)
	d.snapshot.Store(s.build())
	for _, name := range []string{"www", "none", "@"} {
		fails(t, d, name, dns.RcodeYXDomain)
	}
	zone.set(3, nil, www...)
	if !s.poll() || shown(s.build()) == "" {
		t.Error("Expected services of the zone that is no longer signed")
	}
}

func TestHIPRecordsOfQueriesStayPacked(t *testing.T) {
	if dns.TypeToRR[dns.TypeHIP] != nil {
		t.Error("Expected HIP records to be of an unknown type")
	}
}
