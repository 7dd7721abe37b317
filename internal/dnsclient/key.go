package dnsclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// Fudge is the clock difference that TSIG tolerates, in seconds (RFC 8945,
// section 10).
const Fudge = 300

// Key is a TSIG key (RFC 8945). The zero Key, which has no name, signs nothing.
type Key struct {
	Name      string // absolute, lower case
	Algorithm string // as in package dns
	Secret    string // base64
}

var algorithms = map[string]string{
	"hmac-sha1":   dns.HmacSHA1,
	"hmac-sha224": dns.HmacSHA224,
	"hmac-sha256": dns.HmacSHA256,
	"hmac-sha384": dns.HmacSHA384,
	"hmac-sha512": dns.HmacSHA512,
}

const defaultAlgorithm = "hmac-sha256"

// minSecret is how many bytes a secret must have. A key makes HMAC no stronger
// than it is long (RFC 2104, section 3).
const minSecret = 16

const secretRemedy = "make one with 'tsig-keygen' or 'head -c 32 /dev/urandom | base64'"

// ErrSecret says that a secret is not base64.
var ErrSecret = errors.New("the secret is not base64: " + secretRemedy)

// CheckSecrets returns an error for each key of *tsig* whose secret is not base64:
// *tsig* takes any text, and then no signature is ever right. The errors are those of the
// block at a position, as *tsig* does not tell the line of a key.
func CheckSecrets(at corefile.Position, secrets map[string]string) error {
	bad := make(map[string]bool) // one key may be there in several spellings
	for name, secret := range secrets {
		if !isSecret(secret) {
			bad[strings.ToLower(name)] = true
		}
	}
	failed := make([]error, 0, len(bad))
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		failed = append(failed, at.Errorf("the secret of key '%s', in the tsig of this server block, is not base64: %s", name, secretRemedy))
	}
	return corefile.Join(failed...)
}

func isSecret(text string) bool {
	raw, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(raw) > 0
}

// NewKey checks the parts of a key. An empty algorithm is hmac-sha256.
func NewKey(name, algorithm, secret string) (Key, error) {
	canonical, err := corefile.Name(name)
	if err != nil {
		return Key{}, fmt.Errorf("name of the key: %w", err)
	}
	if canonical == "." {
		return Key{}, errors.New("invalid key name '.': expected a domain name such as par1.key")
	}
	key := Key{Name: canonical, Secret: secret}
	switch raw, err := base64.StdEncoding.DecodeString(secret); {
	case err != nil || len(raw) == 0:
		return Key{}, ErrSecret
	case len(raw) < minSecret:
		return Key{}, fmt.Errorf("the secret has %d bytes, expected at least %d: %s", len(raw), minSecret, secretRemedy)
	}
	if algorithm == "" {
		algorithm = defaultAlgorithm
	}
	var ok bool
	if key.Algorithm, ok = algorithms[strings.ToLower(algorithm)]; !ok {
		return Key{}, fmt.Errorf("unknown algorithm '%s', expected one of: %s", algorithm, strings.Join(slices.Sorted(maps.Keys(algorithms)), ", "))
	}
	return key, nil
}

// ReadKey reads a key file as tsig-keygen writes it and BIND includes it:
//
//	key "NAME" { algorithm hmac-sha256; secret "BASE64"; };
func ReadKey(file string) (Key, error) {
	data, err := inputfile.ReadText(file)
	if err != nil {
		return Key{}, err
	}
	return parseKey(string(data))
}

func parseKey(text string) (Key, error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n;{}\"", r) })
	value := make(map[string]string)
	for i := 0; i+1 < len(words); i += 2 {
		word := strings.ToLower(words[i])
		if _, twice := value[word]; twice {
			return Key{}, fmt.Errorf("'%s' is given twice, keep one key per file", word)
		}
		value[word] = words[i+1]
	}
	if value["key"] == "" || value["secret"] == "" || len(words)%2 != 0 {
		return Key{}, errors.New(`expected 'key "NAME" { algorithm hmac-sha256; secret "BASE64"; };'`)
	}
	return NewKey(value["key"], value["algorithm"], value["secret"])
}

// sign makes package dns sign m when it is sent.
func (k Key) sign(m *dns.Msg) { m.SetTsig(k.Name, k.Algorithm, Fudge, time.Now().Unix()) }

// secrets returns the key in the form that package dns signs and verifies with.
func (k Key) secrets() map[string]string { return map[string]string{k.Name: k.Secret} }
