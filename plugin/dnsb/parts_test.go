package dnsb

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// largeNode returns a registration of par1 with so many prefixes.
func largeNode(n int) *registration.Registration {
	r := nodeAt("par1", "192.0.2.53", "127.0.0.0/8")
	for i := range n - 1 {
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), byte(i << 4)}), 28)})
	}
	return r
}

// A signed registration of 100,000 prefixes over TCP is invisible until its last
// part has arrived, and outlives a restart.
func TestPartsOverTheWire(t *testing.T) {
	const prefixes = 100_000
	store := "store db " + filepath.Join(t.TempDir(), "map.db")
	r := largeNode(prefixes)
	r.Serial, r.Lease = uint64(time.Now().UnixMilli()), time.Hour
	messages, err := r.Messages()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("first", func(t *testing.T) {
		_, port := serve(t, store)
		if r := send(t, port, sent(t, nodeAt("nyc1", "192.0.2.54")), nycKey, nycSecret); r.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected nyc1 to register, got %v", r)
		}
		if len(messages) < 10 {
			t.Fatalf("Expected many parts, got %d", len(messages))
		}
		if r := send(t, port, messages[1].Copy(), nycKey, nycSecret); r.Rcode != dns.RcodeRefused {
			t.Errorf("Expected a part by another key to be REFUSED, got %v", r)
		}
		for i, m := range slices.Backward(messages) {
			if got := referral(t, port); got != "nyc1" {
				t.Fatalf("Expected nothing of par1 before part %d, got %s", i, got)
			}
			reply := send(t, port, m, parKey, parSecret)
			if granted, ok := registration.GrantedLease(reply); reply.Rcode != dns.RcodeSuccess || !ok || granted != time.Hour {
				t.Fatalf("Expected part %d to be taken for an hour, got %v", i, reply)
			}
		}
		shown(t, port, messages, r.Prefixes)

		// A part out of scope changes nothing.
		wider := *r
		wider.Serial++
		wider.Prefixes = append(slices.Clone(wider.Prefixes), nodeAt("x", "192.0.2.1", "203.0.113.0/24").Prefixes...)
		next, err := wider.Messages()
		if err != nil {
			t.Fatal(err)
		}
		last := send(t, port, next[len(next)-1], parKey, parSecret)
		if opt := last.IsEdns0(); last.Rcode != dns.RcodeRefused || opt == nil || !strings.Contains(opt.String(), "may not claim the prefix 203.0.113.0/24") {
			t.Errorf("Expected the part out of scope to be REFUSED, got %v", last)
		}
		if got := referral(t, port); got != "par1" {
			t.Errorf("Expected the registration to stay, got %s", got)
		}
	})
	_, port := serve(t, store)
	shown(t, port, messages, r.Prefixes)

	time.Sleep(time.Second) // without a serial, the second of the signature counts
	small := nodeAt("par1", "192.0.2.53", "127.0.0.0/8")
	if r := send(t, port, sent(t, small), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected a small registration in the place of the large one, got %v", r)
	}
	if r := query(t, port, "tcp", "1.par1.lb.gslb.example.org.", dns.TypeAPL); r.Rcode != dns.RcodeNameError {
		t.Errorf("Expected the names of parts to be gone, got %v", r)
	}
	if r := query(t, port, "udp", "par1.lb.gslb.example.org.", dns.TypeAPL); len(r.Answer) != 1 {
		t.Errorf("Expected the prefixes at the node's name, got %v", r)
	}
}

// shown checks that the zone has par1 with its prefixes in parts.
func shown(t *testing.T, port int, messages []*dns.Msg, prefixes []registration.Prefix) {
	t.Helper()
	if got := referral(t, port); got != "par1" {
		t.Fatalf("Expected par1, got %s", got)
	}
	if r := query(t, port, "tcp", "par1.lb.gslb.example.org.", dns.TypeTXT); len(r.Answer) != 1 || !strings.Contains(r.Answer[0].String(), fmt.Sprintf("parts=%d", len(messages))) {
		t.Errorf("Expected the number of parts, got %v", r.Answer)
	}
	if r := query(t, port, "udp", "0.par1.lb.gslb.example.org.", dns.TypeAPL); !r.Truncated {
		t.Errorf("Expected TC over UDP, got %d records", len(r.Answer))
	}
	var items []string
	for i := range messages {
		r := query(t, port, "tcp", registration.PartName(i, "par1", testZone), dns.TypeAPL)
		if r.Truncated {
			t.Fatalf("Expected part %d to fit over TCP", i)
		}
		for _, rr := range r.Answer {
			for _, item := range rr.(*dns.APL).Prefixes {
				items = append(items, item.Network.String())
			}
		}
	}
	if len(items) != len(prefixes) || items[len(items)-1] != prefixes[len(prefixes)-1].String() {
		t.Errorf("Expected %d prefixes in their order, got %d", len(prefixes), len(items))
	}
}

// Parts that arrived before a reload may only be completed if the key may still
// register them.
func TestPartsOverAReload(t *testing.T) {
	z := newZone(testZone)
	d := startedWith(t, z, "accept k1 par1 10.0.0.0/8 11.0.0.0/8", nil)
	first, second := nodeAt("par1", "192.0.2.1", "10.0.0.0/8"), nodeAt("par1", "192.0.2.1", "11.0.0.0/8")
	first.Serial, first.Parts = 7, 2
	second.Serial, second.Part, second.Parts, second.Addresses, second.Cuts = 7, 1, 2, nil, nil
	if _, got, err := d.register(sent(t, second), signature{key: "k1.", time: time.Now()}); got != partial || err != nil {
		t.Fatalf("Expected a part, got %s, %v", got, err)
	}
	d = startedWith(t, z, "accept k1 par1 10.0.0.0/8", nil)
	if _, got, err := d.register(sent(t, first), signature{key: "k1.", time: time.Now()}); got != outOfScope || err == nil {
		t.Errorf("Expected the registration to be refused, got %s, %v", got, err)
	}
	if rec := z.registry.State().Records["par1"]; rec != nil {
		t.Errorf("Expected nothing to be registered, got %+v", rec)
	}
}

// The parts of two keys are never one registration: each may register something
// else.
func TestPartsOfTwoKeysAreNotJoined(t *testing.T) {
	d := started(t, "accept k1 par1 10.0.0.0/8 for svc\naccept k2 par1 11.0.0.0/8", nil)
	part := func(n int, prefix string) *dns.Msg {
		r := nodeAt("par1", "192.0.2.1", prefix)
		r.Serial, r.Part, r.Parts = 7, n, 2
		if n > 0 {
			r.Addresses, r.Cuts = nil, nil
		}
		return sent(t, r)
	}
	for _, step := range []struct {
		key  string
		m    *dns.Msg
		want registry.Outcome
	}{
		{"k1.", part(0, "10.0.0.0/8"), partial},
		{"k2.", part(1, "11.0.0.0/8"), partial},
		{"k1.", part(1, "10.1.0.0/16"), registry.Added},
	} {
		if _, got, err := d.register(step.m, signedNow(step.key)); got != step.want || err != nil {
			t.Errorf("%s: Expected %s, got %s, %v", step.key, step.want, got, err)
		}
	}
	if rec := d.registry.State().Records["par1"]; rec == nil || len(rec.Prefixes) != 2 || rec.Prefixes[1].String() != "10.1.0.0/16" {
		t.Errorf("Expected the registration of one key, got %+v", rec)
	}
}
