package zonesource

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin/auto"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/transfer"
)

const (
	soaText  = zoneName + " 300 IN SOA ns.example.org. hostmaster.example.org. 7 7200 1800 86400 300"
	nsText   = zoneName + " 300 IN NS ns.example.org."
	mailText = "mail.example.org. 300 IN A 192.0.2.9"
)

// zoneText is a zone as a master file.
func zoneText(records ...string) string { return strings.Join(records, "\n") + "\n" }

// testBackends have a zone, and replace it by another version.
var testBackends = []struct {
	name string
	make func(text string) (backend transfer.Transferer, replace func(text string))
}{
	{"file", func(text string) (transfer.Transferer, func(string)) {
		z := parseZone(text)
		return file.File{Zones: file.Zones{Z: map[string]*file.Zone{zoneName: z}, Names: []string{zoneName}}}, replaceIn(z)
	}},
	{"auto", func(text string) (transfer.Transferer, func(string)) {
		z := parseZone(text)
		zones := new(auto.Zones)
		zones.Add(z, zoneName, nil)
		return auto.Auto{Zones: zones}, replaceIn(z)
	}},
	{"auto with another zone of that name", func(text string) (transfer.Transferer, func(string)) {
		zones := new(auto.Zones)
		zones.Add(parseZone(text), zoneName, nil)
		return auto.Auto{Zones: zones}, func(text string) {
			z := parseZone(text)
			zones.Lock()
			defer zones.Unlock()
			zones.Z[zoneName] = z
		}
	}},
	{"secondary", func(text string) (transfer.Transferer, func(string)) {
		z := parseZone(text)
		return newTestSecondary(map[string]*file.Zone{zoneName: z}), replaceIn(z)
	}},
	{"another plugin", func(text string) (transfer.Transferer, func(string)) {
		b := new(fakeBackend)
		replace := func(text string) {
			records := strings.Split(strings.TrimSpace(text), "\n")
			b.soa, b.records = records[0], records[1:]
		}
		replace(text)
		return b, replace
	}},
}

func parseZone(text string) *file.Zone {
	z, err := file.Parse(strings.NewReader(text), zoneName, "zone", -1)
	if err != nil {
		panic(err)
	}
	return z
}

// replaceIn returns a function that does what a reload of file and a transfer of
// secondary do.
func replaceIn(z *file.Zone) func(text string) {
	return func(text string) {
		other := parseZone(text)
		z.Lock()
		defer z.Unlock()
		z.Apex, z.Tree = other.Apex, other.Tree
	}
}

// shownZone tells all that a Zone holds.
func shownZone(z *Zone) string {
	names := make([]string, 0, len(z.Names))
	for owner, n := range z.Names {
		addrs := make([]string, len(n.Addrs))
		for i, addr := range n.Addrs {
			addrs[i] = addr.String()
		}
		slices.Sort(addrs)
		names = append(names, fmt.Sprint(owner, n.Types, addrs, n.mailOrNameServer))
	}
	slices.Sort(names)
	return fmt.Sprint(z.SOA, z.Signed, names)
}

// TestChangeWithoutLargerSerial checks that another version of a zone is noticed at
// the next Poll whatever its serial is, and that the same version is none.
func TestChangeWithoutLargerSerial(t *testing.T) {
	base := append([]string{soaText, nsText, mailText}, www...)
	with := func(records ...string) []string { return append(slices.Clone(base), records...) }
	without := func(record string) []string {
		return slices.DeleteFunc(slices.Clone(base), func(r string) bool { return r == record })
	}
	soa := func(old, text string) []string {
		return append([]string{strings.Replace(soaText, old, text, 1)}, base[1:]...)
	}
	tests := []struct {
		name    string
		records []string
	}{
		{"record added", with("www.example.org. 300 IN A 192.0.2.3")},
		{"record in the other family added", with("www.example.org. 300 IN AAAA 2001:db8::1")},
		{"record of another type added", with(`www.example.org. 300 IN TXT "x"`)},
		{"record removed", without(www[0])},
		{"record changed", append(without(www[0]), "www.example.org. 300 IN A 192.0.2.3")},
		{"name added", with("ftp.example.org. 300 IN A 192.0.2.3")},
		{"name removed", without(mailText)},
		{"name becomes a mail server", with("example.org. 300 IN MX 10 www.example.org.")},
		{"name is delegated", with("mail.example.org. 300 IN NS ns.example.net.")},
		{"zone is signed", with(zoneName + " 300 IN RRSIG SOA 13 2 300 20300101000000 20200101000000 1 " + zoneName + " AAAA")},
		{"TTL of the SOA record", soa(" 300 IN", " 60 IN")},
		{"TTL of negative answers", soa("86400 300", "86400 60")},
		{"larger serial", soa(" 7 ", " 8 ")},
		{"smaller serial", soa(" 7 ", " 6 ")},
		{"smaller serial by the arithmetic of RFC 1982", soa(" 7 ", " 4294967295 ")},
		{"smaller serial and a name added", append(soa(" 7 ", " 6 "), "ftp.example.org. 300 IN A 192.0.2.3")},
		{"serial 0", soa(" 7 ", " 0 ")},
	}
	for _, b := range testBackends {
		t.Run(b.name, func(t *testing.T) {
			for _, tc := range tests {
				synctest.Test(t, func(t *testing.T) {
					backend, replace := b.make(zoneText(base...))
					s, _ := follow(true, backend)
					if !s.Poll() || s.Poll() {
						t.Fatalf("%s: expected one change, to the zone", tc.name)
					}
					first := shownZone(s.Zones()[zoneName])
					replace(zoneText(tc.records...))
					if !s.Poll() {
						t.Errorf("%s: expected a change", tc.name)
					}
					fresh, _ := follow(true, backend)
					fresh.Poll()
					got, want := shownZone(s.Zones()[zoneName]), shownZone(fresh.Zones()[zoneName])
					if got != want || got == first {
						t.Errorf("%s: expected %s, got %s", tc.name, want, got)
					}
					if s.Poll() {
						t.Errorf("%s: expected no other change", tc.name)
					}
				})
			}
		})
	}
}

// TestOrderOfAddressesIsNoChange checks that a plugin may send a zone in any order.
func TestOrderOfAddressesIsNoChange(t *testing.T) {
	b := &fakeBackend{serial: 7, records: append([]string{mailText}, www...)}
	s, _ := follow(true, b)
	s.Poll()
	b.records = []string{www[1], mailText, www[0]}
	delete(s.due, zoneName)
	if s.Poll() {
		t.Error("Expected no change")
	}
}

// TestComparingLargeZonesIsLimited polls a plugin that is not like file and needs
// two seconds for the whole zone: it is asked for that in 1 % of the time, and
// still for a larger serial at each Poll.
func TestComparingLargeZonesIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{serial: 7, records: www, delay: 2 * time.Second}
		s, _ := follow(true, b)
		s.Poll()
		b.whole = 0
		begin := time.Now()
		for time.Since(begin) < time.Hour {
			time.Sleep(s.Wait())
			if s.Poll() {
				t.Fatal("Expected no change")
			}
		}
		if b.whole < 16 || b.whole > 18 {
			t.Errorf("Expected the whole zone every 200s, got it %d times in an hour", b.whole)
		}

		b.records = append(slices.Clone(www), "www.example.org. 300 IN A 192.0.2.3")
		begin = time.Now()
		for !s.Poll() && time.Since(begin) < time.Hour {
			time.Sleep(s.Wait())
		}
		if took := time.Since(begin); took > 210*time.Second {
			t.Errorf("Expected a change without another serial within 210s, got it after %s", took)
		}
		b.serial = 8
		if !s.Poll() {
			t.Error("Expected a change with another serial at once")
		}
	})
}

// BenchmarkPoll polls zones of 10,000 names that do not change.
func BenchmarkPoll(b *testing.B) {
	records := []string{soaText, nsText}
	for i := range 10_000 {
		records = append(records, fmt.Sprintf("n%d.example.org. 300 IN A 192.0.2.1", i), fmt.Sprintf("n%d.example.org. 300 IN A 192.0.2.2", i))
	}
	z := parseZone(zoneText(records...))
	f := file.File{Zones: file.Zones{Z: map[string]*file.Zone{zoneName: z}, Names: []string{zoneName}}}
	for name, backend := range map[string]transfer.Transferer{"file": f, "another_plugin": struct{ transfer.Transferer }{f}} {
		for _, whole := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/whole=%v", name, whole), func(b *testing.B) {
				s, _ := follow(true, backend)
				for b.Loop() {
					s.due[zoneName] = time.Now().Add(time.Hour)
					if whole {
						delete(s.due, zoneName)
					}
					s.Poll()
				}
			})
		}
	}
}
