package dnslb

import (
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// TestAllErrorsOfBlock checks that each fault of a block and of its files is told at once,
// with file and line, and nothing that follows from another one.
func TestAllErrorsOfBlock(t *testing.T) {
	dir := t.TempDir()
	write := writerIn(t, dir)
	near := write("near", "198.51.100.0/24 oops\n10.0.0.0/8\n\n10.0.0.0/8 # again\n")
	services := write("services", "server fra oops\nserver iad 192.0.2.2 weight oops\nserver nrt 192.0.2.3 beside par1\n"+
		"service www.svc.gslb.example.org fra iad nrt\nservice ftp.svc.gslb.example.org fra xxx\nservice www.example.org fra\nservice imap.svc.gslb.example.org yyy\n")
	key := write("key", "oops")
	for _, tc := range []struct {
		name, text, secret string
		want               []string
	}{
		{"all lines", head + `dnslb {
			services ` + services + `
			ttl 5
			node par1 oops
			near 192.0.2.0/24 oops
			near ` + near + `
			near 10.0.0.0/8
			location 91 0
			register oops:x
			deputy par1
			key ` + key + `
			view-key v
			lease 1
			observe
			service own.svc.gslb.example.org
			service own2.svc.gslb.example.org zzz
		}
		}`, "not-base64!", []string{
			"Corefile:5 - Error during parsing: the secret of key 'v.', in the tsig of this server block, is not base64: make one with",
			"Corefile:7 - Error during parsing: expected 'ttl LOW HIGH'",
			"Corefile:8 - Error during parsing: invalid address 'oops'",
			"Corefile:9 - Error during parsing: invalid prefix 'oops'",
			"Corefile:10 - Error during parsing: 'near " + near + "': " + near + ":1 - invalid prefix 'oops'",
			"Corefile:10 - Error during parsing: 'near " + near + "': " + near + ":4 - prefix 10.0.0.0/8 is given twice, name it once",
			"Corefile:11 - Error during parsing: prefix 10.0.0.0/8 is given twice",
			"Corefile:12 - Error during parsing: location: ",
			"Corefile:13 - Error during parsing: ",
			"Corefile:15 - Error during parsing: 'key " + key + "': expected",
			"Corefile:17 - Error during parsing: invalid duration '1' for 'lease'",
			services + ":1 - Error during parsing: invalid address 'oops'",
			services + ":2 - Error during parsing: invalid number 'oops' for 'weight'",
			services + ":6 - Error during parsing: service 'www.example.org' is outside",
			"Corefile:20 - Error during parsing: service 'own2.svc.gslb.example.org': there is no line 'server zzz ADDRESS...'",
			services + ":5 - Error during parsing: service 'ftp.svc.gslb.example.org': there is no line 'server xxx ADDRESS...'",
			services + ":7 - Error during parsing: service 'imap.svc.gslb.example.org': there is no line 'server yyy ADDRESS...'",
			"Corefile:18 - Error during parsing: 'observe' leaves the answers to the next plugin",
			"Corefile:14 - Error during parsing: node 'par1' cannot be its own deputy",
		}},
		{"a misspelled property that others need", head + `dnslb {
			server fra 192.0.2.1
			service www.svc.gslb.example.org fra
			node par1 192.0.2.53
			regster 192.0.2.1
			key k c2VjcmV0c2VjcmV0c2VjcmV0
			deputy nyc1
			lease 1m
		}
		}`, "c2VjcmV0c2VjcmV0c2VjcmV0", []string{"Corefile:9 - Error during parsing: unknown property 'regster'"}},
		{"no latencyprobe", `svc.gslb.example.org {
		dnslb {
			server fra 192.0.2.1
			service www.svc.gslb.example.org fra
			service ftp.svc.gslb.example.org fra probe mail
			ttl 5
		}
		}`, "c2VjcmV0c2VjcmV0c2VjcmV0", []string{
			"Corefile:2 - Error during parsing: dnslb needs measurements: add a line 'latencyprobe'",
			"Corefile:6 - Error during parsing: expected 'ttl LOW HIGH'",
		}},
	} {
		c := block(t, tc.text)
		dnsserver.GetConfig(c).TsigSecret = map[string]string{"v.": tc.secret}
		_, err := parse(c)
		if err == nil {
			t.Errorf("%s: Expected errors", tc.name)
			continue
		}
		if got := corefile.Messages(err); !slices.EqualFunc(got, tc.want, strings.HasPrefix) {
			t.Errorf("%s: Expected the errors\n%s\ngot\n%s", tc.name, strings.Join(tc.want, "\n"), strings.Join(got, "\n"))
		}
	}
}
