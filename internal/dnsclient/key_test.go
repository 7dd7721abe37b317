package dnsclient

import (
	"testing"

	"github.com/miekg/dns"
)

func TestParseKey(t *testing.T) {
	tests := []struct {
		text string
		ok   bool
	}{
		{`key "k" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0c2VjcmV0"; };`, true},
		{"key k {\n secret c2VjcmV0c2VjcmV0c2VjcmV0\n}\n", true},
		{`key "k" { algorithm hmac-md5; secret "c2VjcmV0c2VjcmV0c2VjcmV0"; };`, false},
		{`key "k" { algorithm hmac-sha256; };`, false},
		{`key "k" { secret "c2VjcmV0c2VjcmV0c2VjcmV0"; }; key "l" { secret "c2VjcmV0c2VjcmV0c2VjcmV0"; };`, false},
		{"", false},
		{"key", false},
	}
	for _, tc := range tests {
		if _, err := parseKey(tc.text); (err == nil) != tc.ok {
			t.Errorf("%q: expected ok %v, got %v", tc.text, tc.ok, err)
		}
	}
}

// FuzzParseKey checks that whatever a key file holds ends as an error or as a
// key that signs.
func FuzzParseKey(f *testing.F) {
	f.Add(`key "par1.key" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0c2VjcmV0"; };`)
	f.Add("key k {\n secret c2VjcmV0c2VjcmV0c2VjcmV0\n}\n")
	f.Add("key . secret c2VjcmV0c2VjcmV0c2VjcmV0")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := parseKey(text)
		if err != nil {
			if key != (Key{}) {
				t.Errorf("Expected no key with an error, got one named %q", key.Name)
			}
			return
		}
		m := new(dns.Msg).SetQuestion("example.org.", dns.TypeSOA)
		key.sign(m)
		if _, _, err := dns.TsigGenerate(m, key.Secret, "", false); err != nil {
			t.Errorf("Expected key %q to sign, got %v", key.Name, err)
		}
	})
}
