package registry

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

// stored returns registrations by the name of the file with their stored form.
func stored() map[string]*registration.Registration {
	full := registrationtest.Node("par1", "192.0.2.53", "198.51.100.0/24", "!198.51.100.128/25", "2001:db8:1::/48")
	full.Addresses = append(full.Addresses, netip.MustParseAddr("2001:db8::53"))
	full.Location, full.Deputies = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m", []string{"nyc1", "lon1"}
	full.DS = []registration.DS{{Cut: "svc." + testZone, KeyTag: 12345, Algorithm: 13, DigestType: 2, Digest: "c0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0de"}}
	subnets := registrationtest.Node("lon1", "192.0.2.55")
	subnets.ClientSubnets = true
	return map[string]*registration.Registration{"full": full, "small": registrationtest.Node("nyc1", "192.0.2.54"), "client_subnets": subnets}
}

// TestStoredForm compares with files written by an earlier version: what is
// stored must stay readable.
func TestStoredForm(t *testing.T) {
	for name, reg := range stored() {
		golden, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(string(bytes.Join(bytes.Fields(golden), nil)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Encode(reg); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: Expected\n%s, got\n%s, %v", name, hex.Dump(want), hex.Dump(got), err)
		}
		if got, err := Decode(want); err != nil || !SameContent(got, reg) || got.Node != reg.Node || got.Zone != reg.Zone {
			t.Errorf("%s: Expected %+v, got %+v, %v", name, reg, got, err)
		}
	}
}

func TestStoredFormOfParts(t *testing.T) {
	reg := registrationtest.Node("par1", "192.0.2.53")
	for i := range 12_000 {
		reg.Prefixes = append(reg.Prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	all, err := Encode(reg)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(all); err != nil || !SameContent(got, reg) {
		t.Errorf("Expected the registration of 12000 prefixes, got %v", err)
	}
	second := 2 + int(all[0])<<8 + int(all[1])
	for name, b := range map[string][]byte{
		"nothing": nil, "half a length": all[:1], "half a message": all[:second/2], "first part": all[:second], "second part": all[second:],
		"parts in the wrong order": append(bytes.Clone(all[second:]), all[:second]...), "a part too many": append(bytes.Clone(all), all[:second]...),
	} {
		if got, err := Decode(b); err == nil {
			t.Errorf("%s: Expected an error, got node %s", name, got.Node)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		reg, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(reg)
		if err != nil {
			return // several messages that no one sent as one registration may not fit
		}
		if got, err := Decode(again); err != nil || !SameContent(got, reg) {
			t.Errorf("Expected %+v, got %+v, %v", reg, got, err)
		}
	})
}

func ExampleParseLocation() {
	_, err := ParseLocation(nil, []string{"etcd", "http://192.0.2.7:2379"})
	fmt.Println(err)
	// Output:
	// store 'etcd' is not compiled in: add the line 'dnsb_etcdstore:github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore' to plugin.cfg, or import that package in main
}
