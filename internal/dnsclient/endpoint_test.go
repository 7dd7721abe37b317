package dnsclient

import (
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	tests := []struct{ text, want, address, name, err string }{
		{"192.0.2.1", "192.0.2.1:53", "192.0.2.1:53", "", ""},
		{"2001:db8::1", "[2001:db8::1]:53", "[2001:db8::1]:53", "", ""},
		{"[2001:db8::1]:5353", "[2001:db8::1]:5353", "[2001:db8::1]:5353", "", ""},
		{"tls://192.0.2.1", "tls://192.0.2.1:853", "192.0.2.1:853", "", ""},
		{"tls://192.0.2.1:8853#b1.example.org", "tls://192.0.2.1:8853#b1.example.org", "192.0.2.1:8853", "b1.example.org", ""},
		{"tls://2001:db8::1#b1.example.org", "tls://[2001:db8::1]:853#b1.example.org", "[2001:db8::1]:853", "b1.example.org", ""},
		{"tls://192.0.2.1%b1.example.org", "tls://192.0.2.1:853#b1.example.org", "192.0.2.1:853", "b1.example.org", ""},
		{"tls://[2001:db8::1]:8853%b1.example.org", "tls://[2001:db8::1]:8853#b1.example.org", "[2001:db8::1]:8853", "b1.example.org", ""},
		{"tls://192.0.2.1%b1.example.org:8853", "", "", "", "write the port before the name, such as tls://192.0.2.1:853%b1.example.org"},
		{"tls://192.0.2.1%", "", "", "", "invalid name ''"},
		{"tls://[fe80::1%eth0]:853", "", "", "", "write the port before the name"},
		{"tls://b1.example.org", "", "", "", "expected an IP address"},
		{"tls://192.0.2.1#b1..org", "", "", "", "'tls://192.0.2.1#b1..org': invalid name 'b1..org'"},
		{"tls://192.0.2.1#bücher.example.org", "", "", "", "write 'xn--bcher-kva.example.org'"},
		{"https://192.0.2.1", "", "", "", "expected an IP address"},
		{"192.0.2.1:0", "", "", "", "invalid port 0"},
		{"192.0.2.1#b1.example.org", "", "", "", "expected an IP address"},
		{"fe80::1%eth0", "[fe80::1%eth0]:53", "[fe80::1%eth0]:53", "", ""},
		{"fe80::1%eth0#b1.example.org", "", "", "", "invalid interface 'eth0#b1.example.org'"},
	}
	for _, tc := range tests {
		endpoint, err := ParseEndpoint(tc.text)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: expected an error with %q, got %v", tc.text, tc.err, err)
			}
			continue
		}
		if err != nil || string(endpoint) != tc.want {
			t.Errorf("%s: expected %s, got %s, %v", tc.text, tc.want, endpoint, err)
			continue
		}
		client, address := endpoint.client(nil)
		secure := strings.HasPrefix(tc.want, "tls")
		if address != tc.address || (client.Net == "tcp-tls") != secure || secure && client.TLSConfig.ServerName != tc.name {
			t.Errorf("%s: expected %s and the name %q, got %s and %+v", tc.text, tc.address, tc.name, address, client)
		}
	}
}
