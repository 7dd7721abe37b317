package dnsb

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/dnssec"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec/nsectest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

var digest = strings.Repeat("c0de", 16)

func TestDSLines(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	two := file("dsset", "svc.gslb.example.org. IN DS 1 13 2 "+digest+"\nSVC.gslb.example.org. IN DS 2 13 2 ( "+digest[:32]+" "+digest[32:]+" )\n")
	tests := []struct {
		lines string
		want  string // of the error
		count int
	}{
		{"ds svc 1 13 2 " + digest, "", 1},
		{"ds svc.gslb.example.org 1 13 2 " + digest[:32] + " " + digest[32:], "", 1},
		{"ds svc 1 13 2 " + digest + "\nds svc 2 13 2 " + digest, "", 2},
		{"ds svc " + two, "", 2},
		{"ds svc", "expected 'ds CUT FILE|KEYTAG", 0},
		{"ds svc 1 13 2", "expected 'ds CUT FILE|KEYTAG", 0},
		{"ds svc one 13 2 " + digest, "invalid DS record, expected DS records as dnssec-dsfromkey prints them", 0},
		{"ds svc 1 13 1 " + digest[:40], "SHA-256", 0},
		{"ds svc 1 13 2 " + digest[:40], "32 bytes", 0},
		{"ds svc 1 13 2 $" + digest[1:], "hexadecimal digits", 0},
		{"ds other " + two, "unexpected DS record of svc.gslb.example.org.", 0},
		{"ds svc " + dir + "/missing", "no such file", 0},
		{"ds svc " + file("empty", "; nothing\n"), "no DS record", 0},
		{"ds svc " + file("foreign", "svc.gslb.example.org. 60 IN A 192.0.2.1\n"), "expected only DS records", 0},
		{"ds par1.lb.gslb.example.org 1 13 2 " + digest, "those of the nodes", 0},
		{"ds svc.example.net 1 13 2 " + digest, "not below the zone", 0},
	}
	for _, tc := range tests {
		d, err := parse(controller("dnsb {\nns b1 192.0.2.1\n" + tc.lines + "\n}"))
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: Expected an error with %q, got: %v", tc.lines, tc.want, err)
			}
			continue
		}
		if err != nil || len(d.conf.ds["svc.gslb.example.org."]) != tc.count {
			t.Errorf("%s: Expected %d records, got %v, %v", tc.lines, tc.count, d, err)
		}
	}
}

// with returns r with DS records that have these key tags, at its first cut.
func with(r *registration.Registration, tags ...uint16) *registration.Registration {
	for _, tag := range tags {
		r.DS = append(r.DS, registration.DS{Cut: r.Cuts[0], KeyTag: tag, Algorithm: 13, DigestType: 2, Digest: digest})
	}
	return r
}

func TestDSPermission(t *testing.T) {
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any for svc ds\naccept k1 fra1 any ds", nil)
	other := nodeAt("nyc1", "192.0.2.54")
	other.Cuts = []string{"other.gslb.example.org."}
	tests := []struct {
		r    *registration.Registration
		want string
	}{
		{nodeAt("par1", "192.0.2.53"), ""},
		{with(nodeAt("par1", "192.0.2.53"), 1), "does not end in 'ds'"},
		{with(nodeAt("nyc1", "192.0.2.54"), 1), ""},
		{with(other, 1), "may not serve other"},
		{with(nodeAt("fra1", "192.0.2.55"), 1), ""},
	}
	for _, tc := range tests {
		err := d.conf.permits("k1.", tc.r, nil)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Expected %q for %s, got: %v", tc.want, tc.r.Node, err)
		}
	}
}

// tags returns the key tags of the DS records in a section.
func tags(rrs []dns.RR) string {
	var out []string
	for _, rr := range rrs {
		if ds, ok := rr.(*dns.DS); ok {
			out = append(out, fmt.Sprint(ds.KeyTag))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestDSOfCuts(t *testing.T) {
	d := started(t, "accept k1 par1 any ds\naccept k1 nyc1 any ds\nds fixed 9 13 2 "+digest, nil)
	check := func(name, want string) {
		t.Helper()
		r := ask(t, d, "198.51.100.1", name, dns.TypeDS)
		if !r.Authoritative || tags(r.Answer) != want || (len(r.Ns) == 1) != (want == "") {
			t.Errorf("Expected DS %q of %s, got %v", want, name, r)
		}
		do := func(m *dns.Msg) { m.SetEdns0(1232, true) }
		if r := ask(t, d, "198.51.100.1", "www."+name, dns.TypeA, do); tags(r.Ns) != want || r.Authoritative {
			t.Errorf("Expected a referral with DS %q for %s, got %v", want, name, r)
		}
		if r := ask(t, d, "198.51.100.1", "www."+name, dns.TypeA); tags(r.Ns) != "" {
			t.Errorf("Expected no DS for who does not ask for DNSSEC, got %v", r)
		}
	}
	const svc, fixed = "svc.gslb.example.org.", "fixed.gslb.example.org."
	both := nodeAt("par1", "192.0.2.53")
	both.Cuts = []string{svc, fixed}
	registers(t, d, with(both, 1))
	check(svc, "1")
	check(fixed, "9")
	registers(t, d, with(nodeAt("nyc1", "192.0.2.54"), 1, 2))
	check(svc, "1 2")
	if cut, node := d.snapshot.Load().differs(with(nodeAt("fra1", "192.0.2.55"), 1)); cut != svc || node != "nyc1" {
		t.Errorf("Expected fra1 to differ from nyc1, got %q at %q", node, cut)
	}
	text := ""
	for _, rr := range transferred(t, d, 0) {
		text += rr.String() + "\n"
	}
	if strings.Count(text, "\tDS\t") != 3 {
		t.Errorf("Expected 3 DS records to be transferred, got\n%s", text)
	}
	required := d.snapshot.Load().rrset(svc, dns.TypeDS)
	for _, rr := range required {
		rr.Header().Ttl = 0
	}
	held := func(want string) {
		t.Helper()
		if err := d.snapshot.Load().prerequisites(required); fmt.Sprint(err) != want {
			t.Errorf("Expected the prerequisite of two DS records to end with %q, got %q", want, fmt.Sprint(err))
		}
	}
	if len(required) != 2 {
		t.Errorf("Expected two DS records of %s, got %v", svc, required)
	}
	held("<nil>")
	registers(t, d, nodeAt("nyc1", "192.0.2.54"))
	check(svc, "1")
	held("prerequisite svc.gslb.example.org. DS: RRset has other records")
	registers(t, d, nodeAt("par1", "192.0.2.53"))
	check(svc, "")
}

// The types that a denial leaves are those for which there is an answer.
func TestTypes(t *testing.T) {
	d := started(t, "accept k1 par1 any ds\naccept k1 fra1 any\nnode nyc1 192.0.2.54\ncut svc nyc1\ncut a.b.deep.gslb.example.org nyc1", nil)
	full := with(nodeAt("par1", "2001:db8::53", "198.51.100.0/24"), 1)
	full.Location = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m"
	registers(t, d, full)
	large := nodeAt("fra1", "192.0.2.55")
	for i := range 10_000 { // in two parts
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24) // #nosec G115 -- low bytes
		large.Prefixes = append(large.Prefixes, registration.Prefix{Prefix: prefix})
	}
	registers(t, d, large)
	s := d.snapshot.Load()
	if s.owners["1.fra1.lb.gslb.example.org."] == nil {
		t.Error("Expected a node in two parts")
	}
	all := []uint16{dns.TypeA, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeTXT, dns.TypeAAAA, dns.TypeLOC, dns.TypeSRV, dns.TypeAPL, dns.TypeHTTPS, dns.TypeCAA}
	for name := range s.owners {
		types, ok := s.types(name, nil)
		if !ok {
			t.Errorf("Expected the types of %s to be known", name)
		}
		for _, rrtype := range all {
			m := ask(t, d, "198.51.100.1", name, rrtype)
			answered := len(m.Answer) > 0 || m.Truncated
			if answered != slices.Contains(types, rrtype) {
				t.Errorf("Expected %s at %s: %t, got %v", dns.TypeToString[rrtype], name, answered, types)
			}
		}
	}
	for name, want := range map[string]int{"svc.gslb.example.org.": 2, "a.b.deep.gslb.example.org.": 1} {
		if types, ok := s.types(name, nil); !ok || len(types) != want || types[0] != dns.TypeNS {
			t.Errorf("Expected %d types at %s, got %v", want, name, types)
		}
	}
	if _, ok := s.types("none.gslb.example.org.", nil); ok {
		t.Error("Expected nothing to be known of a name that does not exist")
	}
}

// secured starts a server whose block has dnssec with these arguments.
func secured(t *testing.T, dnssec string, lines string) error {
	t.Helper()
	text := fmt.Sprintf("gslb.example.org:%d {\nbind 127.0.0.1\n%s\ndnsb {\nns b1 127.0.0.1\nnode par1 192.0.2.53 2001:db8::53\ncut svc par1\n%s\n}\n}\n", testport.Free(t), dnssec, lines)
	i, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(text), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		i.ShutdownCallbacks()
		_ = i.Stop()
	})
	return nil
}

func TestSignedZones(t *testing.T) {
	path, _ := nsectest.KeyFiles(t, "gslb.example.org.", 257)
	parent, _ := nsectest.KeyFiles(t, "example.org.", 257)
	tests := []struct{ dnssec, want string }{
		{"dnssec {\nkey file " + path + "\n}", ""},
		{"dnssec gslb.example.org {\nkey file " + path + "\n}", ""},
		{"dnssec example.org {\nkey file " + parent + "\n}", "with the key of example.org."},
		{"dnssec example.org gslb.example.org {\nkey file " + parent + "\n}", ""},
		{"dnssec gslb.example.org svc.gslb.example.org {\nkey file " + path + "\n}", "signs svc.gslb.example.org. as part of zone svc.gslb.example.org."},
		{"dnssec", "does not sign gslb.example.org."},
	}
	for _, tc := range tests {
		err := secured(t, tc.dnssec, "")
		if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "Corefile:")) {
			t.Errorf("%s: Expected an error with %q and its line, got: %v", tc.dnssec, tc.want, err)
		}
	}
}

// A referral that asks for DNSSEC leaves room for what dnssec adds to it.
func TestSignedReferralFits(t *testing.T) {
	path, _ := nsectest.KeyFiles(t, "gslb.example.org.", 257)
	var addrs []string
	for i := range 12 {
		addrs = append(addrs, fmt.Sprintf("2001:db8::%d", i+1))
	}
	text := fmt.Sprintf("gslb.example.org:%d {\nbind 127.0.0.1\ndnssec {\nkey file %s\n}\ndnsb {\nns b1 127.0.0.1\nnode par1 %s\ncut svc par1\ncut safe par1\nds safe 1 13 2 %s\n}\n}\n",
		testport.Free(t), path, strings.Join(addrs, " "), digest)
	i, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(text), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { i.ShutdownCallbacks(); _ = i.Stop() }()
	addr := i.Servers()[0].LocalAddr().String()
	for _, qname := range []string{"svc.gslb.example.org.", "www.svc.gslb.example.org.", "safe.gslb.example.org.", "a.long.name.below.safe.gslb.example.org."} {
		whole, cut := 0, 0
		for size := uint16(512); size < 1400; size += 4 {
			m := new(dns.Msg).SetQuestion(qname, dns.TypeA)
			m.SetEdns0(size, true)
			r, _, err := (&dns.Client{Timeout: patience}).Exchange(m, addr)
			if err != nil {
				t.Fatal(err)
			}
			glue := 0
			for _, rr := range r.Extra {
				if rr.Header().Rrtype == dns.TypeAAAA {
					glue++
				}
			}
			switch {
			case r.Truncated && glue == 0:
				cut++
			case !r.Truncated && glue == len(addrs):
				whole++
			default:
				t.Errorf("Expected all or nothing for %s in %d bytes, got %d addresses, TC %t", qname, size, glue, r.Truncated)
			}
		}
		if whole == 0 || cut == 0 {
			t.Errorf("Expected sizes that fit and sizes that do not for %s, got %d and %d", qname, whole, cut)
		}
	}
}
