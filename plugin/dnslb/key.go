package dnslb

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"
)

// tsigKey signs what the node sends to DNS-B and to other nodes (RFC 8945).
type tsigKey struct {
	name      string // absolute, lower case
	algorithm string
	secret    string // base64
}

var algorithms = map[string]string{
	"hmac-sha1":   dns.HmacSHA1,
	"hmac-sha224": dns.HmacSHA224,
	"hmac-sha256": dns.HmacSHA256,
	"hmac-sha384": dns.HmacSHA384,
	"hmac-sha512": dns.HmacSHA512,
}

// minSecret is how many bytes a secret must have. A key makes HMAC no stronger than
// it is long (RFC 2104, section 3).
const minSecret = 16

// newKey checks the parts of a key. An empty algorithm is hmac-sha256.
func newKey(name, algorithm, secret string) (tsigKey, error) {
	key := tsigKey{name: strings.ToLower(dns.Fqdn(name)), secret: secret}
	if _, ok := dns.IsDomainName(key.name); !ok || key.name == "." {
		return key, fmt.Errorf("'%s' is no key name", name)
	}
	const remedy = "make one with 'tsig-keygen' or 'head -c 32 /dev/urandom | base64'"
	switch raw, err := base64.StdEncoding.DecodeString(secret); {
	case err != nil || len(raw) == 0:
		return key, errors.New("the secret is not base64; " + remedy)
	case len(raw) < minSecret:
		return key, fmt.Errorf("the secret has %d bytes, and less than %d can be guessed; %s", len(raw), minSecret, remedy)
	}
	if algorithm == "" {
		algorithm = "hmac-sha256"
	}
	var ok bool
	if key.algorithm, ok = algorithms[strings.ToLower(algorithm)]; !ok {
		return key, fmt.Errorf("unknown algorithm '%s': hmac-sha256 is the usual one", algorithm)
	}
	return key, nil
}

// readKey reads a key file as tsig-keygen writes it and BIND includes it:
//
//	key "NAME" { algorithm hmac-sha256; secret "BASE64"; };
func readKey(file string) (tsigKey, error) {
	data, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return tsigKey{}, err
	}
	return parseKey(string(data))
}

func parseKey(text string) (tsigKey, error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n;{}\"", r) })
	value := make(map[string]string)
	for i := 0; i+1 < len(words); i += 2 {
		word := strings.ToLower(words[i])
		if _, twice := value[word]; twice {
			return tsigKey{}, fmt.Errorf("'%s' is given twice: one key a file", word)
		}
		value[word] = words[i+1]
	}
	if value["key"] == "" || value["secret"] == "" || len(words)%2 != 0 {
		return tsigKey{}, errors.New(`expected: key "NAME" { algorithm hmac-sha256; secret "BASE64"; };`)
	}
	return newKey(value["key"], value["algorithm"], value["secret"])
}
