package dnsb

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/tls"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// A registration over TLS is seen by the block that serves the zone over UDP.
func TestRegistrationOverTLS(t *testing.T) {
	cert, key, pool := testcert.Loopback(t)
	block := `gslb.example.org:%d {
		bind 127.0.0.1
		tsig {
			secret par1.key. ` + parSecret + `
		}
		dnsb {
			ns b1 127.0.0.1
			accept par1.key. par1 any
		}
	}
	`
	port, tlsPort := testport.Free(t), testport.Free(t)
	contents := fmt.Sprintf(block, port) + fmt.Sprintf("tls://"+block, tlsPort)
	contents = contents[:len(contents)-len("}\n\t")] + "tls " + cert + " " + key + "\n}\n"
	instance, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(contents), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatalf("Expected the server to start, got: %v", err)
	}
	defer func() {
		instance.ShutdownCallbacks()
		_ = instance.Stop()
	}()

	m := sent(t, nodeAt("par1", "192.0.2.53", "127.0.0.0/8"))
	c := &dns.Client{Net: "tcp-tls", Timeout: patience, TLSConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}, TsigSecret: map[string]string{parKey: parSecret}}
	m.SetTsig(parKey, dns.HmacSHA256, 300, time.Now().Unix())
	r, _, err := c.Exchange(m, fmt.Sprintf("127.0.0.1:%d", tlsPort))
	if err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected par1 to register over TLS, got %v, %v", r, err)
	}
	for end := time.Now().Add(patience); referral(t, port) != "par1"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("Expected par1, got %s", referral(t, port))
		}
	}
}
