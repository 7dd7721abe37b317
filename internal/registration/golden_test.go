package registration

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// TestWireFormMatchesGoldenFiles holds the wire form still: nsupdate and other
// versions of this program speak it. A file has each message as text and in
// bytes.
func TestWireFormMatchesGoldenFiles(t *testing.T) {
	bare := &Registration{Zone: zone, Node: "par1", Addresses: full().Addresses[:1]}
	part0, part1 := full(), &Registration{Zone: zone, Node: "par1", Serial: full().Serial, Lease: full().Lease, Part: 1, Parts: 2}
	part0.Parts, part0.Prefixes, part1.Prefixes = 2, full().Prefixes[:2], full().Prefixes[2:]
	message := func(r *Registration) *dns.Msg {
		m, err := r.Message()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, tc := range []struct {
		file     string
		messages []*dns.Msg
	}{
		{"full", []*dns.Msg{message(full())}},
		{"client_subnets", []*dns.Msg{message(withClientSubnets())}},
		{"beside", []*dns.Msg{message(withBeside())}},
		{"bare", []*dns.Msg{message(bare)}},
		{"parts", []*dns.Msg{message(part0), message(part1)}},
		{"withdrawal", []*dns.Msg{full().Withdrawal()}},
		{"withdrawal_without_serial", []*dns.Msg{bare.Withdrawal()}},
	} {
		t.Run(tc.file, func(t *testing.T) {
			var got bytes.Buffer
			for _, m := range tc.messages {
				m.Id = 0
				packed, err := m.Pack()
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&got, "%v\n%s\n", m, hex.Dump(packed))
			}
			path := filepath.Join("testdata", tc.file+".golden")
			if *updateGolden {
				if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("Expected the messages in %s, got:\n%s", path, got.Bytes())
			}
		})
	}
}
