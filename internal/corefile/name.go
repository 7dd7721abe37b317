package corefile

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Name parses a domain name as it stands in a zone file (RFC 1035, section 5.1),
// absolute or not. It returns the name in the form that names of queries have:
// absolute, in lower case, with the same characters escaped.
func Name(text string) (string, error) {
	if err := CheckASCII("name", text); err != nil {
		return "", err
	}
	if name, ok := canonical(text); ok {
		return name, nil
	}
	return "", fmt.Errorf("invalid name '%s': expected a domain name such as www.example.org", text)
}

// canonical returns a name as it comes out of a message.
func canonical(text string) (name string, ok bool) {
	if !dnsmsg.IsName(text) {
		return "", false
	}
	wire := make([]byte, 256)
	end, err := dns.PackDomainName(dns.Fqdn(text), wire, 0, nil, false)
	if err != nil {
		return "", false
	}
	name, _, err = dns.UnpackDomainName(wire[:end], 0)
	return dns.CanonicalName(name), err == nil
}

// CheckASCII returns an error if a name, or a pattern for names, has other
// characters than those of ASCII: queries, zone files and certificates have the
// A-labels of an internationalized name (RFC 5890). The error tells them; kind is
// what the text is, such as "name".
func CheckASCII(kind, text string) error {
	if isASCII(text) {
		return nil
	}
	ascii, err := toASCII(text)
	if err != nil {
		return fmt.Errorf("invalid %s '%s': expected ASCII characters, and of an internationalized name its A-labels ('xn--...'): %w", kind, text, err)
	}
	return fmt.Errorf("invalid %s '%s': names in the DNS are ASCII, write '%s'", kind, text, ascii)
}

// toASCII converts the labels of a name that are not ASCII. The others may hold
// what package idna refuses, such as an underscore or the '*' of a pattern.
func toASCII(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", errors.New("the text is not UTF-8")
	}
	labels := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(".\u3002\uff0e\uff61", r) }) // the dots of RFC 3490, section 3.1
	for i, label := range labels {
		if isASCII(label) {
			continue
		}
		var err error
		if labels[i], err = idna.Lookup.ToASCII(label); err != nil {
			return "", err
		}
	}
	name := strings.Join(labels, ".")
	if !dnsmsg.IsName(name) {
		return "", errors.New("the name is too long")
	}
	return name, nil
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII })
}

// Label parses the name of a node or a server and returns it in lower case; kind
// is one of these words.
func Label(kind, text string) (string, error) {
	if err := CheckASCII(kind+" name", text); err != nil {
		return "", err
	}
	label := strings.ToLower(text)
	if !registration.IsLabel(label) {
		return "", fmt.Errorf("invalid %s name '%s': expected one label of letters, digits and hyphens, such as par1", kind, text)
	}
	return label, nil
}
