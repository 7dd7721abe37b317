package dnslb

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

func TestLocation(t *testing.T) {
	tests := []struct{ lat, lon, want string }{
		{"48.85", "2.35", "48 51 0.000 N 2 21 0.000 E 0m"},
		{"-33.8688", "-70.5", "33 52 7.680 S 70 30 0.000 W 0m"},
		{"90", "-180", "90 0 0.000 N 180 0 0.000 W 0m"},
		{"0", "0", "0 0 0.000 N 0 0 0.000 E 0m"},
		{"90.1", "0", ""},
		{"0", "180.5", ""},
		{"NaN", "0", ""},
		{"48N", "0", ""},
	}
	for _, tc := range tests {
		got, err := registration.ParseLocation(tc.lat, tc.lon)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s %s: expected %q, got %q, %v", tc.lat, tc.lon, tc.want, got, err)
		}
		if err != nil {
			continue
		}
		conf := nodeConfig(t)
		conf.location = got
		reg := registrationOf(conf)
		reg.Zone, reg.Cuts = "gslb.example.org.", conf.Zones
		if _, err := reg.Message(); err != nil {
			t.Errorf("%s %s: expected DNS-B to take it, got %v", tc.lat, tc.lon, err)
		}
	}
}

// authority returns a certificate for 127.0.0.1, and for a name, with its own
// authority.
func authority(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestRegisterOverTLS checks that a node registers with a DNS-B that shows the
// right certificate, and with no other.
func TestRegisterOverTLS(t *testing.T) {
	cert, pool := authority(t, "b1.example.org")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	b := serveDNSB(t, l, testSecret)
	tests := []struct {
		name string
		dnsb string
		ca   *x509.CertPool
		up   bool
	}{
		{"by address", "tls://" + b.addr, pool, true},
		{"by name", "tls://" + b.addr + "#b1.example.org", pool, true},
		{"another name", "tls://" + b.addr + "#b2.example.org", pool, false},
		{"unknown authority", "tls://" + b.addr, nil, false},
		{"not over TLS", b.addr, pool, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // each waits for its random delay
			conf := nodeConfig(t, tc.dnsb)
			conf.ca = tc.ca
			r := newRegistrar()
			r.set(conf, 1)
			defer r.close()
			if up, _ := outcome(t, r); up != tc.up {
				t.Errorf("Expected registration %v, got %v", tc.up, up)
			}
		})
	}
}
