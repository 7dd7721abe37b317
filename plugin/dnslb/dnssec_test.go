package dnslb

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnssec"
	"github.com/coredns/coredns/plugin/pkg/cache"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec/nsectest"
)

// signing returns the dnssec plugin for zones, with a key of the first one for
// each of the flags.
func signing(t testing.TB, next plugin.Handler, zones []string, flags ...uint16) plugin.Handler {
	t.Helper()
	var keys []*dnssec.DNSKEY
	for _, f := range flags {
		keys = append(keys, nsectest.Key(t, zones[0], f))
	}
	split := slices.Contains(flags, 256) && slices.Contains(flags, 257)
	return dnssec.New(zones, keys, split, next, cache.New[[]dns.RR](1000))
}

func TestConfigureDNSSEC(t *testing.T) {
	at := corefile.Position{File: "Corefile", Line: 9}
	const other = "mail.gslb.example.org."
	tests := []struct {
		name   string
		zones  []string
		dnssec plugin.Handler
		sendDS bool
		keys   []string // their zones
		want   string
	}{
		{"not signed", []string{testZone}, nil, false, nil, ""},
		{"signed", []string{testZone}, signing(t, nil, []string{testZone}, 257), false, nil, ""},
		{"keys", []string{testZone, other}, signing(t, nil, []string{testZone, other}, 257), true, []string{testZone, other}, ""},
		{"one key of a split pair", []string{testZone}, signing(t, nil, []string{testZone}, 256, 257), true, []string{testZone}, ""},
		{"all keys if none has SEP", []string{testZone}, signing(t, nil, []string{testZone}, 256), true, []string{testZone}, ""},
		{"rollover", []string{testZone}, signing(t, nil, []string{testZone}, 257, 257), true, []string{testZone, testZone}, ""},
		{"parent's key", []string{testZone}, signing(t, nil, []string{"gslb.example.org."}, 257), false, nil, "Corefile:9 - Error during parsing: dnssec in this server block signs svc.gslb.example.org. with the key of gslb.example.org."},
		{"one of two zones", []string{testZone, other}, signing(t, nil, []string{testZone}, 257), false, nil, "does not sign mail.gslb.example.org."},
		{"DS without dnssec", []string{testZone}, nil, true, nil, "Corefile:9 - Error during parsing: 'ds' needs 'dnssec': add 'dnssec' with a 'key file' line"},
	}
	for _, tc := range tests {
		d := newDNSLB(config{Zones: tc.zones, sendDS: tc.sendDS}, nil)
		err := d.configureDNSSEC(tc.dnssec, at)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Expected %q, got %v", tc.name, tc.want, err)
			continue
		}
		var zones []string
		for _, ds := range d.ds {
			if zones = append(zones, ds.Cut); ds.Check() != nil {
				t.Errorf("%s: Expected a DS record, got %+v", tc.name, ds)
			}
		}
		if !slices.Equal(zones, tc.keys) || !slices.Equal(registrationOf(d.config).DS, d.ds) {
			t.Errorf("%s: Expected keys of %v to be registered, got %v", tc.name, tc.keys, zones)
		}
	}
}

// TestTypesMatchAnswers checks that the types that a denial leaves at a name are
// those that dnslb answers.
func TestTypesMatchAnswers(t *testing.T) {
	all := []uint16{dns.TypeA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeAAAA, dns.TypeSRV, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCAA, dns.TypeAPL}
	for _, node := range []string{"", "par1"} {
		d := frontOfZone(t, node)
		for owner, n := range d.snapshot.Load().names {
			if strings.Contains(owner, "sub.") || n.has(dns.TypeCNAME) && n.service == nil {
				continue // delegations and aliases answer with something else
			}
			types, known := d.typesOf(owner, d.snapshot.Load().soas[n.zone])
			if !known {
				t.Errorf("Expected the types of %s to be known", owner)
			}
			for _, qtype := range all {
				w := dnstest.NewRecorder(&test.ResponseWriter{})
				if _, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion(owner, qtype)); err != nil || w.Msg == nil {
					t.Fatalf("%s %s: %v", owner, dns.TypeToString[qtype], err)
				}
				answered := slices.ContainsFunc(w.Msg.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == qtype })
				if answered != slices.Contains(types, qtype) {
					t.Errorf("%q: Expected %s at %s to be %t, got %v", node, dns.TypeToString[qtype], owner, answered, types)
				}
			}
		}
	}

	d := frontOfZone(t, "")
	soa := *d.snapshot.Load().soas[testZone]
	if types, known := d.typesOf("none.www."+testZone, &soa); !known || !slices.Equal(types, []uint16{dns.TypeNXNAME}) {
		t.Errorf("Expected a name not to exist, got %v, %v", types, known)
	}
	if types, known := d.typesOf("any.w."+testZone, &soa); !known || !slices.Contains(types, dns.TypeA) {
		t.Errorf("Expected the types of a wildcard, got %v, %v", types, known)
	}
	soa.Serial++
	for _, name := range []string{"none.www." + testZone, "www." + testZone} {
		if types, known := d.typesOf(name, &soa); known {
			t.Errorf("Expected the types of %s to be unknown in another version of the zone, got %v", name, types)
		}
	}
	d.sources.setBackends(nil, false) // such as forward
	empty := *d.snapshot.Load()
	empty.zones = nil
	d.snapshot.Store(&empty)
	if _, known := d.typesOf("www."+testZone, empty.soas[testZone]); known {
		t.Error("Expected the types of a plugin without transfers to be unknown")
	}
}

// TestSignedNoData checks that dnssec denies the types that a service does not have
// and no others.
func TestSignedNoData(t *testing.T) {
	d := frontOfZone(t, "par1")
	front := signing(t, d, []string{testZone}, 257)
	if err := d.configureDNSSEC(front, corefile.Position{}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		has  []uint16
		not  []uint16
	}{
		{"six", []uint16{dns.TypeAAAA, dns.TypeHTTPS}, []uint16{dns.TypeCAA, dns.TypeA}},
		{"c", nil, []uint16{dns.TypeA, dns.TypeHTTPS, dns.TypeNXNAME}}, // an empty non-terminal
		{"none.c", []uint16{dns.TypeNXNAME}, []uint16{dns.TypeA, dns.TypeTXT}},
	} {
		m := new(dns.Msg).SetQuestion(tc.name+"."+testZone, dns.TypeCAA)
		m.SetEdns0(1232, true)
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := front.ServeDNS(context.Background(), w, m); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(w.Msg.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNSEC })
		if i < 0 || len(w.Msg.Ns) != 4 || w.Msg.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: Expected SOA and NSEC with their signatures, got\n%v", tc.name, w.Msg)
			continue
		}
		types := w.Msg.Ns[i].(*dns.NSEC).TypeBitMap
		for _, rrtype := range tc.has {
			if !slices.Contains(types, rrtype) {
				t.Errorf("%s: Expected %s in %v", tc.name, dns.TypeToString[rrtype], types)
			}
		}
		for _, rrtype := range tc.not {
			if slices.Contains(types, rrtype) {
				t.Errorf("%s: Expected no %s in %v", tc.name, dns.TypeToString[rrtype], types)
			}
		}
	}
}
