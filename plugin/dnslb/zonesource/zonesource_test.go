package zonesource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/auto"
	_ "github.com/coredns/coredns/plugin/dynupdate"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/secondary"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

const zoneName = "example.org."

// www are records of a name with two addresses.
var www = []string{"www.example.org. 300 IN A 192.0.2.1", "WWW.example.org. 300 IN A 192.0.2.2"}

func newRR(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// fakeBackend is a backend plugin with one zone.
type fakeBackend struct {
	serial  uint32
	soa     string // "": one with the serial
	records []string
	err     error

	delay time.Duration // of a transfer of the whole zone
	whole int           // transfers of the whole zone
}

func (b *fakeBackend) Transfer(zone string, serial uint32) (<-chan []dns.RR, error) {
	switch {
	case b.err != nil:
		return nil, b.err
	case zone != zoneName:
		return nil, transfer.ErrNotAuthoritative
	}
	soa := newRR(fmt.Sprintf("%s 300 IN SOA ns.example.org. hostmaster.example.org. %d 7200 1800 86400 300", zoneName, b.serial)).(*dns.SOA)
	if b.soa != "" {
		soa = newRR(b.soa).(*dns.SOA)
	}
	ch := make(chan []dns.RR, len(b.records)+2)
	defer close(ch)
	ch <- []dns.RR{soa}
	if serial == 0 || serial < soa.Serial { // as the interface has it
		for _, r := range b.records {
			ch <- []dns.RR{newRR(r)}
		}
		ch <- []dns.RR{soa}
		time.Sleep(b.delay)
		b.whole++
	}
	return ch, nil
}

// follow returns a Source of one zone that services need, and the reports.
func follow(needed bool, backends ...transfer.Transferer) (*Source, *[]error) {
	reports := new([]error)
	return New(Settings{
		Zones: []string{zoneName}, Backends: backends,
		Needed: func(string) bool { return needed },
		Report: func(err error) { *reports = append(*reports, err) },
	}), reports
}

func TestZoneIsTransferredWhenSerialChanges(t *testing.T) {
	b := &fakeBackend{serial: 0, records: www} // CoreDNS answers a transfer since serial 0 with the whole zone
	s, reports := follow(true, b)
	if !s.Poll() || !s.Loaded() {
		t.Fatal("Expected the zone")
	}
	if got := fmt.Sprint(s.Zones()[zoneName].Addresses("www.example.org.")); got != "[192.0.2.1 192.0.2.2]" {
		t.Errorf("Expected the addresses of a name, got %s", got)
	}
	if s.Poll() {
		t.Error("Expected no change without another serial")
	}
	b.serial = 1
	if !s.Poll() || s.Zones()[zoneName].SOA.Serial != 1 {
		t.Error("Expected the zone with another serial")
	}
	if len(*reports) != 2 || (*reports)[0] != nil || (*reports)[1] != nil {
		t.Errorf("Expected two loads to be reported, got %v", *reports)
	}
}

func TestFailingZoneIsLoggedEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logtest.Capture(t)
		b := &fakeBackend{serial: 7, records: www}
		s, reports := follow(true, b)
		s.Poll()
		log.Expect(t, `Loaded zone "example.org.", serial 7: 2 names`)

		const failed = `Failed to transfer zone "example.org.", keeping the previous version: no SOA`
		b.err = errors.New("no SOA")
		for _, texts := range [][]string{{failed}, nil, {failed}} {
			if s.Poll() || s.Zones()[zoneName] == nil || !s.Loaded() {
				t.Error("Expected the previous version to stay")
			}
			log.Expect(t, texts...)
			time.Sleep(5 * time.Minute)
		}
		b.err = errors.New("zone file is empty")
		s.Poll()
		log.Expect(t, `Failed to transfer zone "example.org.", keeping the previous version: zone file is empty`)
		if n := len(*reports); n != 4 || (*reports)[2] == nil {
			t.Errorf("Expected the logged failures to be reported, got %v", *reports)
		}

		b.err = nil // it may be another version in spite of the serial
		if !s.Poll() {
			t.Error("Expected the zone to be transferred again")
		}
		log.Expect(t, `Loaded zone "example.org.", serial 7: 2 names`)
	})
}

func TestMissingZone(t *testing.T) {
	for _, tc := range []struct {
		name    string
		needed  bool
		err     error
		missing bool
		text    string
	}{
		{"needed", true, transfer.ErrNotAuthoritative, true, "server block not ready without it: no backend plugin in this server block has the zone"},
		{"not needed", false, transfer.ErrNotAuthoritative, false, "answering only for services that name their servers: no backend plugin"},
		{"not needed, but failing", false, errors.New("no SOA"), true, "server block not ready without it: no SOA"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := logtest.Capture(t)
				s, _ := follow(tc.needed, &fakeBackend{err: tc.err})
				if s.Poll() != tc.missing || s.Loaded() == tc.missing {
					t.Errorf("Expected missing %v, got %q", tc.missing, s.Missing())
				}
				log.Expect(t)
				time.Sleep(LoadTime)
				s.Poll()
				log.Expect(t, `Failed to load zone "example.org." since 2000-01-01T00:00:00Z, `+tc.text)
			})
		})
	}
}

func TestExpiredZoneIsTakenFromAnotherBackend(t *testing.T) {
	z := file.NewZone(zoneName, "")
	z.SOA, z.Expired = newRR(zoneName+" 300 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 300").(*dns.SOA), true
	b := newTestSecondary(map[string]*file.Zone{zoneName: z})
	s, _ := follow(true, b, &fakeBackend{serial: 2})
	if s.Poll(); s.Zones()[zoneName] == nil || s.Zones()[zoneName].SOA.Serial != 2 {
		t.Errorf("Expected the zone of the other plugin, got %v", s.Zones())
	}
	s, _ = follow(true, b)
	if s.Poll(); s.Zones()[zoneName] != nil || s.Loaded() {
		t.Errorf("Expected no zone that has expired, got %v", s.Zones())
	}
}

func newTestSecondary(zones map[string]*file.Zone) *secondary.Secondary {
	s := &secondary.Secondary{}
	for name := range zones {
		s.Names = append(s.Names, name)
	}
	s.Z = zones
	s.ZoneLookupFunc = func(name string) (string, *file.Zone, bool) { z, ok := zones[name]; return name, z, ok }
	return s
}

// TestZonesThatBackendsCanHave checks which plugins may get other zones than those
// in their configuration.
func TestZonesThatBackendsCanHave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, []byte("@ IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 300\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const other = "example.net."
	for _, tc := range []struct {
		corefile          string
		canHave, hasOther bool
	}{
		{"file " + path + " " + zoneName, true, false},
		{"dynupdate " + zoneName + " {\nfile " + path + "\nallow key.example.org. * *\n}", true, false},
		{"auto example.com {\ndirectory " + filepath.Dir(path) + "\n}", true, true},
		// Before its first transfers a secondary may have catalogs.
		{"secondary " + zoneName + " {\ntransfer from 192.0.2.1\n}", true, true},
		{"secondary catalog.example.com {\ntransfer from 192.0.2.1\ncatalog\n}", true, true},
	} {
		name := strings.Fields(tc.corefile)[0]
		t.Run(name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tc.corefile)
			setup, err := caddy.DirectiveAction("dns", name)
			if err != nil {
				t.Fatal(err)
			}
			if err := setup(c); err != nil {
				t.Fatal(err)
			}
			s, _ := follow(true, dnsserver.GetConfig(c).Plugin[0](nil).(transfer.Transferer))
			if s.CanHave(zoneName) != tc.canHave || s.CanHave(other) != tc.hasOther {
				t.Errorf("Expected %v for the zone and %v for another one, got %v and %v", tc.canHave, tc.hasOther, s.CanHave(zoneName), s.CanHave(other))
			}
		})
	}
}

func TestSecondaryWithoutCatalogHasNoOtherZones(t *testing.T) {
	const member = "example.net."
	z := file.NewZone("zones.example.com.", "")
	s := New(Settings{
		Zones: []string{member}, Backends: []transfer.Transferer{newTestSecondary(map[string]*file.Zone{"zones.example.com.": z})},
		Needed: func(string) bool { return false }, Report: func(error) {},
	})
	if !s.Poll() || s.Unserved(member) || !slices.Equal(s.Missing(), []string{member}) {
		t.Errorf("Expected to wait for the zone of the secondary, got %q", s.Missing())
	}
	z.SOA = newRR("zones.example.com. 300 IN SOA . . 1 7200 1800 86400 300").(*dns.SOA)
	if !s.Poll() || !s.Unserved(member) || !s.Loaded() {
		t.Errorf("Expected a zone that the secondary does not have, got %q", s.Missing())
	}
	if err := z.Insert(newRR(`version.zones.example.com. 0 IN TXT "2"`)); err != nil {
		t.Fatal(err)
	}
	if !s.Poll() || s.Unserved(member) || !s.Loaded() {
		t.Errorf("Expected a zone that may come by a catalog, got %q", s.Missing())
	}
}

func TestResumedZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{serial: 7, records: www}
		previous, _ := follow(true, b)
		previous.Poll()
		for _, tc := range []struct {
			name  string
			err   error
			looks []bool // whether there is a zone, at each Poll
		}{
			{"failing", errors.New("no SOA"), []bool{true, true, true}},
			{"gone", transfer.ErrNotAuthoritative, []bool{true, false, false}},
		} {
			s, _ := follow(true, &fakeBackend{err: tc.err})
			s.Resume(previous.Zones(), test.ErrorHandler())
			for i, want := range tc.looks {
				s.Poll()
				z := s.Zones()[zoneName]
				if (z != nil) != want || z != nil && !z.Resumed() {
					t.Errorf("%s: expected a zone %v at Poll %d, got %+v", tc.name, want, i+1, z)
				}
			}
			time.Sleep(24 * time.Hour) // as long as the SOA record says
			if s.Poll(); s.Zones()[zoneName] != nil || s.Loaded() {
				t.Errorf("%s: expected the zone to expire", tc.name)
			}
		}
	})
}

func TestNamesWithChoice(t *testing.T) {
	for _, tc := range []struct {
		name    string
		records []string
		want    bool
	}{
		{"two addresses", www, true},
		{"one address", www[:1], false},
		{"one in each family", []string{www[0], "www.example.org. 300 IN AAAA 2001:db8::1"}, false},
		{"two in IPv6", []string{"www.example.org. 300 IN AAAA 2001:db8::1", "www.example.org. 300 IN AAAA 2001:db8::2"}, true},
		{"no host", []string{www[0], "www.example.org. 300 IN A 0.0.0.0"}, false},
		{"name server", append([]string{"example.org. 300 IN NS www.example.org."}, www...), false},
		{"mail server", append([]string{"example.org. 300 IN MX 10 WWW.example.org."}, www...), false},
	} {
		s, _ := follow(true, &fakeBackend{serial: 1, records: tc.records})
		s.Poll()
		if got := s.Zones()[zoneName].Names["www.example.org."].Ranks(); got != tc.want {
			t.Errorf("%s: expected %v, got %v", tc.name, tc.want, got)
		}
	}
}

func TestSignedZone(t *testing.T) {
	signature := zoneName + " 300 IN RRSIG SOA 13 2 300 20300101000000 20200101000000 1 " + zoneName + " AAAA"
	s, reports := follow(true, &fakeBackend{serial: 1, records: []string{signature}})
	if got := s.SignedZone(); got != zoneName {
		t.Errorf("Expected a signed zone, got %q", got)
	}
	if !s.Poll() || s.Poll() || !s.Zones()[zoneName].Signed || len(*reports) != 1 || !errors.Is((*reports)[0], errSigned) {
		t.Errorf("Expected one report of a signed zone, got %v", *reports)
	}
	s, _ = follow(true, &fakeBackend{serial: 1, records: www})
	if got := s.SignedZone(); got != "" {
		t.Errorf("Expected no signed zone, got %q", got)
	}
}
