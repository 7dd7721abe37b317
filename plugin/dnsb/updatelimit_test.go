package dnsb

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

// records returns an UPDATE with so many records in its sections.
func records(prerequisites, updates int) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(testZone)
	m.Compress = true
	for range prerequisites {
		m.Answer = append(m.Answer, &dns.ANY{Hdr: dns.RR_Header{Name: testZone, Rrtype: dns.TypeANY, Class: dns.ClassANY}})
	}
	for range updates {
		m.Ns = append(m.Ns, &dns.NS{Hdr: dns.RR_Header{Name: "svc." + testZone, Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "par1.lb." + testZone})
	}
	return m
}

func headerOf(m *dns.Msg) dns.Header {
	return dns.Header{
		Bits: uint16(m.Opcode) << 11, Qdcount: uint16(len(m.Question)), // #nosec G115 -- small
		Ancount: uint16(len(m.Answer)), Nscount: uint16(len(m.Ns)), Arcount: uint16(len(m.Extra)), // #nosec G115 -- small
	}
}

// TestHeaderLimitsUpdates checks what is decided before a message is unpacked.
func TestHeaderLimitsUpdates(t *testing.T) {
	l := logtest.Capture(t)
	decide := acceptUpdates(func(h dns.Header) dns.MsgAcceptAction {
		if opcode(h.Bits) == dns.OpcodeUpdate {
			return dns.MsgRejectNotImplemented // CoreDNS accepts it, if a block wants it
		}
		return dns.MsgAccept
	})
	query := new(dns.Msg).SetQuestion(testZone, dns.TypeA)
	additional := records(0, 1)
	additional.Extra = make([]dns.RR, maxAdditional+1)
	check := func(name string, m *dns.Msg, want dns.MsgAcceptAction) {
		t.Helper()
		if got := decide(headerOf(m)); got != want {
			t.Errorf("%s: Expected %d, got %d", name, want, got)
		}
	}
	check("no zone that is limited", records(maxPrerequisites+1, 0), dns.MsgRejectNotImplemented)
	synctest.Test(t, func(t *testing.T) { // the budget for waste grows all the time
		limited.Add(1)
		defer limited.Add(-1)
		all := waste
		waste = rate.NewLimiter(wastePerSecond, wasteAtOnce)
		defer func() { waste = all }()

		check("most records", records(maxPrerequisites, maxUpdates), dns.MsgRejectNotImplemented)
		check("prerequisites", records(maxPrerequisites+1, 0), dns.MsgReject)
		check("updates", records(0, maxUpdates+1), dns.MsgReject)
		check("additional records", additional, dns.MsgReject)
		check("query", query, dns.MsgAccept)

		ignoring = reminder.Keyed{}
		before := testutil.ToFloat64(ignoredCount)
		wasted(wasteAtOnce)
		wasted(wastePerSecond / 10)
		check("after waste", records(0, 1), dns.MsgIgnore)
		check("again after waste", records(0, 1), dns.MsgIgnore)
		check("query after waste", query, dns.MsgAccept)
		if n := testutil.ToFloat64(ignoredCount) - before; n != 2 {
			t.Errorf("Expected two ignored updates to be counted, got %v", n)
		}
		l.Expect(t, "Ignored an update, and ignoring others while so many are refused")
		time.Sleep(150 * time.Millisecond)
		check("later", records(0, 1), dns.MsgRejectNotImplemented)

		invalid := countInvalid(func([]byte, error) {})
		wasted(wasteAtOnce - wastePerSecond/10)
		large, err := records(0, maxUpdates).Pack()
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			invalid(large, dns.ErrBuf)
		}
		check("after messages that cannot be unpacked", records(0, 1), dns.MsgIgnore)
	})
}

// UPDATEs that nobody may send do not take the CPU: while they flood the server,
// most are ignored, and queries are answered.
func TestFloodOfUnsignedUpdatesIsIgnored(t *testing.T) {
	all := waste
	waste = rate.NewLimiter(0, wasteAtOnce) // however long the flood takes on a busy machine
	t.Cleanup(func() { waste = all })
	_, port := serve(t, "")
	m := records(0, maxUpdates)
	replies, ignored := 0, testutil.ToFloat64(ignoredCount)
	for testutil.ToFloat64(ignoredCount) == ignored && replies < 200 {
		if r := replyUnless(t, port, m, func() bool { return testutil.ToFloat64(ignoredCount) > ignored }); r != nil {
			if replies++; r.Rcode != dns.RcodeRefused {
				t.Fatalf("Expected REFUSED, got %v", r)
			}
		}
	}
	if cost := updateCost(m); replies < wasteAtOnce/cost/2 || replies > 2*wasteAtOnce/cost {
		t.Errorf("Expected the flood to be ignored after some %d messages, got %d", wasteAtOnce/cost, replies)
	}
	if r := query(t, port, "tcp", testZone, dns.TypeSOA); r.Rcode != dns.RcodeSuccess {
		t.Errorf("Expected an answer during the flood, got %v", r)
	}
}

// replyUnless sends a message over TCP and returns the reply, or nil if the server
// ignores it.
func replyUnless(t *testing.T, port int, m *dns.Msg, ignored func() bool) *dns.Msg {
	t.Helper()
	conn, err := (&dns.Client{Net: "tcp", Timeout: patience}).Dial(fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	replies := make(chan *dns.Msg, 1)
	go func() {
		r, _ := conn.ReadMsg() // nil: this function has closed the connection
		replies <- r
	}()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		select {
		case r := <-replies:
			return r
		case <-time.After(time.Millisecond):
			if ignored() {
				return nil
			}
		}
	}
	t.Fatal("Expected a reply, or that the message is ignored")
	return nil
}

// Also the holder of a key pays for what comes to nothing.
func TestRefusedUpdateIsWaste(t *testing.T) {
	all := waste
	waste = rate.NewLimiter(1, wasteAtOnce)
	t.Cleanup(func() { waste = all })
	_, port := serve(t, "")
	for _, tc := range []struct {
		name  string
		m     *dns.Msg
		rcode int
	}{
		{"accepted", sent(t, nodeAt("par1", "192.0.2.53")), dns.RcodeSuccess},
		{"not permitted", sent(t, nodeAt("nyc1", "192.0.2.53")), dns.RcodeRefused},
		{"malformed", records(0, maxUpdates), dns.RcodeRefused},
	} {
		before := waste.Tokens()
		if r := send(t, port, tc.m.Copy(), parKey, parSecret); r.Rcode != tc.rcode {
			t.Errorf("%s: Expected %s, got %v", tc.name, dns.RcodeToString[tc.rcode], r)
		}
		charged, cost := before-waste.Tokens(), float64(updateCost(tc.m))
		if tc.rcode == dns.RcodeSuccess && charged > 0 || tc.rcode != dns.RcodeSuccess && charged < cost/2 {
			t.Errorf("%s: Expected nothing, or some %v if refused, got %v", tc.name, cost, charged)
		}
	}
}

func TestHIPRecordsOfQueriesStayPacked(t *testing.T) {
	if dns.TypeToRR[dns.TypeHIP] != nil {
		t.Error("Expected HIP records to be of an unknown type")
	}
}

func TestUpdateWithTooManyRecords(t *testing.T) {
	_, port := serve(t, "")
	for _, m := range []*dns.Msg{records(maxPrerequisites+1, 0), records(0, maxUpdates+1)} {
		r, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(m, fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil || r.Rcode != dns.RcodeFormatError {
			t.Errorf("Expected FORMERR, got %v, %v", r, err)
		}
	}
}

func TestUpdateFromOtherAddressIsRefused(t *testing.T) {
	s, port := serve(t, "update-from 192.0.2.0/24 2001:db8::/32")
	for _, step := range []struct {
		lines string
		want  int
	}{{"", dns.RcodeRefused}, {"update-from 192.0.2.0/24\nupdate-from 127.0.0.0/8", dns.RcodeSuccess}, {"lease 1m 1h", dns.RcodeSuccess}} {
		if step.lines != "" {
			if err := s.restart(strings.Replace(step.lines, "lease 1m 1h", "", 1)); err != nil {
				t.Fatal(err)
			}
		}
		r := send(t, port, sent(t, nodeAt("par1", "192.0.2.53")), parKey, parSecret)
		if r.Rcode != step.want {
			t.Errorf("%q: Expected %s, got %v", step.lines, dns.RcodeToString[step.want], r)
		}
		if opt := r.IsEdns0(); step.want == dns.RcodeRefused && (opt == nil || !strings.Contains(opt.String(), "update-from")) {
			t.Errorf("Expected the reason, got %v", opt)
		}
		if r.IsTsig() == nil {
			t.Error("Expected a signed reply to a signed update")
		}
	}
	if r := query(t, port, "udp", testZone, dns.TypeSOA); r.Rcode != dns.RcodeSuccess {
		t.Errorf("Expected an answer, got %v", r)
	}
}

// An UPDATE is none of the plugins' that act on the type of a question.
func TestUpdateOfOtherZoneTypeIsMalformed(t *testing.T) {
	_, port := serve(t, "}\ntransfer {\n to *")
	for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR, dns.TypeANY, dns.TypeA} {
		m := records(0, 0)
		m.Question[0].Qtype = qtype
		for _, key := range []string{"", parKey} {
			if r := send(t, port, m.Copy(), key, parSecret); r.Rcode != dns.RcodeFormatError || len(r.Answer) > 0 || (r.IsTsig() != nil) != (key != "") {
				t.Errorf("%s signed by %q: Expected FORMERR, signed if the update was, got %v", dns.Type(qtype), key, r)
			}
		}
	}
}
