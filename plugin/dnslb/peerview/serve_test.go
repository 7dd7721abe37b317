package peerview

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testwatch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// TestViewIsForHoldersOfTheKey checks who gets a view, and whose NOTIFY is
// taken.
func TestViewIsForHoldersOfTheKey(t *testing.T) {
	nodes := newRegistry()
	par := startNode(t, nodes, "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	par.share(time.Now())
	ctx, key := t.Context(), par.settings.Key

	if v, err := transfer(ctx, "par1", testCut, key, par.address); err != nil || len(v.Targets) != 2 {
		t.Fatalf("Expected the view, got %+v, %v", v, err)
	}
	for _, qtype := range []uint16{dns.TypeSOA, dns.TypeTXT, dns.TypeAXFR} {
		r, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion(testZone, qtype), par.address)
		if err != nil || r.Rcode != dns.RcodeRefused || len(r.Answer) > 0 {
			t.Errorf("Expected nothing without a signature, got %v, %v", r, err)
		}
	}
	r, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetNotify(zoneOf("lon1", testCut)), par.address)
	if err != nil || r.Rcode != dns.RcodeRefused || len(par.fetchers) > 0 {
		t.Errorf("Expected a NOTIFY without a signature to be refused, got %v, %v", r, err)
	}

	const remedy = "all nodes need the same 'view-key'"
	for _, wrong := range []dnsclient.Key{
		{Name: key.Name, Algorithm: key.Algorithm, Secret: otherSecret},
		{Name: "unknown.key.", Algorithm: key.Algorithm, Secret: testSecret},
	} {
		if _, err := transfer(ctx, "par1", testCut, wrong, par.address); err == nil {
			t.Errorf("Expected no view for the key %+v", wrong)
		}
		if _, err := askSerial(ctx, testZone, wrong, par.address); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("Expected an error that names the remedy, got %v", err)
		}
	}
	other := dnsclient.Key{Name: otherKey, Algorithm: key.Algorithm, Secret: testSecret}
	if _, err := transfer(ctx, "par1", testCut, other, par.address); err == nil {
		t.Error("Expected no view for another key of tsig")
	}
	if _, err := askSerial(ctx, testZone, other, par.address); err == nil || errors.As(err, new(dismissal)) || !strings.Contains(err.Error(), "NOTAUTH: compare the zones, 'deputy' and 'view-key'") {
		t.Errorf("Expected an error that is no dismissal for another key of tsig, got %v", err)
	}

	if _, err := askSerial(ctx, zoneOf("lon1", testCut), key, par.address); err == nil {
		t.Error("Expected no view of another node")
	}
	for _, node := range []string{"par1", "x y", ""} {
		if err := sendNotify(ctx, zoneOf(node, testCut), key, par.address); err == nil {
			t.Errorf("Expected no NOTIFY for the view of %q to be accepted", node)
		}
	}
}

// TestRefusalsAreSigned follows RFC 8945, section 5.3.
func TestRefusalsAreSigned(t *testing.T) {
	par := startNode(t, newRegistry(), "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	par.share(time.Now())
	key := par.settings.Key
	for _, q := range []*dns.Msg{
		new(dns.Msg).SetQuestion(zoneOf("lon1", testCut), dns.TypeSOA), new(dns.Msg).SetQuestion(testZone, dns.TypeMX),
		new(dns.Msg).SetNotify(testZone),
	} {
		q.SetTsig(key.Name, key.Algorithm, dnsclient.Fudge, time.Now().Unix())
		r, _, err := (&dns.Client{Net: "tcp", TsigSecret: map[string]string{key.Name: key.Secret}}).Exchange(q, par.address)
		if errors.Is(err, dns.ErrAuth) && r.Rcode == dns.RcodeNotAuth {
			err = nil // that client does not verify it
		}
		if err != nil || r.IsTsig() == nil || r.Rcode == dns.RcodeSuccess {
			t.Errorf("Expected a signed refusal of %v, got %v, %v", q.Question, r, err)
		}
	}
}

// TestInventedNodesLeaveNothing checks that a node which DNS-B does not know is
// not asked at all.
func TestInventedNodesLeaveNothing(t *testing.T) {
	par := startNode(t, newRegistry(), "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10, 20)
	series := testutil.CollectAndCount(viewPulls)
	for i := range 3 {
		if err := sendNotify(t.Context(), zoneOf(fmt.Sprintf("evil%d", i), testCut), par.settings.Key, par.address); err != nil {
			t.Fatal(err)
		}
	}
	testwatch.Wait(t, 10*time.Second, "the fetchers of unknown nodes to end", func() bool {
		par.mu.Lock()
		defer par.mu.Unlock()
		return len(par.fetchers) == 0
	})
	if more := testutil.CollectAndCount(viewPulls) - series; more > 1 {
		t.Errorf("Expected one series for all unknown nodes, got %d", more)
	}
}

// TestNotifyByOtherKeyIsRejected checks that the log tells it once, and the
// state the last one.
func TestNotifyByOtherKeyIsRejected(t *testing.T) {
	out := logtest.Capture(t)
	lon := startNode(t, newRegistry(), "lon1", "127.0.0.2", "0", "192.0.2.0/24", nil, 20, 10)
	key := dnsclient.Key{Name: otherKey, Algorithm: dns.HmacSHA256, Secret: testSecret}
	if r := lon.Rejected(); r != nil {
		t.Errorf("Expected no rejection, got %+v", r)
	}
	for _, tc := range []struct {
		node, want string
		secret     string
	}{
		{"par1", "par1", testSecret},
		{"fra1", "fra1", testSecret},
		{"x y", "fra1", testSecret},   // no name of a node
		{"ams1", "fra1", otherSecret}, // does not come past tsig
	} {
		key.Secret = tc.secret
		if err := sendNotify(t.Context(), zoneOf(tc.node, testCut), key, lon.address); err == nil {
			t.Errorf("Expected no NOTIFY for the view of %s to be accepted", tc.node)
		}
		const why = `signed with key "others.key.example.org.", and 'view-key' is "views.key.example.org.": give all nodes the same 'view-key'`
		if r := lon.Rejected(); r == nil || r.Node != tc.want || !strings.HasPrefix(r.From, "127.0.0.1:") || r.Why != why {
			t.Errorf("Expected a rejection for %s, got %+v", tc.want, r)
		}
	}
	out.Expect(t, "Rejected NOTIFY from 127.0.0.1:")
}

// TestLargeViewIsTransferred checks a transfer of many messages, each of which
// is signed.
func TestLargeViewIsTransferred(t *testing.T) {
	par := startNode(t, newRegistry(), "par1", "127.0.0.1", "0", "198.51.100.0/24", nil, 10)
	v := &View{Node: "par1", Serial: 1, Made: time.Now(), Targets: make(map[Target]Measurement)}
	const many = 5000
	for i := range many {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		v.Targets[Target{a, ""}] = Measurement{fmt.Sprintf("server%d", i), ranking.Estimate{Round: 17, Value: 12.345, Noise: 0.5}, time.Now(), latencyprobe.Up}
	}
	par.published.Store(v)
	got, err := transfer(t.Context(), "par1", testCut, par.settings.Key, par.address)
	if err != nil || len(got.Targets) != many {
		t.Fatalf("Expected %d targets, got %v", many, err)
	}
}
