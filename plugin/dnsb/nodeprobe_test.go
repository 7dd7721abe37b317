package dnsb

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/tls"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
)

func TestPortOfResolvers(t *testing.T) {
	for _, tc := range []struct {
		blocks []string // their listeners
		want   uint16
	}{
		{[]string{"dns://a.:53"}, 53},
		{[]string{"dns://a.:1053"}, 1053},
		{[]string{"a.:1053"}, 1053},
		{[]string{"a."}, 53},
		{[]string{"tls://a.:853"}, 53},
		{[]string{"https://a.:443", "grpc://a.:9000"}, 53},
		{[]string{"tls://a.:853", "dns://a.:1053"}, 1053},
		{[]string{"dns://a.:1053", "tls://a.:853"}, 1053},
		{[]string{"tls://a.:853 dns://a.:1053"}, 1053},
		{[]string{"dns://a.:1053", "dns://a.:1054"}, 1053},
		{[]string{"dns://a.:1053", "dns://a.:53"}, 53},
	} {
		c := caddy.NewTestController("dns", "")
		for _, listeners := range tc.blocks {
			c.ServerBlockKeys = strings.Fields(listeners)
			resolverPortOf(c, "a.")
		}
		c.ServerBlockKeys = []string{"dns://b.:5300"}
		resolverPortOf(c, "b.")
		c.ServerBlockKeys = nil
		if got := resolverPortOf(c, "a.").get(); got != tc.want {
			t.Errorf("%v: Expected port %d, got %d", tc.blocks, tc.want, got)
		}
	}
}

// A node is asked over plain DNS, whatever protocol the resolver asks by.
func TestServerBlocksOfZoneShareJudgement(t *testing.T) {
	cert, key, pool := testcert.Loopback(t)
	const block = `gslb.example.org:%d {
		bind 127.0.0.1
		%s
		latencyprobe {
			interval 1s
			timeout 200ms
		}
		dnsb {
			ns b1 127.0.0.1
			node par1 127.0.0.3
			node nyc1 127.0.0.4
			cut svc par1 nyc1
			default nyc1 par1
		}
	}
	`
	port, tlsPort := testport.Free(t), testport.Free(t)
	par := &mortal{name: "par1", addr: fmt.Sprintf("127.0.0.3:%d", port)}
	par.start(t)
	defer par.conn.Close()
	contents := fmt.Sprintf("tls://"+block, tlsPort, "tls "+cert+" "+key) + fmt.Sprintf(block, port, "")
	instance, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(contents), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatalf("Expected the server to start, got: %v", err)
	}
	defer func() {
		instance.ShutdownCallbacks()
		_ = instance.Stop()
	}()
	client := &dns.Client{Net: "tcp-tls", Timeout: patience, TLSConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}}
	tlsReferral := func() string {
		t.Helper()
		r, _, err := client.Exchange(new(dns.Msg).SetQuestion("www.svc.gslb.example.org.", dns.TypeA), fmt.Sprintf("127.0.0.1:%d", tlsPort))
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range r.Ns {
			if ns, ok := rr.(*dns.NS); ok {
				node, _, _ := strings.Cut(ns.Ns, ".")
				return node
			}
		}
		return ""
	}
	end := time.Now().Add(patience)
	for referral(t, port) != "par1" || tlsReferral() != "par1" {
		if time.Now().After(end) {
			t.Fatalf("Expected the live node over UDP and TLS, got %s and %s", referral(t, port), tlsReferral())
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(5 * time.Second) // more than until a node that does not answer is dead
	if got := tlsReferral(); got != "par1" {
		t.Errorf("Expected the live node to stay live, got %s", got)
	}
}

// The thief of a node's key registers silent addresses, that of another node, and
// many cuts. The other node is found dead as without it.
func TestStolenKeyDoesNotKeepDeadNodeLive(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a node is dead")
	}
	_, port := serve(t, "node quiet 127.0.0.3\nnode good 127.0.0.5\ncut quiet quiet good\nprefix 127.0.0.0/8 quiet good\n}\nlatencyprobe {\ninterval 1s\ntimeout 200ms")
	quiet := &mortal{addr: fmt.Sprintf("127.0.0.3:%d", port)}
	all := []*mortal{quiet, {addr: fmt.Sprintf("127.0.0.5:%d", port)}}
	stolen := nodeAt("nyc1", "127.0.0.3")
	for i := range 20 {
		stolen.Cuts = append(stolen.Cuts, fmt.Sprintf("c%02d.gslb.example.org.", i))
	}
	for i := range 11 {
		m := &mortal{addr: fmt.Sprintf("127.%d.0.1:%d", i+10, port)}
		m.silent.Store(true) // without a socket it would refuse
		all = append(all, m)
		stolen.Addresses = append(stolen.Addresses, netip.MustParseAddr(fmt.Sprintf("127.%d.0.1", i+10)))
	}
	for _, m := range all {
		m.start(t)
		defer m.conn.Close()
	}
	referredTo := func() string {
		for _, rr := range query(t, port, "udp", "www.quiet.gslb.example.org.", dns.TypeA).Ns {
			if ns, ok := rr.(*dns.NS); ok {
				node, _, _ := strings.Cut(ns.Ns, ".")
				return node
			}
		}
		return ""
	}
	watch := testwatch.Start(t)
	wait := func(want string) {
		t.Helper()
		for end := watch.Elapsed() + 30*time.Second; referredTo() != want; time.Sleep(20 * time.Millisecond) {
			if watch.Elapsed() > end {
				t.Fatalf("Expected resolvers to be referred to %s, got %s", want, referredTo())
			}
		}
	}
	for all[1].answered.Load() == 0 || quiet.answered.Load() == 0 {
		time.Sleep(20 * time.Millisecond)
	}
	if r := send(t, port, sent(t, stolen), nycKey, nycSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected nyc1 to register, got %v", r)
	}
	wait("quiet")
	quiet.silent.Store(true)
	wait("good")
}
