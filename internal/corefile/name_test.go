package corefile

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestName(t *testing.T) {
	const invalid = "expected a domain name such as www.example.org"
	long := strings.Repeat("a", 63)
	tests := []struct{ text, want, err string }{
		{"www.example.org", "www.example.org.", ""},
		{"WWW.example.ORG.", "www.example.org.", ""},
		{".", ".", ""},
		{"*.example.org", "*.example.org.", ""},
		{"_sip._tcp.example.org", "_sip._tcp.example.org.", ""},
		{"xn--bcher-kva.example.org", "xn--bcher-kva.example.org.", ""},
		{"XN--BCHER-KVA.example.org", "xn--bcher-kva.example.org.", ""},
		{"xn--no-a-label-.example.org", "xn--no-a-label-.example.org.", ""},
		// Names in all spellings of a zone file.
		{`\119\087w.example.org`, "www.example.org.", ""},
		{`\w\w\w.example.org`, "www.example.org.", ""},
		{`a\.b.example.org`, `a\.b.example.org.`, ""},
		{`a\046b.example.org.`, `a\.b.example.org.`, ""},
		{"a@b.example.org", `a\@b.example.org.`, ""},
		{`b\195\188cher.example.org`, `b\195\188cher.example.org.`, ""},
		{`a\000.example.org`, `a\000.example.org.`, ""},
		{`a\.`, `a\..`, ""},
		{strings.Repeat(long+".", 3) + long[2:], strings.Repeat(long+".", 3) + long[2:] + ".", ""},

		{"", "", "invalid name '': " + invalid},
		{"a..b", "", "invalid name 'a..b': " + invalid},
		{".example.org", "", invalid},
		{"a" + long + ".example.org", "", invalid},
		{strings.Repeat(long+".", 3) + long[1:], "", invalid},
		{`a\`, "", invalid},

		{"bücher.example.org", "", "invalid name 'bücher.example.org': names in the DNS are ASCII, write 'xn--bcher-kva.example.org'"},
		{"BÜCHER.Example.org.", "", "write 'xn--bcher-kva.Example.org'"},
		{"*.bücher.example.org", "", "write '*.xn--bcher-kva.example.org'"},
		{"_443._tcp.bücher.example.org", "", "write '_443._tcp.xn--bcher-kva.example.org'"},
		{"faß.example.org", "", "write 'xn--fa-hia.example.org'"},
		{"例え。テスト", "", "write 'xn--r8jz45g.xn--zckzah'"},
		{"\u212aunde.example.org", "", "write 'kunde.example.org'"}, // the sign of the kelvin
		{"_bücher.example.org", "", "expected ASCII characters, and of an internationalized name its A-labels ('xn--...'): idna: "},
		{"b\xfccher.example.org", "", "the text is not UTF-8"},
		{"bücher\u200b\u2028.example.org", "", "expected ASCII characters"},
		{strings.Repeat("ü", 63) + ".example.org", "", "the name is too long"},
	}
	for _, tc := range tests {
		name, err := Name(tc.text)
		check(t, tc.text, name, tc.want, err, tc.err)
		if err != nil {
			continue
		}
		// A query for the name has the same text.
		wire, err := new(dns.Msg).SetQuestion(dns.Fqdn(tc.text), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		query := new(dns.Msg)
		if err := query.Unpack(wire); err != nil || dns.CanonicalName(query.Question[0].Name) != name {
			t.Errorf("Expected the name of the query %v for '%s', got %q, %v", query, tc.text, name, err)
		}
	}
}

func TestLabel(t *testing.T) {
	tests := []struct{ text, want, err string }{
		{"par1", "par1", ""},
		{"Par-1", "par-1", ""},
		{"xn--bcher-kva", "xn--bcher-kva", ""},
		{"bücher", "", "invalid node name 'bücher': names in the DNS are ASCII, write 'xn--bcher-kva'"},
		{"\u212aiel", "", "write 'kiel'"},
		{"par_1", "", "invalid node name 'par_1': expected one label of letters, digits and hyphens, such as par1"},
		{"par1.", "", "expected one label"},
		{"", "", "expected one label"},
	}
	for _, tc := range tests {
		label, err := Label("node", tc.text)
		if err != nil {
			label = ""
		}
		check(t, tc.text, label, tc.want, err, tc.err)
	}
}
