package dnsb

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// TestAllErrorsOfBlock checks that each fault of a block and of its map files is told at
// once, with file and line, and nothing that follows from another one.
func TestAllErrorsOfBlock(t *testing.T) {
	dir := t.TempDir()
	first, second, none := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "none")
	writeMap(t, first, "10.0.0.0/8 par1\n10.1.0.0/16 pra1\ncountry FR pra1\noops\n")
	writeMap(t, second, "10.0.0.0/8 lon1 pra2\nasn AS0 par1\n")
	c := controller(`dnsb {
		ns b1 oops
		accept k3 par1 any for svc survey
		accept k1 nyc1 oops
		accept k1 nyc_1 any
		accept k1 sin1 any for svc b9.b1.gslb.example.org
		node lon1 oops
		node tok1 192.0.2.4 deputy pra3
		node sin1 192.0.2.5
		survey budget oops
		cut svc par1 pra4
		prefix 192.0.2.0/24 par1 pra5
		prefix 198.51.100.0/24 nyc1 pra5
		default lon1 pra6
		map ` + first + `
		map ` + none + `
		map ` + second + `
		country DE par1
		ttl 1
	}`)
	dnsserver.GetConfig(c).TsigSecret["k2."] = "not-base64!"
	dnsserver.GetConfig(c).TsigSecret["K2."] = "not-base64!" // another spelling of the same key
	_, err := parse(c)
	if err == nil {
		t.Fatal("Expected errors")
	}
	want := []string{
		"Testfile:2 - Error during parsing: invalid address 'oops'",
		"Testfile:3 - Error during parsing: unknown key 'k3'",
		"Testfile:4 - Error during parsing: invalid prefix 'oops'",
		"Testfile:5 - Error during parsing: invalid node name 'nyc_1'",
		"Testfile:7 - Error during parsing: invalid address 'oops'",
		"Testfile:10 - Error during parsing: invalid number 'oops' for 'budget'",
		"Testfile:19 - Error during parsing: invalid duration '1' for 'ttl'",
		"Testfile:6 - Error during parsing: node 'sin1' has a 'node' line, too",
		"Testfile:8 - Error during parsing: unknown node 'pra3': declare it with 'node' or 'accept' in the Corefile",
		"Testfile:11 - Error during parsing: unknown node 'pra4'",
		"Testfile:12 - Error during parsing: unknown node 'pra5'",
		"Testfile:13 - Error during parsing: unknown node 'pra5'",
		"Testfile:14 - Error during parsing: unknown node 'pra6'",
		"Testfile:18 - Error during parsing: 'country' needs a database: add 'mmdb FILE'",
		"Testfile:1 - Error during parsing: the secret of key 'k2.', in the tsig of this server block, is not base64: make one with",
		"Testfile:16 - Error during parsing: invalid file for 'map': ",
		first + ":2 - unknown node 'pra1'",
		first + ":3 - 'country' needs a database: add 'mmdb FILE' to the Corefile",
		first + ":4 - invalid prefix 'oops'",
		second + ":1 - unknown node 'pra2'",
		second + ":2 - expected 'asn AS64500 NODE...'",
	}
	if got := corefile.Messages(err); !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("Expected the errors\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}
