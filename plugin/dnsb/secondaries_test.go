package dnsb

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status/pagetest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// secondaryAt is a secondary that answers NOTIFY with an RCODE. It returns its port.
func secondaryAt(t *testing.T, rcode int) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", testport.Free(t)))
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
	return port
}

// TestSecondaries has secondaries be notified and transfer the zone, and reads what the
// state says of them.
func TestSecondaries(t *testing.T) {
	accepts, refuses := secondaryAt(t, dns.RcodeSuccess), secondaryAt(t, dns.RcodeRefused)
	_, port := serve(t, "}\ntransfer {\nto 127.0.0.1:"+accepts+" 127.0.0.1:"+refuses)
	state := func() *Secondaries { return runningZone(testZone).youngest.Load().State().Secondaries }
	transfer := func(from string, m *dns.Msg) error {
		tr := &dns.Transfer{}
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		defer conn.Close()
		tr.Conn = &dns.Conn{Conn: conn}
		messages, err := tr.In(m, "")
		if err != nil {
			return err
		}
		for message := range messages {
			err = errors.Join(err, message.Error)
		}
		return err
	}
	axfr := new(dns.Msg).SetAxfr(testZone)
	if got := state(); len(got.Transfers) > 0 {
		t.Errorf("Expected no transfer, got %+v", got)
	}
	if err := transfer("127.0.0.2", axfr); err == nil || len(state().Transfers) > 0 {
		t.Errorf("Expected another server to be refused and not noted, got %v, %+v", err, state())
	}
	if err := transfer("127.0.0.1", axfr); err != nil {
		t.Fatal(err)
	}
	serial := runningZone(testZone).youngest.Load().State().Serial
	if got := state().Transfers; len(got) != 1 || got[0].Address != netip.MustParseAddr("127.0.0.1") || got[0].Serial != serial || time.Since(got[0].At) > patience {
		t.Errorf("Expected the transfer of serial %d, got %+v", serial, got)
	}

	before := state().Transfers[0].At
	ixfr := new(dns.Msg).SetIxfr(testZone, serial, "b1."+testZone, "hostmaster."+testZone)
	if err := transfer("127.0.0.1", ixfr); err != nil {
		t.Fatal(err)
	}
	if got := state().Transfers; len(got) != 1 || !got[0].At.After(before) || got[0].Serial != serial {
		t.Errorf("Expected a server that is current to be noted, got %+v", got)
	}

	for end := time.Now().Add(patience); state().Notified.IsZero() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if got := state(); got.Notified.IsZero() || len(got.NotifyErrors) != 1 || !strings.Contains(got.NotifyErrors[0], "127.0.0.1:"+refuses) || !strings.Contains(got.NotifyErrors[0], "REFUSED") {
		t.Errorf("Expected the secondary that refuses NOTIFY, got %+v", got)
	}
}

func TestCopiesAreBounded(t *testing.T) {
	var c copies
	for i := range 2 * maxSecondaries {
		c.note(ZoneServed{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Serial: uint32(i)}) // #nosec G115 -- few
	}
	if got := c.status().Transfers; len(got) != maxSecondaries || got[0].Serial != 2*maxSecondaries-1 || got[maxSecondaries-1].Serial != maxSecondaries {
		t.Errorf("Expected the last %d, the newest first, got %v", maxSecondaries, got)
	}
	c.notedRound(errors.New("one"))
	if got := c.status(); !slices.Equal(got.NotifyErrors, []string{"one"}) {
		t.Errorf("Expected an error that is not joined, got %v", got)
	}
}

// TestNoSecondaries checks that the state has none without the plugin that transfers.
func TestNoSecondaries(t *testing.T) {
	serve(t, "")
	if s := runningZone(testZone).youngest.Load().State(); s.Secondaries != nil || s.Servers != nil {
		t.Errorf("Expected neither secondaries nor other servers, got %+v, %+v", s.Secondaries, s.Servers)
	}
}

// TestPageOfCopies checks what the page says of secondaries, and of other servers with
// the same store.
func TestPageOfCopies(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name  string
		state State
		want  string // text of the list or of the paragraph after the heading
	}{
		{"no secondaries", State{}, ""},
		{"none yet", State{Secondaries: &Secondaries{}}, "None has transferred the zone since the start."},
		{"current", State{Serial: 7, Secondaries: &Secondaries{Transfers: []ZoneServed{{netip.MustParseAddr("192.0.2.9"), 7, now}}}}, "192.0.2.9 ● current serial 7, transferred 0 s ago"},
		{"older", State{Serial: 8, Secondaries: &Secondaries{Transfers: []ZoneServed{{netip.MustParseAddr("192.0.2.9"), 7, now}}}}, "192.0.2.9 ▲ older serial 7, transferred 0 s ago"},
		{"notified", State{Secondaries: &Secondaries{Notified: now}}, "● NOTIFY accepted 0 s ago"},
		{"not notified", State{Secondaries: &Secondaries{Notified: now, NotifyErrors: []string{"timeout of b", "timeout of c"}}}, "▲ NOTIFY not accepted 0 s ago“timeout of b”“timeout of c”"},
		{"alone", State{Servers: &Servers{Read: now}}, "None: this one is alone."},
		{"store away", State{Servers: &Servers{}}, "Not known: the store cannot be read."},
		{"two", State{Servers: &Servers{now, []registry.Server{{Name: "b2.gslb.example.org.", Host: "two", Version: "1.2.3", Started: now}}}}, "b2.gslb.example.org. on two, started 0 s ago, 1.2.3"},
	} {
		page := pageOf(tc.state)
		got := slices.Concat(pagetest.Texts(t, page, "p", ""), pagetest.Texts(t, page, "li", ""), pagetest.Texts(t, page, "p", "dim"), pagetest.Texts(t, page, "li", "free"))
		if tc.want != "" && !slices.Contains(got, tc.want) {
			t.Errorf("%s: Expected %q, got %q", tc.name, tc.want, got)
		}
		if headings := strings.Join(pagetest.Texts(t, page, "h3", ""), "\n"); strings.Contains(headings, "Secondaries") != (tc.state.Secondaries != nil) || strings.Contains(headings, "Other DNS-Bs") != (tc.state.Servers != nil) {
			t.Errorf("%s: Expected a heading for each part of the state and no other, got %q", tc.name, headings)
		}
	}
}

// TestNodesFetchMapBesideTransfer checks that a node gets the map where *transfer*
// allows transfers to secondaries alone, and *acl* none by type, and others get nothing.
func TestNodesFetchMapBesideTransfer(t *testing.T) {
	_, port := serve(t, "}\ntransfer {\nto 192.0.2.9\n}\nacl {\nblock type AXFR")
	reg := nodeAt("par1", "192.0.2.53", "198.51.100.0/24")
	reg.Serial = uint64(time.Now().UnixMilli()) // #nosec G115 -- since 1970
	if r := send(t, port, sent(t, reg), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected par1 to register, got %v", r)
	}
	fetch := func(m *dns.Msg) (records int, err error) {
		tr := &dns.Transfer{TsigSecret: map[string]string{parKey: parSecret}}
		messages, err := tr.In(m, fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return 0, err
		}
		for message := range messages {
			records, err = records+len(message.RR), errors.Join(err, message.Error)
		}
		return records, err
	}
	signed := func(name string) *dns.Msg {
		return new(dns.Msg).SetAxfr(name).SetTsig(parKey, dns.HmacSHA256, 300, time.Now().Unix())
	}
	fetched := 0
	for end := time.Now().Add(patience); fetched == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // until the map is made
		fetched, _ = fetch(signed("_map.svc." + testZone))
	}
	if fetched < 3 {
		t.Errorf("Expected the map, got %d records", fetched)
	}
	for name, m := range map[string]*dns.Msg{"the map, unsigned": new(dns.Msg).SetAxfr("_map.svc." + testZone), "the zone": signed(testZone), "a cut": signed("svc." + testZone)} {
		if n, err := fetch(m); err == nil {
			t.Errorf("Expected no transfer of %s, got %d records", name, n)
		}
	}
}
