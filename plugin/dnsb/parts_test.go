package dnsb

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

func TestCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRegistry()
		defer g.close()
		now := uint64(time.Now().UnixMilli())
		part := func(serial uint64, part, parts int, prefixes ...string) *registration.Registration {
			r := nodeAt("par1", "192.0.2.1", prefixes...)
			if part > 0 {
				r.Addresses, r.Cuts = nil, nil
			}
			r.Serial, r.Part, r.Parts = serial, part, parts
			return r
		}
		pending := func() int {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.unfinished)
		}
		// send does what an UPDATE does; it returns what became of it.
		send := func(r *registration.Registration) string {
			if r.Parts > 0 {
				whole, err := g.collect(r)
				if err != nil {
					return err.Error()
				}
				if whole == nil {
					return "kept"
				}
				r = whole
			}
			result, err := g.apply(r, time.Hour)
			if err != nil {
				return err.Error()
			}
			return string(result)
		}
		for _, step := range []struct {
			name string
			r    *registration.Registration
			want string
			here string // prefixes of the node
		}{
			{"part 1 first", part(now, 1, 3, "10.1.0.0/16"), "kept", "none"},
			{"part 2", part(now, 2, 3, "10.2.0.0/16"), "kept", "none"},
			{"part 2 again", part(now, 2, 3, "10.2.0.0/16"), "kept", "none"},
			{"part 2 with other content", part(now, 2, 3, "10.3.0.0/16"), "other content", "none"},
			{"other number of parts", part(now, 0, 4, "10.0.0.0/16"), "has 3 parts, and not 4", "none"},
			{"last part", part(now, 0, 3, "10.0.0.0/16"), "new", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"part again when all are there", part(now, 1, 3, "10.1.0.0/16"), "kept", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"part 0 again when all are there", part(now, 0, 3, "10.0.0.0/16"), "kept", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"other part when all are there", part(now, 1, 3, "10.9.0.0/16"), "other content", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"older part", part(now-1, 1, 2, "10.9.0.0/16"), "is older than", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"part ahead of the clock", part(now+300_001, 1, 2, "10.9.0.0/16"), "ahead of the clock", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"unfinished", part(now+5, 0, 2, "11.0.0.0/16"), "kept", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"older than the unfinished one", part(now+4, 1, 2, "11.1.0.0/16"), "of which parts are here", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"newer than the unfinished one", part(now+6, 1, 2, "12.1.0.0/16"), "kept", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"too late for the one before", part(now+5, 1, 2, "11.1.0.0/16"), "of which parts are here", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"whole between parts, older", func() *registration.Registration { r := part(now+5, 0, 0, "13.0.0.0/8"); return r }(), "change", "13.0.0.0/8"},
			{"rest of the newer", part(now+6, 0, 2, "12.0.0.0/16"), "change", "12.0.0.0/16 12.1.0.0/16"},
			{"unfinished again", part(now+7, 0, 2, "14.0.0.0/16"), "kept", "12.0.0.0/16 12.1.0.0/16"},
			{"whole, newer", part(now+8, 0, 0, "15.0.0.0/8"), "change", "15.0.0.0/8"},
			{"rest of the older", part(now+7, 1, 2, "14.1.0.0/16"), "is older than", "15.0.0.0/8"},
			{"both ways 0", part(now+9, 0, 2, "16.0.0.0/8"), "kept", "15.0.0.0/8"},
			{"both ways 1", part(now+9, 1, 2, "!16.0.0.0/8"), "16.0.0.0/8 and !16.0.0.0/8", "15.0.0.0/8"},
			{"unfinished before a withdrawal", part(now+10, 0, 2, "17.0.0.0/8"), "kept", "15.0.0.0/8"},
			{"withdrawal", &registration.Registration{Zone: testZone, Node: "par1", Serial: now + 11}, "withdrawal", "none"},
			{"rest behind a withdrawal", part(now+10, 1, 2, "18.0.0.0/8"), "is older than", "none"},
			{"part of a withdrawn serial", part(now+11, 1, 2, "18.0.0.0/8"), "other content", "none"},
			{"refresh in parts 0", part(now+12, 0, 2, "17.0.0.0/8"), "kept", "none"},
			{"refresh in parts 1", part(now+12, 1, 2, "18.0.0.0/8"), "new", "17.0.0.0/8 18.0.0.0/8"},
			{"refresh in parts 0", part(now+13, 0, 2, "17.0.0.0/8"), "kept", "17.0.0.0/8 18.0.0.0/8"},
			{"refresh in parts 1", part(now+13, 1, 2, "18.0.0.0/8"), "refresh", "17.0.0.0/8 18.0.0.0/8"},
		} {
			if got := send(step.r); !strings.Contains(got, step.want) {
				t.Errorf("%s: Expected %q, got %q", step.name, step.want, got)
			}
			here := "none"
			if rec := g.state().records["par1"]; rec != nil {
				here = strings.Trim(fmt.Sprint(rec.Prefixes), "[]")
			}
			if here != step.here {
				t.Errorf("%s: Expected the node to have %s, got %s", step.name, step.here, here)
			}
		}
		if n := pending(); n != 0 {
			t.Errorf("Expected nothing unfinished, got %d", n)
		}

		send(part(now+20, 0, 2, "20.0.0.0/8"))
		time.Sleep(partsTime - time.Second)
		send(part(now+21, 0, 2, "21.0.0.0/8"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := pending(); n != 1 {
			t.Errorf("Expected the newer parts to have their own time, got %d", n)
		}
		time.Sleep(partsTime)
		synctest.Wait()
		if n := pending(); n != 0 {
			t.Errorf("Expected unfinished parts to be dropped after %s, got %d", partsTime, n)
		}
		if got := send(part(now+21, 1, 2, "22.0.0.0/8")); got != "kept" || len(g.state().records["par1"].Prefixes) != 2 {
			t.Errorf("Expected a late part to complete nothing, got %s", got)
		}
	})
}

// largeNode returns a registration of par1 with so many prefixes.
func largeNode(n int) *registration.Registration {
	r := nodeAt("par1", "192.0.2.53", "127.0.0.0/8")
	for i := range n - 1 {
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 12), byte(i >> 4), byte(i << 4)}), 28)})
	}
	return r
}

// A registration of 100,000 prefixes, over TCP and signed, is nowhere to be seen
// until its last part is there, and outlives a restart.
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

		// A part out of scope leaves what is there alone.
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

// shown checks that par1 and its prefixes are seen in parts.
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
