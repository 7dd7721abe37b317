package dnslb

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/loadbalance"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
)

func init() {
	if err := dnsserver.Register(); err != nil {
		panic(err)
	}
	dnsserver.Directives = []string{"root", "loadbalance", "tsig", "latencyprobe", "dnslb", "file", "pagetest"}
}

// block sets up all plugins of a server block but dnslb, as CoreDNS does, and
// returns the controller with which dnslb would be set up.
func block(t *testing.T, corefile string) *caddy.Controller {
	t.Helper()
	root := caddy.NewTestController("dns", "")
	blocks, err := caddyfile.Parse("Corefile", strings.NewReader(corefile), dnsserver.Directives)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err = root.Context().InspectServerBlocks("Corefile", blocks)
	if err != nil {
		t.Fatal(err)
	}
	for _, directive := range dnsserver.Directives {
		tokens, used := blocks[0].Tokens[directive]
		if !used {
			continue
		}
		c := *root
		c.Dispenser = caddyfile.NewDispenserTokens("Corefile", tokens)
		c.ServerBlockKeys = blocks[0].Keys
		if directive == pluginName {
			return &c
		}
		action, err := caddy.DirectiveAction("dns", directive)
		if err != nil {
			t.Fatal(err)
		}
		if err := action(&c); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("No dnslb in the Corefile")
	return nil
}

const head = "svc.gslb.example.org {\nlatencyprobe {\nrtt tcp 443\n}\n"

// writerIn returns a function that writes a file in dir and returns its path.
func writerIn(t *testing.T, dir string) func(name, text string) string {
	t.Helper()
	return func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	write := writerIn(t, dir)
	prefixes := write("near", "# resolvers\n198.51.100.0/24 !198.51.100.128/25\n\n2001:db8::/32 # and IPv6\n")
	markedNear, markedKey := write("marked-near", "\ufeff198.51.100.0/24\r\n"), write("marked-key", "\ufeffkey k {\r\nsecret c2VjcmV0c2VjcmV0c2VjcmV0;\r\n};\r\n")
	markedServices := write("marked-services", "\ufeffserver fra 192.0.2.1\r\nservice www.svc.gslb.example.org fra\r\n")
	markedAdmin := write("marked-admin", "\ufeffdrain fra until 2100-01-31T18:00:00Z reason x\r\n")
	wrong := write("wrong", "198.51.100.0/24\n198.51.100.1/24\n")
	key := write("key", "key \"par1.key.\" {\n\talgorithm hmac-sha512;\n\tsecret \"c2VjcmV0c2VjcmV0c2VjcmV0\";\n};\n")
	const services = "server fra 192.0.2.1 2001:db8::1\nserver iad 192.0.2.2\nservice www.svc.gslb.example.org fra iad\n"
	const node = "node par1 203.0.113.53\nregister 203.0.113.1\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n"

	tests := []struct {
		name   string
		config string
		err    string // part of the error; it names file and line by itself
		check  func(config) bool
	}{
		{"short", services, "", func(c config) bool {
			return c.ttlLow == 20 && c.ttlHigh == 60 && c.Node == "" && c.inventory.services[0].answers == 1 && c.inventory.services[0].name == "www.svc.gslb.example.org."
		}},
		{"all", services + node + "near 198.51.100.0/24 !198.51.100.0/25\nlease 10m\nttl 5s 10s\n", "", func(c config) bool {
			return c.Node == "par1" && c.dnsbs[0] == "203.0.113.1:53" && c.near[1].Negated && c.lease == 10*time.Minute &&
				c.ttlLow == 5 && c.ttlHigh == 10 && c.key.Name == "k."
		}},
		{"port and IPv6", services + "node par1 2001:db8::53\nregister 203.0.113.1:5353 [2001:db8::1]:5353 2001:db8::2\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "", func(c config) bool {
			return slices.Equal(c.dnsbs, []dnsclient.Endpoint{"203.0.113.1:5353", "[2001:db8::1]:5353", "[2001:db8::2]:53"})
		}},
		{"files", services + "node par1 203.0.113.53\nregister 203.0.113.1\nkey " + key + "\nnear " + prefixes + "\n", "", func(c config) bool {
			return len(c.near) == 3 && c.near[1].Negated && c.key.Name == "par1.key." && c.key.Algorithm == "hmac-sha512."
		}},
		{"files with byte order mark", "services " + markedServices + "\nadmin " + markedAdmin + "\nnode par1 203.0.113.53\nregister 203.0.113.1\nkey " + markedKey + "\nnear " + markedNear + "\n", "", func(c config) bool {
			return len(c.near) == 1 && c.key.Name == "k." && len(c.file.Value().services) == 1 && len(c.admin.Value()) == 1
		}},
		{"the zone itself and a wildcard", "server fra 192.0.2.1\nservice svc.gslb.example.org fra\nservice *.svc.gslb.example.org fra answers 2\n", "", func(c config) bool {
			return len(c.inventory.services) == 2 && c.inventory.services[1].answers == 2
		}},

		{"options", "server fra 192.0.2.1 192.0.2.9 weight 3 bias 10ms tier 2 drain\nservice www.svc.gslb.example.org fra within 5ms answers 2\nall-down 192.0.2.99 2001:db8::99\nobserve\n", "", func(c config) bool {
			s, o := c.inventory.servers["fra"], c.inventory.services[0].options
			return len(s.addrs) == 2 && s.weight == 3 && s.bias == 10*time.Millisecond && s.tier == 2 && s.drain &&
				o == options{"", 2, 5 * time.Millisecond} && len(c.allDown.addrs) == 2 && c.observe
		}},
		{"refuse", services + "all-down refuse\n", "", func(c config) bool { return c.allDown.refuse }},
		{"open", services + "all-down open\n", "", func(c config) bool { return !c.allDown.refuse && c.allDown.addrs == nil }},

		{"beside a node", "server fra 192.0.2.1 beside PAR1 weight 2\nservice www.svc.gslb.example.org fra\nnode par1 203.0.113.53\nregister 203.0.113.1\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "", func(c config) bool {
			return c.inventory.servers["fra"].beside == "par1" && c.inventory.servers["fra"].weight == 2
		}},
		{"beside without register", "service www.svc.gslb.example.org fra\nserver iad 192.0.2.2\nserver fra 192.0.2.1 beside par1\n", "Corefile:8 - Error during parsing: 'beside' needs 'register': what nodes measure comes with the map of DNS-B, add 'register ADDRESS' to the dnslb block or remove 'beside'", nil},
		{"beside nothing", "server fra 192.0.2.1 beside\n", "Corefile:6 - Error during parsing: 'beside' needs a value", nil},
		{"beside no label", "server fra 192.0.2.1 beside par1.example.org\n", "invalid node name 'par1.example.org'", nil},
		{"beside two nodes", "server fra 192.0.2.1 beside par1 lon1\n", "unknown option 'lon1', expected one of: weight, bias, tier, drain, beside", nil},
		{"beside twice", "server fra 192.0.2.1 beside par1 beside lon1\n", "'beside' is given twice, name one node", nil},
		{"weight", "server fra 192.0.2.1 weight 0\n", "invalid number '0' for 'weight': expected 1 to 1000", nil},
		{"tier", "server fra 192.0.2.1 tier x\n", "invalid number 'x' for 'tier'", nil},
		{"bias", "server fra 192.0.2.1 bias 1m\n", "invalid duration '1m' for 'bias': expected 1ns to 10s", nil},
		{"bias without value", "server fra 192.0.2.1 bias\n", "needs a value", nil},
		{"address behind options", "server fra weight 2 192.0.2.1\n", "unknown option '192.0.2.1', expected one of: weight", nil},
		{"no address before options", "server fra drain\n", "has no address", nil},
		{"within", "server fra 192.0.2.1\nservice www.svc.gslb.example.org fra within 0s\n", "invalid duration '0s' for 'within'", nil},
		{"all-down", services + "all-down close\n", "invalid address 'close'", nil},
		{"all-down nothing", services + "all-down\n", "expected 'all-down open|refuse|ADDRESS...'", nil},
		{"observe with node", services + node + "observe\n", "remove 'observe' or 'node'", nil},
		{"an address twice", "server fra 192.0.2.1\nserver iad 192.0.2.1\nservice www.svc.gslb.example.org fra iad\n", "same address", nil},
		{"port 0", services + "node par1 203.0.113.53\nregister 203.0.113.1:0\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "invalid port 0 in '203.0.113.1:0'", nil},
		{"too many addresses", services + "node par1 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 192.0.2.9 192.0.2.10 192.0.2.11 192.0.2.12 192.0.2.13\nregister 203.0.113.1\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "DNS-B would refuse", nil},
		{"mapped prefix", services + node + "near ::ffff:10.0.0.0/104\n", "expected IPv4 prefixes in the form 192.0.2.0/24", nil},
		{"unknown property", "sever fra 192.0.2.1\n", "unknown property 'sever', expected one of: server, service,", nil},
		{"unknown server", "server fra 192.0.2.1\nservice www.svc.gslb.example.org fra iad\n", "Corefile:7 - Error during parsing: service 'www.svc.gslb.example.org': there is no line 'server iad", nil},
		{"unknown probe", "server fra 192.0.2.1\nservice www.svc.gslb.example.org fra probe smtp\n", "unknown probe 'smtp', expected one of: the unnamed one", nil},
		{"no services file", services + "services " + filepath.Join(dir, "missing") + "\n", "no such file", nil},
		{"service outside", "server fra 192.0.2.1\nservice www.example.org fra\n", "outside of the zone", nil},
		{"service twice", services + "service WWW.svc.gslb.example.org. fra\n", "given twice", nil},
		{"server twice", services + "server fra 192.0.2.3\n", "given twice", nil},
		{"server twice in a service", "server fra 192.0.2.1\nservice www.svc.gslb.example.org fra fra\n", "server 'fra' is given twice", nil},
		{"no address", "server fra fra.example.org\n", "invalid address 'fra.example.org'", nil},
		{"no unicast address", "server fra 0.0.0.0\n", "invalid address '0.0.0.0': expected the IP address of a host", nil},
		{"address twice", "server fra 192.0.2.1 ::ffff:192.0.2.1\n", "given twice", nil},
		{"server name", "server fra.example 192.0.2.1\n", "invalid server name 'fra.example'", nil},
		{"answers", "server fra 192.0.2.1\nservice www.svc.gslb.example.org fra answers 0\n", "invalid number '0' for 'answers'", nil},
		{"answers without value", "server fra 192.0.2.1\nservice www.svc.gslb.example.org fra answers\n", "needs a value", nil},
		{"explain", services + "explain 192.0.2.0/24 2001:db8::1/128\n", "", func(c config) bool { return len(c.explainTo) == 2 }},
		{"explain nobody", services + "explain\n", "expected 'explain PREFIX...'", nil},
		{"explain address", services + "explain 192.0.2.1\n", "invalid prefix '192.0.2.1'", nil},
		{"explain host bits", services + "explain 192.0.2.1/24\n", "did you mean 192.0.2.0/24", nil},
		{"ttl order", services + "ttl 60s 20s\n", "the lower bound comes first", nil},
		{"ttl zero", services + "ttl 0s 20s\n", "invalid duration '0s' for 'ttl': expected 1s to 24h", nil},
		{"ttl fraction", services + "ttl 1500ms 20s\n", "whole seconds", nil},
		{"ttl one", services + "ttl 60s\n", "expected 'ttl LOW HIGH'", nil},
		{"ttl twice", services + "ttl 20s 60s\nttl 20s 60s\n", "given twice", nil},
		{"register without key", services + "node par1 203.0.113.53\nregister 203.0.113.1\n", "'register' needs 'key': add 'key FILE|NAME SECRET'", nil},
		{"register without node", services + "register 203.0.113.1\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "'register' needs 'node': add 'node NAME ADDRESS...'", nil},
		{"key without register", services + "key k c2VjcmV0c2VjcmV0c2VjcmV0\n", "'key' needs 'register': add 'register ", nil},
		{"near without node", services + "near 198.51.100.0/24\n", "'near' needs 'node': add 'node NAME ADDRESS...'", nil},
		{"lease without register", services + "lease 30m\n", "'lease' needs 'register': add 'register ", nil},
		{"deputies", services + node + "deputy LON1 ams1\nview-key v\n", "", func(c config) bool {
			return slices.Equal(c.deputies, []string{"lon1", "ams1"}) && c.viewKey.Name == "v." && slices.Equal(registrationOf(c).Deputies, c.deputies)
		}},
		{"client subnets", services + node + "client-subnets\nview-key v\n", "", func(c config) bool { return c.clientSubnets && registrationOf(c).ClientSubnets }},
		{"survey", services + node + "survey\n", "", func(c config) bool { return c.survey.Budget == 5 && len(c.survey.Avoid) == 0 }},
		{"survey options", services + node + "survey budget 20 avoid 198.51.100.0/24\n", "", func(c config) bool { return c.survey.Budget == 20 && len(c.survey.Avoid) == 1 }},
		{"survey by DNS", services + node + "survey budget 20 dns 1053 avoid 198.51.100.0/24\n", "", func(c config) bool {
			return c.survey.Budget == 20 && c.survey.DNSPort == 1053 && len(c.survey.Avoid) == 1
		}},
		{"survey by DNS without a port", services + node + "survey dns\n", "expected 'survey [budget PACKETS] [dns PORT]", nil},
		{"survey by DNS at a port that none is", services + node + "survey dns 65536\n", "invalid number '65536' for 'dns': expected 1 to 65535", nil},
		{"survey without register", services + "survey\n", "'survey' needs 'register': add 'register ", nil},
		{"survey twice", services + node + "survey\nsurvey\n", "'survey' is given twice", nil},
		{"survey budget", services + node + "survey budget many\n", "invalid number 'many' for 'budget': expected 1 to 10000", nil},
		{"survey word", services + node + "survey 198.51.100.0/24\n", "expected 'survey [budget PACKETS] [dns PORT] [avoid PREFIX...]', for example 'survey budget 20 avoid 192.0.2.0/24'", nil},
		{"no client subnets", services + node + "view-key v\n", "", func(c config) bool { return !registrationOf(c).ClientSubnets }},
		{"client subnets without view-key", services + node + "client-subnets\n", "'client-subnets' needs 'view-key': add 'view-key ", nil},
		{"client subnets without register", services + "client-subnets\n", "'client-subnets' needs 'register': add 'register ", nil},
		{"client subnets of some", services + node + "client-subnets 24\nview-key v\n", "expected 'client-subnets'", nil},
		{"deputy without view-key", services + node + "deputy lon1\n", "'deputy' needs 'view-key': add 'view-key ", nil},
		{"view-key without register", services + "view-key v\n", "'view-key' needs 'register': add 'register ", nil},
		{"deputy of itself", services + node + "deputy lon1 PAR1\nview-key v\n", "node 'par1' cannot be its own deputy, name another node", nil},
		{"deputy twice", services + node + "deputy lon1 LON1\nview-key v\n", "given twice", nil},
		{"deputy name", services + node + "deputy lon.1\nview-key v\n", "expected one label", nil},
		{"deputy nobody", services + node + "deputy\nview-key v\n", "expected 'deputy NODE...'", nil},
		{"lease short", services + node + "lease 1s\n", "invalid duration '1s' for 'lease': expected 30s to 24h", nil},
		{"register name", services + "node par1 203.0.113.53\nregister b1.example.org\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "expected an IP address", nil},
		{"register twice", services + "node par1 203.0.113.53\nregister 203.0.113.1 203.0.113.1:53\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "given twice", nil},
		{"node name", services + "node par.1 203.0.113.53\n", "expected one label", nil},
		{"node that is not ASCII", services + "node \u212aiel 203.0.113.53\n", "write 'kiel'", nil},
		{"deputy that is not ASCII", services + node + "deputy zürich\nview-key v\n", "invalid node name 'zürich': names in the DNS are ASCII, write 'xn--zrich-kva'", nil},
		{"names of DNS-Bs", services + "node par1 203.0.113.53\nregister tls://203.0.113.1%b1.example.org \"tls://203.0.113.2#b2.example.org\" 203.0.113.3\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "", func(c config) bool {
			return slices.Equal(c.dnsbs, []dnsclient.Endpoint{"tls://203.0.113.1:853#b1.example.org", "tls://203.0.113.2:853#b2.example.org", "203.0.113.3:53"})
		}},
		{"certificate that is not ASCII", services + "node par1 203.0.113.53\nregister tls://203.0.113.1%bücher.example.org\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\n", "write 'xn--bcher-kva.example.org'", nil},
		{"key that is not ASCII", services + "node par1 203.0.113.53\nregister 203.0.113.1\nkey bücher c2VjcmV0c2VjcmV0c2VjcmV0\n", "write 'xn--bcher-kva'", nil},
		{"node without address", services + "node par1\n", "expected 'node NAME ADDRESS...'", nil},
		{"key secret", services + "node par1 203.0.113.53\nregister 203.0.113.1\nkey k secret!\n", "not base64", nil},
		{"key file", services + "node par1 203.0.113.53\nregister 203.0.113.1\nkey " + filepath.Join(dir, "missing") + "\n", "no such file", nil},
		{"host bits", services + node + "near 198.51.100.1/24\n", "did you mean 198.51.100.0/24", nil},
		{"no prefix", services + node + "near 198.51.100.0\n", "did you mean 198.51.100.0/32?", nil},
		{"prefix twice", services + node + "near 198.51.100.0/24 !198.51.100.0/24\n", "given twice", nil},
		{"near empty", services + node + "near \"\"\n", "invalid prefix ''", nil},
		{"prefix file", services + node + "near " + wrong + "\n", wrong + ":2 - ", nil},
	}
	for _, tc := range tests {
		conf, err := parse(block(t, head+"dnslb {\n"+tc.config+"}\ntsig {\nsecret v c2VjcmV0c2VjcmV0c2VjcmV0\n}\n}\n"))
		switch {
		case tc.err == "" && err != nil:
			t.Errorf("%s: expected no error, got %v", tc.name, err)
		case tc.err == "" && !tc.check(conf):
			t.Errorf("%s: unexpected configuration %+v", tc.name, conf)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "Corefile:")):
			t.Errorf("%s: expected an error with a line and %q, got %v", tc.name, tc.err, err)
		}
	}
}

// TestParseViewKey checks that 'view-key' names a key of tsig, and that the forms
// of earlier versions are refused with the remedy.
func TestParseViewKey(t *testing.T) {
	const (
		secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
		other  = "b3RoZXJzZWNyZXRvdGhlcnNlY3JldA=="
	)
	file := filepath.Join(t.TempDir(), "views.key")
	if err := os.WriteFile(file, []byte("key \"v\" {\n\talgorithm hmac-sha256;\n\tsecret \""+secret+"\";\n};\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	same, err := dnsclient.NewKey("k", "", secret)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, tsig, viewKey string
		err                 string
		want                dnsclient.Key
	}{
		{"name", "secret k " + secret, "k", "", same},
		{"name in upper case", "secret k " + secret, "K.", "", same},
		{"key file of tsig", "secrets " + file, "v", "", dnsclient.Key{Name: "v.", Algorithm: same.Algorithm, Secret: secret}},
		{"no tsig", "", "v", "unknown key 'v': add 'tsig { secret v SECRET }' to this server block and write 'view-key v'", dnsclient.Key{}},
		{"another key of tsig", "secret w " + secret, "v", "unknown key 'v': add 'tsig { secret v SECRET }'", dnsclient.Key{}},
		{"name and secret", "", "v " + secret, "expected 'view-key NAME': add 'tsig { secret v SECRET }' to this server block and write 'view-key v'", dnsclient.Key{}},
		{"file", "", file, "is a file: add 'tsig { secrets " + file + " }' to this server block and write 'view-key v.'", dnsclient.Key{}},
		{"nothing", "secret v " + secret, "", "expected 'view-key NAME'", dnsclient.Key{}},
		{"short secret", "secret v YWJj", "v", "'view-key v': the secret has 3 bytes, expected at least 16", dnsclient.Key{}},
		{"no base64", "secret v secret!", "v", "not base64", dnsclient.Key{}},
		{"the name of key with another secret", "secret k " + other, "K.", "'key' has another secret for the name k.", dnsclient.Key{}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			corefile := "svc.gslb.example.org {\nlatencyprobe {\nrtt tcp 443\n}\n"
			if tc.tsig != "" {
				corefile += "tsig {\n" + tc.tsig + "\n}\n"
			}
			corefile += "dnslb {\nserver fra 192.0.2.1\nservice www.svc.gslb.example.org fra\n" +
				"node par1 203.0.113.53\nregister 203.0.113.1\nkey k " + secret + "\nview-key " + tc.viewKey + "\n}\n}\n"
			conf, err := parse(block(t, corefile))
			switch {
			case tc.err == "" && (err != nil || conf.viewKey != tc.want):
				t.Errorf("Expected the key %+v, got %+v, %v", tc.want, conf.viewKey, err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "Corefile:")):
				t.Errorf("Expected an error with a line and %q, got %v", tc.err, err)
			}
		})
	}
}

// TestPortOfPlainDNS checks that the port at which nodes share views is that of
// plain DNS, wherever its key stands, and that each zone counts once.
func TestPortOfPlainDNS(t *testing.T) {
	const body = " {\ntsig {\nsecret v c2VjcmV0c2VjcmV0c2VjcmV0\n}\nlatencyprobe {\nrtt tcp 443\n}\ndnslb {\nserver fra 192.0.2.1\nservice www.svc.example.org fra\n" +
		"node par1 203.0.113.53\nregister 203.0.113.1\nkey k c2VjcmV0c2VjcmV0c2VjcmV0\nview-key v\n}\n}\n"
	const tls, plain, other = "tls://svc.example.org:8853", "svc.example.org:1053", "dns://other.example.org:2053"
	for _, tc := range []struct{ keys, port, err string }{
		{plain, "1053", ""},
		{"svc.example.org", "53", ""},
		{tls + " " + plain, "1053", ""},
		{plain + " " + tls, "1053", ""},
		{tls + " " + other + " " + plain, "1053", ""},
		{tls + " dns://svc.example.org " + plain, "53", ""},
		{tls, "", "'view-key': views are shared over plain TCP, and this server block does not listen for plain DNS: add 'svc.example.org' to its zones"},
		{tls + " " + other, "", "add 'svc.example.org' to its zones"},
		// Another block of the zone does not answer for this one.
		{tls + body + plain, "", "add 'svc.example.org' to its zones"},
	} {
		conf, err := parse(block(t, tc.keys+body))
		switch {
		case tc.err == "" && (err != nil || conf.sharing().Port != tc.port || conf.sharing().Cut != "svc.example.org."):
			t.Errorf("%s: Expected port %s, got %+v, %v", tc.keys, tc.port, conf.sharing(), err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: Expected an error with %q, got %v", tc.keys, tc.err, err)
		}
		cuts := registrationOf(conf).Cuts
		if slices.Sort(cuts); len(cuts) != len(slices.Compact(slices.Clone(cuts))) {
			t.Errorf("%s: Expected each zone once, got %q", tc.keys, cuts)
		}
	}
}

func TestParseBlock(t *testing.T) {
	const body = "dnslb {\nserver fra 192.0.2.1\nservice www.example.org fra\n}\n"
	tests := []struct{ corefile, err string }{
		{"example.org {\n" + body + "}\n", "add a line 'latencyprobe'"},
		{"example.org {\nloadbalance\nlatencyprobe {\nrtt tcp 443\n}\n" + body + "}\n", "loadbalance shuffles"},
		{"example.org {\nlatencyprobe {\nrtt tcp 443\n}\ndnslb example.net {\n}\n}\n", "takes no argument"},
		{"example.org {\nlatencyprobe {\nrtt tcp 443\n}\n" + body + body + "}\n", "once per Server Block"},
		{"example.org {\nlatencyprobe web {\nrtt tcp 443\n}\n" + body + "}\n", "no unnamed latencyprobe"},
	}
	for _, tc := range tests {
		_, err := parse(block(t, tc.corefile))
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("Expected an error with %q, got %v", tc.err, err)
		}
	}
}
