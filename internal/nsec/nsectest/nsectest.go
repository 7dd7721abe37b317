// Package nsectest makes DNSSEC keys for tests.
package nsectest

import (
	"crypto/ecdsa"
	"os"
	"path/filepath"
	"testing"

	"github.com/coredns/coredns/plugin/dnssec"

	"github.com/miekg/dns"
)

// KeyFiles writes a new key of a zone with these flags, 256 or 257 (RFC 4034,
// section 2.1.1). It returns the path of its files, without their endings .key
// and .private, and its DS record.
func KeyFiles(t testing.TB, zone string, flags uint16) (path string, ds *dns.DS) {
	t.Helper()
	k := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: flags, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "K"+zone)
	for name, text := range map[string]string{".key": k.String(), ".private": k.PrivateKeyString(private.(*ecdsa.PrivateKey))} {
		if err := os.WriteFile(path+name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path, k.ToDS(dns.SHA256)
}

// Key returns a new key of a zone with these flags.
func Key(t testing.TB, zone string, flags uint16) *dnssec.DNSKEY {
	t.Helper()
	path, _ := KeyFiles(t, zone, flags)
	k, err := dnssec.ParseKeyFile(path+".key", path+".private")
	if err != nil {
		t.Fatal(err)
	}
	return k
}
