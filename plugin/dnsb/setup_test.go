package dnsb

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	_ "github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/boltstore"
	_ "github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/etcdstore"
)

const testZone = "gslb.example.org."

// controller returns the controller of a block for the zone with the keys k1
// and k2.
func controller(input string) *caddy.Controller {
	c := caddy.NewTestController("dns", input)
	c.ServerBlockKeys = []string{"gslb.example.org:53"}
	dnsserver.GetConfig(c).TsigSecret = map[string]string{"k1.": "c2VjcmV0", "k2.": "c2VjcmV0"}
	return c
}

func TestParse(t *testing.T) {
	tests := []struct {
		name  string
		lines string
		want  string // part of the error
	}{
		{"required lines only", "ns b1 192.0.2.1", ""},
		{"all properties", `
			ns b1 192.0.2.1 2001:db8::1
			ns b2.gslb.example.org. 192.0.2.2
			accept k1 par1 198.51.100.0/24 2001:db8:1::/48 for svc.gslb.example.org other
			accept K2. par1 any
			node nyc1 192.0.2.54
			cut svc nyc1 par1
			prefix 203.0.113.0/24 nyc1 par1
			default nyc1
			lease 1m 1h
			ttl 60s`, ""},

		{"no ns", "ttl 60s", "no name server: add 'ns NAME ADDRESS...'"},
		{"explain", "ns b1 192.0.2.1\nexplain", "expected 'explain PREFIX...'"},
		{"explain address", "ns b1 192.0.2.1\nexplain 192.0.2.1", "did you mean 192.0.2.1/32?"},
		{"update-from", "ns b1 192.0.2.1\nupdate-from", "expected 'update-from PREFIX...', for example 'update-from 192.0.2.0/24'"},
		{"update-from address", "ns b1 192.0.2.1\nupdate-from 192.0.2.1", "did you mean 192.0.2.1/32?"},
		{"unknown", "nameserver b1 192.0.2.1", "unknown property 'nameserver', expected one of: ns, accept"},
		{"ns outside of the zone", "ns b1.example.net 192.0.2.1", "invalid name 'b1.example.net': not below the zone gslb.example.org."},
		{"ns that is not ASCII", "ns bücher.gslb.example.org 192.0.2.1", "invalid name 'bücher.gslb.example.org': names in the DNS are ASCII, write 'xn--bcher-kva.gslb.example.org'"},
		{"ns too long", "ns " + strings.Repeat("a.", 110) + strings.Repeat("b", 20) + ".gslb.example.org 192.0.2.1", "expected a domain name"},
		{"ns at the zone", "ns gslb.example.org 192.0.2.1", "not below the zone"},
		{"ns without address", "ns b1", "expected 'ns NAME ADDRESS...'"},
		{"ns address", "ns b1 b2", "invalid address 'b2': expected the IP address of a host"},
		{"ns twice", "ns b1 192.0.2.1\nns b1 192.0.2.2", "twice"},
		{"ns among nodes", "ns b1.lb.gslb.example.org 192.0.2.1", "those of the nodes"},
		{"unspecified", "ns b1 0.0.0.0", "invalid address '0.0.0.0'"},
		{"mapped", "ns b1 ::ffff:192.0.2.1", "invalid address '::ffff:192.0.2.1'"},

		{"accept", "ns b1 192.0.2.1\naccept k1 par1", "expected 'accept KEY NODE"},
		{"accept without cuts behind for", "ns b1 192.0.2.1\naccept k1 par1 any for", "expected 'accept KEY NODE"},
		{"accept node", "ns b1 192.0.2.1\naccept k1 par_1 any", "invalid node name 'par_1': expected one label of letters, digits and hyphens, such as par1"},
		{"accept address", "ns b1 192.0.2.1\naccept k1 par1 192.0.2.1", "did you mean 192.0.2.1/32?"},
		{"accept host bits", "ns b1 192.0.2.1\naccept k1 par1 192.0.2.1/24", "did you mean 192.0.2.0/24?"},
		{"accept word", "ns b1 192.0.2.1\naccept k1 par1 all", "invalid prefix 'all': expected an address prefix"},
		{"accept mapped", "ns b1 192.0.2.1\naccept k1 par1 ::ffff:192.0.2.0/120", "expected IPv4 prefixes in the form 192.0.2.0/24"},
		{"accept cut outside of the zone", "ns b1 192.0.2.1\naccept k1 par1 any for svc.example.net", "not below the zone"},
		{"accept reserved", "ns b1 192.0.2.1\naccept k1 par1 any for lb", "those of the nodes"},
		{"accept server", "ns b1 192.0.2.1\naccept k1 par1 any for svc b1", "b1.gslb.example.org. is the name of a server of the zone: remove it from 'for'"},
		{"accept below a server", "accept k1 par1 any for x.b1.gslb.example.org\nns b1 192.0.2.1", "Testfile:2 - Error"},
		{"accept below a cut", "ns b1 192.0.2.1\nnode a 192.0.2.53\naccept k1 par1 any for x.svc.gslb.example.org\ncut svc a", "it is below or above the cut svc.gslb.example.org.: remove it"},
		{"accept a cut", "ns b1 192.0.2.1\nnode a 192.0.2.53\naccept k1 par1 any for svc\ncut svc a", ""},
		{"accept wildcard", "ns b1 192.0.2.1\naccept k1 par1 any for *.gslb.example.org", "invalid name '*.gslb.example.org': expected a host name"},
		{"accept key", "ns b1 192.0.2.1\naccept k3 par1 any", "unknown key 'k3': add 'secret k3. SECRET' to tsig"},
		{"survey", "ns b1 192.0.2.1\naccept k1 par1 any for svc ds survey\naccept k2 nyc1 any survey ds\nsurvey budget 20 avoid 192.0.2.0/24 2001:db8::/32", ""},
		{"survey without options", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey", ""},
		{"survey without a node", "ns b1 192.0.2.1\naccept k1 par1 any\nsurvey", "Testfile:4 - Error during parsing: 'survey' needs a node that measures: add 'survey' at the end of an 'accept' line"},
		{"accept for no survey", "ns b1 192.0.2.1\naccept k1 par1 any survey", "Testfile:3 - Error during parsing: 'survey' in an 'accept' line needs the survey: add a line 'survey'"},
		{"survey twice", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey\nsurvey", "'survey' is given twice, keep one line"},
		{"accept survey twice", "ns b1 192.0.2.1\naccept k1 par1 any survey survey\nsurvey", "invalid prefix 'survey'"},
		{"survey budget", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey budget 0", "invalid number '0' for 'budget': expected 1 to 10000"},
		{"survey word", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey often", "expected 'survey [budget PACKETS] [avoid PREFIX...]', for example 'survey budget 20 avoid 192.0.2.0/24'"},
		{"survey by DNS, of a node", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey dns 1053", "expected 'survey [budget PACKETS] [avoid PREFIX...]'"},
		{"survey avoid nothing", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey avoid", "expected 'survey [budget PACKETS] [avoid PREFIX...]'"},
		{"survey avoid address", "ns b1 192.0.2.1\naccept k1 par1 any survey\nsurvey avoid 192.0.2.1", "did you mean 192.0.2.1/32?"},
		{"survey as a cut", "ns b1 192.0.2.1\naccept k1 par1 any for _survey survey\nsurvey", "the label _survey is that of the survey"},
		{"accept static", "ns b1 192.0.2.1\nnode par1 192.0.2.53\naccept k1 par1 any", "either registers or is static"},

		{"node that is not ASCII", "ns b1 192.0.2.1\nnode zürich 192.0.2.53", "write 'xn--zrich-kva'"},
		{"cut that is not ASCII", "ns b1 192.0.2.1\nnode par1 192.0.2.53\ncut bücher par1", "invalid name 'bücher': names in the DNS are ASCII, write 'xn--bcher-kva'"},
		{"cut with an escaped dot", "ns b1 192.0.2.1\nnode par1 192.0.2.53\ncut a\\.b par1", ""},
		{"accept key that is not ASCII", "ns b1 192.0.2.1\naccept bücher par1 any", "write 'xn--bcher-kva'"},
		{"node", "ns b1 192.0.2.1\nnode par1", "expected 'node NAME ADDRESS... [location LAT LON] [deputy NODE...] [client-subnets]'"},
		{"node with location", "ns b1 192.0.2.1\nnode par1 192.0.2.53 location 48.86 2.35", ""},
		{"node with half a location", "ns b1 192.0.2.1\nnode par1 192.0.2.53 location 48.86", "expected 'node NAME ADDRESS... [location LAT LON] [deputy NODE...] [client-subnets]'"},
		{"node with a location after deputies", "ns b1 192.0.2.1\nnode a 192.0.2.53\nnode b 192.0.2.54 deputy a location 1 2", "expected 'node NAME ADDRESS... [location LAT LON] [deputy NODE...] [client-subnets]'"},
		{"node with no deputy", "ns b1 192.0.2.1\nnode a 192.0.2.53 deputy client-subnets", "expected 'node NAME ADDRESS... [location LAT LON] [deputy NODE...] [client-subnets]'"},
		{"node with a word after client-subnets", "ns b1 192.0.2.1\nnode st2 192.0.2.53 client-subnets foo", "unknown option 'foo': expected nothing after 'client-subnets'"},
		{"node with all options", "ns b1 192.0.2.1\nnode a 192.0.2.53 client-subnets\nnode b 192.0.2.54 2001:db8::1 location 1 2 deputy a client-subnets", ""},
		{"node with the name of an option", "ns b1 192.0.2.1\nnode deputy 192.0.2.53 deputy fra1\nnode fra1 192.0.2.54", ""},
		{"node with an invalid location", "ns b1 192.0.2.1\nnode par1 192.0.2.53 location 91 0", "location: invalid latitude '91': expected -90 to 90 degrees"},
		{"asn", "ns b1 192.0.2.1\nnode a 192.0.2.53\nasn 64500 a", "expected 'asn AS64500 NODE...'"},
		{"asn without a database", "ns b1 192.0.2.1\nnode a 192.0.2.53\nasn AS64500 a", "'asn' needs a database: add 'mmdb FILE'"},
		{"asn twice", "ns b1 192.0.2.1\nnode a 192.0.2.53\nasn AS64500 a\nasn AS64500 a", "asn AS64500 is given twice"},
		{"country", "ns b1 192.0.2.1\nnode a 192.0.2.53\ncountry fr a", "expected 'country FR NODE...'"},
		{"country  of an unknown node", "ns b1 192.0.2.1\ncountry FR a", "unknown node 'a'"},
		{"country without a database", "ns b1 192.0.2.1\nnode a 192.0.2.53\ncountry FR a", "'country' needs a database: add 'mmdb FILE'"},
		{"continent", "ns b1 192.0.2.1\ncontinent EU", "expected 'continent EU NODE...'"},
		{"export", "ns b1 192.0.2.1\nexport", "expected 'export FILE'"},
		{"export twice", "ns b1 192.0.2.1\nexport a\nexport b", "'export' is given twice"},
		{"lease twice", "ns b1 192.0.2.1\nlease 5m 2h\nlease 5m 2h", "'lease' is given twice, keep one line"},
		{"ttl twice", "ns b1 192.0.2.1\nttl 60s\nttl 30s", "'ttl' is given twice"},
		{"admin twice", "ns b1 192.0.2.1\nadmin a\nadmin b", "'admin' is given twice"},
		{"export into a missing directory", "ns b1 192.0.2.1\nexport /nonexistent/map", "no directory '/nonexistent'"},
		{"export over the map", "ns b1 192.0.2.1\nmap setup.go\nexport setup.go", "the map is read from this file"},
		{"barred", "ns b1 192.0.2.1\nnode a 192.0.2.53\nnode b 192.0.2.54\nprefix 192.0.2.0/24 a !b", ""},
		{"barred and not", "ns b1 192.0.2.1\nnode a 192.0.2.53\nprefix 192.0.2.0/24 a !a", "node 'a' is given twice"},
		{"default barred", "ns b1 192.0.2.1\nnode a 192.0.2.53\ndefault !a", "invalid node name '!a'"},
		{"mmdb", "ns b1 192.0.2.1\nmmdb", "expected 'mmdb FILE'"},
		{"missing mmdb", "ns b1 192.0.2.1\nmmdb /nonexistent", "invalid file for 'mmdb': stat /nonexistent: no such file"},
		{"node twice", "ns b1 192.0.2.1\nnode par1 192.0.2.53\nnode par1 192.0.2.54", "node 'par1' is given twice"},
		{"node address twice", "ns b1 192.0.2.1\nnode par1 192.0.2.53 192.0.2.53", "address 192.0.2.53 is given twice"},
		{"cut", "ns b1 192.0.2.1\ncut svc", "expected 'cut NAME NODE...'"},
		{"cut  of an unknown node", "ns b1 192.0.2.1\ncut svc par1", "unknown node 'par1': declare it with 'node' or 'accept'"},
		{"cut twice", "ns b1 192.0.2.1\nnode a 192.0.2.53\ncut svc a\ncut svc.gslb.example.org a", "twice"},
		{"cut nested", "ns b1 192.0.2.1\nnode a 192.0.2.53\ncut svc a\ncut b.svc.gslb.example.org a", "one is below the other"},
		{"cut with server", "ns b1 192.0.2.1\nnode a 192.0.2.53\ncut b1 a", "holds the name of the server"},
		{"cut above server", "ns b1.x.gslb.example.org 192.0.2.1\nnode a 192.0.2.53\ncut x a", "holds the name of the server"},
		{"prefix", "ns b1 192.0.2.1\nprefix 192.0.2.0/24", "expected 'prefix PREFIX NODE...'"},
		{"prefix  of an unknown node", "ns b1 192.0.2.1\nprefix 192.0.2.0/24 par1", "unknown node 'par1'"},
		{"prefix twice", "ns b1 192.0.2.1\nnode a 192.0.2.53\nprefix 192.0.2.0/24 a\nprefix 192.0.2.0/24 a", "on line 4"},
		{"default", "ns b1 192.0.2.1\ndefault", "expected 'default NODE...'"},
		{"default  of an unknown node", "ns b1 192.0.2.1\ndefault par1", "unknown node 'par1'"},
		{"store", "ns b1 192.0.2.1\nstore etcd", "expected 'store db FILE | etcd URL..."},
		{"store etcd", "ns b1 192.0.2.1\nstore etcd http://192.0.2.7:2379 http://[2001:db8::7]:2379 user dnsb secret", ""},
		{"store etcd secure", "ns b1 192.0.2.1\nstore etcd https://192.0.2.7:2379", ""},
		{"store etcd address", "ns b1 192.0.2.1\nstore etcd 192.0.2.7:2379", "invalid URL '192.0.2.7:2379': expected the URL of an etcd server"},
		{"store etcd port", "ns b1 192.0.2.1\nstore etcd http://192.0.2.7", "invalid URL 'http://192.0.2.7'"},
		{"store etcd user", "ns b1 192.0.2.1\nstore etcd http://192.0.2.7:2379 user dnsb", "expected 'store db FILE | etcd"},
		{"store etcd tls", "ns b1 192.0.2.1\nstore etcd https://192.0.2.7:2379 tls a b user dnsb secret", "expected 'store db FILE | etcd"},
		{"store etcd no url", "ns b1 192.0.2.1\nstore etcd user dnsb secret", "expected 'store db FILE | etcd"},
		{"store etcd files", "ns b1 192.0.2.1\nstore etcd https://192.0.2.7:2379 tls /no/such/ca.pem", "no such file"},
		{"store etcd mixed", "ns b1 192.0.2.1\nstore etcd https://192.0.2.7:2379 http://192.0.2.7:2379", "only some of the URLs"},
		{"store etcd not secure", "ns b1 192.0.2.1\nstore etcd http://192.0.2.7:2379 tls ca.pem", "begin with https://"},
		{"store of an unknown kind", "ns b1 192.0.2.1\nstore redis", "unknown store 'redis', expected one of: db, etcd"},
		{"store of no kind", "ns b1 192.0.2.1\nstore", "expected 'store db FILE | etcd URL..."},
		{"store db", "ns b1 192.0.2.1\nstore db", "expected 'store db FILE | etcd"},
		{"store without directory", "ns b1 192.0.2.1\nstore db /no/such/map.db", "no directory '/no/such'"},
		{"store twice", "ns b1 192.0.2.1\nstore db a\nstore db b", "twice"},
		{"map", "ns b1 192.0.2.1\nmap", "expected 'map FILE'"},
		{"lease", "ns b1 192.0.2.1\nlease 1h", "expected 'lease MIN MAX'"},
		{"lease order", "ns b1 192.0.2.1\nlease 2h 1h", "the lower bound comes first"},
		{"lease word", "ns b1 192.0.2.1\nlease short long", "invalid duration 'short' for 'lease'"},
		{"ttl", "ns b1 192.0.2.1\nttl 1s", "invalid duration '1s' for 'ttl': expected 5s to 24h"},
	}
	for _, tc := range tests {
		_, err := parse(controller("dnsb {\n" + tc.lines + "\n}"))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: Expected no error, got: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: Expected an error with %q, got: %v", tc.name, tc.want, err)
		case tc.want != "" && !strings.Contains(err.Error(), "Testfile:"):
			t.Errorf("%s: Expected file and line, got: %v", tc.name, err)
		}
	}
}

func TestParseValues(t *testing.T) {
	d, err := parse(controller("dnsb {\nns b1 192.0.2.1\nnode a 192.0.2.53\ncut svc a\nlease 1m 1h\nttl 1m\n}"))
	if err != nil {
		t.Fatal(err)
	}
	conf := d.conf
	if conf.zone != testZone || conf.leaseMin != time.Minute || conf.leaseMax != time.Hour || conf.ttl != 60 {
		t.Errorf("Expected the values of the block, got %+v", conf)
	}
	if cuts := conf.statics["a"].Cuts; len(cuts) != 1 || cuts[0] != "svc."+testZone {
		t.Errorf("Expected a to serve svc, got %v", cuts)
	}
	for asked, want := range map[time.Duration]time.Duration{
		0: 30 * time.Minute, time.Second: time.Minute, 2 * time.Hour: time.Hour, 7 * time.Minute: 7 * time.Minute,
	} {
		if got := conf.grant(asked); got != want {
			t.Errorf("Expected a lease of %s for %s, got %s", want, asked, got)
		}
	}
}

func TestSetup(t *testing.T) {
	tests := []struct {
		name   string
		keys   []string
		noTSIG bool
		input  string
		want   string
	}{
		{"well", []string{"gslb.example.org:53"}, false, "dnsb {\nns b1 192.0.2.1\n}", ""},
		{"two transports", []string{"gslb.example.org:53", "tls://gslb.example.org"}, false, "dnsb {\nns b1 192.0.2.1\n}", ""},
		{"two zones", []string{"a.example.org:53", "b.example.org:53"}, false, "dnsb {\nns b1 192.0.2.1\n}", "exactly one"},
		{"root", []string{".:53"}, false, "dnsb {\nns b1 192.0.2.1\n}", "below the root"},
		{"argument", []string{"gslb.example.org:53"}, false, "dnsb example.org", "has no arguments"},
		{"twice", []string{"gslb.example.org:53"}, false, "dnsb {\nns b1 192.0.2.1\n}\ndnsb {\nns b1 192.0.2.1\n}", "once"},
		{"no tsig", []string{"gslb.example.org:53"}, true, "dnsb {\nns b1 192.0.2.1\naccept k1 par1 any\n}", "'accept' needs tsig"},
	}
	for _, tc := range tests {
		c := controller(tc.input)
		c.ServerBlockKeys = tc.keys
		if tc.noTSIG {
			dnsserver.GetConfig(c).TsigSecret = nil
		}
		err := setup(c)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: Expected no error, got: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: Expected an error with %q, got: %v", tc.name, tc.want, err)
		}
	}
}

// TestNodeNamesHaveNoCase checks that all lines of the Corefile, of map files and of
// the admin file may write names of nodes in any case.
func TestNodeNamesHaveNoCase(t *testing.T) {
	dir := t.TempDir()
	mapFile, admin := filepath.Join(dir, "map"), filepath.Join(dir, "admin")
	lines := "node %[1]s 192.0.2.1 deputy %[2]s\nnode %[3]s 192.0.2.3\naccept k1 %[2]s any\ncut svc %[1]s %[3]s\nprefix 10.1.0.0/16 %[2]s !%[1]s\n" +
		"asn AS64500 %[3]s\ndefault %[1]s %[2]s\nmap " + mapFile + "\nadmin " + admin
	var got [2]string
	for i, names := range [][]any{{"par1", "nyc1", "sin-1"}, {"PAR1", "Nyc1", "sIN-1"}} {
		writeMap(t, mapFile, fmt.Sprintf("10.2.0.0/16 %[2]s !%[3]s\n10.3.0.0/16 AS64500\nasn AS64501 %[1]s\n10.4.0.0/16 AS64501\n", names...))
		writeMap(t, admin, fmt.Sprintf("drain %[2]s until 2100-01-31T18:00:00Z reason test\npin 10.5.0.0/16 %[1]s %[3]s until 2100-01-31T18:00:00Z reason test\n", names...))
		d := started(t, fmt.Sprintf(lines, names...), nil)
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "10.6.0.0/16"))
		s := d.snapshot.Load()
		got[i] = exported(t, s) + fmt.Sprint(slices.Sorted(maps.Keys(s.overrides.drained)), d.conf.defaults, d.conf.cuts, d.conf.statics["par1"].Deputies)
	}
	if got[0] != got[1] || !strings.Contains(got[0], "10.5.0.0/16 par1 sin-1") || !strings.Contains(got[0], "[nyc1]") {
		t.Errorf("Expected the same of names in lower case and in mixed case, got %s\nand %s", got[0], got[1])
	}
	for _, text := range []string{"node par1 192.0.2.1\nnode Par1 192.0.2.2", "node par1 192.0.2.1\ndefault par1 PAR1"} {
		if _, err := parse(controller("dnsb {\nns b1 192.0.2.1\n" + text + "\n}")); err == nil || !strings.Contains(err.Error(), "'par1' is given twice") {
			t.Errorf("Expected a name in two cases to be given twice in %q, got %v", text, err)
		}
	}
}
