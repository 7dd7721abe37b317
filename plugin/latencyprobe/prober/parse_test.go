package prober

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		method []string
		want   Prober
		id     string
	}{
		{[]string{"icmp"}, ICMP{}, "icmp{}"},
		{[]string{"tcp", "443"}, TCP{Port: 443}, "tcp{443}"},
		{[]string{"tls", "465", "mail.example.org"}, TLS{465, "mail.example.org", false}, "tlsHandshake{465 mail.example.org false}"},
		{[]string{"tls", "443", "insecure"}, TLS{443, "", true}, "tlsHandshake{443  true}"},
		{[]string{"dns", "53", "example.org", "soa"}, DNS{53, "example.org.", 6, false, false, false}, "dnsQuery{53 example.org. 6 false}"},
		{[]string{"dns", "53", "example.org", "recursive"}, DNS{53, "example.org.", 1, false, true, false}, "dnsQuery{53 example.org. 1 false recursive}"},
		{[]string{"dns", "53", "example.org", "soa", "recursive"}, DNS{53, "example.org.", 6, false, true, false}, "dnsQuery{53 example.org. 6 false recursive}"},
		{[]string{"dns", "53", "recursive"}, DNS{53, "recursive.", 1, false, false, false}, "dnsQuery{53 recursive. 1 false}"},
		{[]string{"http://www.example.org/", "ttfb"}, HTTP{"http://www.example.org/", "80", false, false, 0, ""},
			"httpGet{http://www.example.org/ 80 false false 0 }"},
		{strings.Split("https://www.example.org:8443/x?y total insecure expect 204 match well", " "),
			HTTP{"https://www.example.org:8443/x?y", "8443", true, true, 204, "well"},
			"httpGet{https://www.example.org:8443/x?y 8443 true true 204 well}"},
	}
	for _, tc := range tests {
		t.Run(strings.Join(tc.method, " "), func(t *testing.T) {
			got, err := Parse(tc.method)
			if err != nil || got != tc.want || got.ID() != tc.id {
				t.Errorf("Expected %+v with ID %q, got %+v, %v", tc.want, tc.id, got, err)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for method, want := range map[string]string{
		"":                                      "expected a method",
		"smtp 25":                               "unknown method 'smtp', expected one of: icmp, tcp PORT",
		"icmp 1":                                "expected 'icmp' without arguments",
		"tcp":                                   "expected 'tcp PORT'",
		"tcp 0":                                 "invalid port '0'",
		"tcp 65536":                             "invalid port '65536'",
		"tls":                                   "expected 'tls PORT [SNI]",
		"tls 44x":                               "invalid port '44x'",
		"tls 443 a b":                           "expected 'tls PORT",
		"dns 53":                                "expected 'dns PORT NAME [TYPE] [recursive]'",
		"dns 53 example.org recursive A":        "expected 'dns PORT NAME",
		"dns 0 example.org":                     "invalid port '0'",
		"dns 53 example.org FOO":                "invalid DNS record type 'FOO'",
		"dns 53 a..b":                           "invalid name 'a..b': expected a domain name",
		"dns 53 bücher.example.org":             "write 'xn--bcher-kva.example.org'",
		"tls 443 bücher.example.org":            "write 'xn--bcher-kva.example.org'",
		"tls 443 a..b":                          "invalid name 'a..b': expected a domain name",
		"https://Bücher.example.org/":           "write 'xn--bcher-kva.example.org'",
		"http://b%C3%BCcher.example.org:8080/ü": "write 'xn--bcher-kva.example.org'",
		"https://a..b/":                         "invalid name 'a..b': expected a domain name",
		"http:///path":                          "invalid URL",
		"http://www.example.org:99999/":         "invalid port '99999'",
		"http://www.example.org/ median":        "unknown option 'median', expected one of: ttfb",
		"http://www.example.org/ expect 99":     "invalid status code '99' for 'expect': expected 200 to 599",
		"http://www.example.org/ match":         "'match' needs a value",
	} {
		t.Run(method, func(t *testing.T) {
			if got, err := Parse(strings.Fields(method)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Expected an error with %q, got %v, %v", want, got, err)
			}
		})
	}
}
