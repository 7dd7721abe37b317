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
)

// www are records of a name with a choice.
var www = []string{"www." + testZone + " 300 IN A 192.0.2.1", "www." + testZone + " 300 IN A 192.0.2.2"}

func TestZoneChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := &fakeZone{err: errors.New("no transfer yet")}
		s := newSources(&config{Zones: []string{testZone}, probes: []string{""}})
		s.behind = []transfer.Transferer{zone}
		if got := shown(s.table()); got != "" || s.loaded() {
			t.Fatalf("Expected to wait for the zone, got %q", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tables := make(chan *table)
		done := make(chan struct{})
		go func() { defer close(done); s.follow(ctx, tables) }()

		zone.set(7, nil, www...)
		begin := time.Now()
		if got := shown(<-tables); got != "www 192.0.2.1 192.0.2.2" || time.Since(begin) > lookUnloaded || !s.loaded() {
			t.Errorf("Expected the zone at once, got %q after %s", got, time.Since(begin))
		}
		select {
		case <-tables:
			t.Error("Expected no table while the zone is the same")
		case <-time.After(time.Minute):
		}
		zone.set(7, errors.New("gone"))
		select {
		case <-tables:
			t.Error("Expected no table while the zone fails")
		case <-time.After(time.Minute):
		}
		if !s.loaded() {
			t.Error("Expected the zone of before to stay")
		}
		// With the same serial it may be another one all the same.
		zone.set(7, nil, append(slices.Clone(www), "www."+testZone+" 300 IN A 192.0.2.3")...)
		if got := shown(<-tables); got != "www 192.0.2.1 192.0.2.2 192.0.2.3" {
			t.Errorf("Expected the new zone, got %q", got)
		}
		cancel()
		<-done
	})
}

// fromZone returns the sources of a block with a plugin that has zones.
func fromZone(behind transfer.Transferer) *sources {
	s := newSources(&config{Zones: []string{testZone}, probes: []string{""}})
	s.behind = []transfer.Transferer{behind}
	return s
}

// TestZoneResumed checks that the zone of the instance before is used while that
// of a secondary is not there again, over several reloads, until it would have
// expired (RFC 1035, section 3.3.13).
func TestZoneResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logged(t)
		const has = "www 192.0.2.1 192.0.2.2"
		zone := &fakeZone{serial: 7, records: www}
		before := fromZone(zone).table()
		log.expect(t, "Zone "+testZone+" with serial 7")

		zone.set(7, errors.New("no SOA"))
		s := fromZone(zone)
		s.resume(before)
		table := s.table()
		if got := shown(table); got != has || !s.loaded() {
			t.Errorf("Expected the zone of before, got %q", got)
		}
		log.expect(t)
		time.Sleep(23 * time.Hour)
		if s.look() {
			t.Error("Expected no other table")
		}
		log.expect(t, "Zone "+testZone+": it stays as it was before the Corefile was loaded again, until 2000-01-02T00:00:00Z: no SOA")

		s = fromZone(zone)
		s.resume(table)
		if got := shown(s.table()); got != has {
			t.Errorf("Expected the zone to stay over one more reload, got %q", got)
		}
		time.Sleep(time.Hour)
		if !s.look() || shown(s.build()) != "" || s.loaded() {
			t.Errorf("Expected the zone to expire, got %q", shown(s.build()))
		}
		log.expect(t, "Zone "+testZone+": it is not used any more: no SOA")

		zone.set(7, nil, append(slices.Clone(www), "www."+testZone+" 300 IN A 192.0.2.3")...)
		s = fromZone(zone)
		s.resume(table)
		if got := shown(s.table()); got != has+" 192.0.2.3" || s.zones[testZone].resumed() {
			t.Errorf("Expected the zone that is there again, got %q", got)
		}
	})
}

// TestZoneGone checks that the services of a zone end with it, but not those of a
// plugin that reads its zones only when it starts.
func TestZoneGone(t *testing.T) {
	log := logged(t)
	zone := &fakeZone{serial: 7, records: www}
	before := fromZone(zone).table()
	log.expect(t, "with serial 7")
	zone.set(7, transfer.ErrNotAuthoritative)
	s := fromZone(zone)
	s.resume(before)
	if got := shown(s.table()); got == "" {
		t.Error("Expected the zone to stay at first")
	}
	log.expect(t)
	if !s.look() || shown(s.build()) != "" {
		t.Errorf("Expected no service of a zone that is gone, got %q", shown(s.build()))
	}
	log.expect(t, "Zone "+testZone+": it is not used any more: the plugin behind does not have it any more")
	if s.look() {
		t.Error("Expected nothing new")
	}
	log.expect(t)
}

// fails checks that a query gets an RCODE without a message.
func fails(t *testing.T, d *DNSLB, name string, want int) {
	t.Helper()
	w := dnstest.NewRecorder(&test.ResponseWriter{})
	rcode, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion(absolute(name), dns.TypeA))
	if rcode != want || err != nil || w.Msg != nil {
		t.Errorf("%s: expected %s, got %s, %v, %v", name, dns.RcodeToString[want], dns.RcodeToString[rcode], err, w.Msg)
	}
}

// TestZoneExpired checks that no service is answered from a zone that a secondary
// does not answer from any more, and that one which is not there yet is not
// answered unranked for long.
func TestZoneExpired(t *testing.T) {
	log := logged(t)
	d := behindFile(t, "par1")
	behind := &secondary.Secondary{File: *d.Next.(*file.File)}
	d.Next, d.sources.behind = behind, []transfer.Transferer{behind}
	d.inventory.services = []serviceConfig{
		{name: "www." + testZone, options: options{answers: 1}},
		{name: "both." + testZone, servers: []string{"iad"}, options: options{answers: 1}},
	}
	ranked := wire{name: "www", qtype: "A", answer: []string{"www 60 A 203.0.113.1"}}
	ours := wire{name: "both", qtype: "A", answer: []string{"both 60 A 192.0.2.2"}}
	d.table.Store(d.sources.table())
	ranked.check(t, d)

	z := behind.Z[testZone]
	z.Expired = true
	if !d.sources.look() {
		t.Fatal("Expected another table")
	}
	d.table.Store(d.sources.build())
	log.expect(t, "with serial 42", "Zone "+testZone+": it is not used any more: it has expired")
	fails(t, d, "www", dns.RcodeServerFailure)
	fails(t, d, "none", dns.RcodeServerFailure)
	ours.check(t, d)
	if d.sources.look() {
		t.Error("Expected nothing new")
	}

	z.Expired = false
	wire{name: "www", qtype: "A", answer: []string{"www 20 A 203.0.113.1", "www 20 A 203.0.113.2"}}.check(t, d)
	if !d.sources.look() {
		t.Fatal("Expected another table")
	}
	d.table.Store(d.sources.build())
	ranked.check(t, d)
}

// TestZoneSigned checks that a zone that was signed before it was loaded is left to
// the plugin that has it: what is ranked would be without a signature.
func TestZoneSigned(t *testing.T) {
	log := logged(t)
	sig := testZone + " 300 IN RRSIG SOA 13 4 300 20300101000000 20200101000000 1 " + testZone + " AAAA"
	zone := &fakeZone{serial: 1, records: www}
	s := fromZone(zone)
	s.conf.inventory = inventory{map[string]serverConfig{"a": machine("192.0.2.1")}, []serviceConfig{{name: "www." + testZone}, {name: "ftp." + testZone, servers: []string{"a"}}}}
	if got := shown(s.table()); got == "" {
		t.Fatal("Expected services")
	}
	log.expect(t, "with serial 1")
	zone.set(2, nil, append(slices.Clone(www), sig)...)
	if !s.look() || shown(s.build()) != "" {
		t.Errorf("Expected no service in a signed zone, got %q", shown(s.build()))
	}
	log.expect(t, "with serial 2", "Zone "+testZone+": it is signed already, and its services are not ranked: load it unsigned, and sign it with 'dnssec' in the server block")
	if s.look() {
		t.Error("Expected nothing new")
	}
	err := fromZone(zone).check(position{"Corefile", 3})
	if want := "Corefile:3 - Error during parsing: zone " + testZone + ": it is signed already"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Expected %q, got %v", want, err)
	}

	d := newDNSLB(*s.conf, nil)
	d.Next = test.NextHandler(dns.RcodeYXDomain, nil)
	d.table.Store(s.build())
	for _, name := range []string{"www", "none", "@"} {
		fails(t, d, name, dns.RcodeYXDomain)
	}
	zone.set(3, nil, www...)
	if !s.look() || shown(s.build()) == "" {
		t.Error("Expected services of the zone that is not signed any more")
	}
}
