package dnsb

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// signedMessage returns a signed message as it is sent over TCP.
func signedMessage(t *testing.T, m *dns.Msg, key, secret string, signed time.Time) []byte {
	t.Helper()
	m = m.Copy()
	m.SetTsig(key, dns.HmacSHA256, 300, signed.Unix())
	b, _, err := dns.TsigGenerate(m, secret, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exchange sends bytes over TCP and returns the reply.
func exchange(t *testing.T, port int, message []byte) *dns.Msg {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil { // #nosec G115 -- a message
		t.Fatal(err)
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		t.Fatalf("Expected a reply, got: %v", err)
	}
	reply := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, reply); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	return m
}

// isBadTime reports whether a reply is the signed BADTIME of RFC 8945, section
// 5.2.3.
func isBadTime(m *dns.Msg, signed time.Time) bool {
	t := m.IsTsig()
	return m.Rcode == dns.RcodeNotAuth && t != nil && t.Error == dns.RcodeBadTime && t.MACSize > 0 &&
		t.TimeSigned == uint64(signed.Unix()) && len(t.OtherData) == 12 // #nosec G115 -- positive since 1970
}

// A message that was captured changes nothing when it is sent again after another
// one, also when all are of one second, after a restart, and when the other one
// has a serial.
func TestReplayedUpdateIsRefused(t *testing.T) {
	lines := "store db " + filepath.Join(t.TempDir(), "map.db")
	signed := time.Now()
	raw := func(m *dns.Msg, at time.Time) []byte { return signedMessage(t, m, parKey, parSecret, at) }
	prefixes := func(list ...string) *dns.Msg { return sent(t, nodeAt("par1", "192.0.2.53", list...)) }
	numbered := nodeAt("par1", "192.0.2.53", "10.9.0.0/16")
	numbered.Serial = uint64(signed.Add(5*time.Second).UnixMilli() / 1000 * 1000) // #nosec G115 -- positive since 1970
	withdrawal := nodeAt("par1", "192.0.2.53").Withdrawal()
	messages := map[string][]byte{
		"first":           raw(prefixes("10.1.0.0/16"), signed),
		"second":          raw(prefixes("10.2.0.0/16"), signed),
		"withdrawal":      raw(withdrawal, signed),
		"back":            raw(prefixes("10.3.0.0/16"), signed.Add(2*time.Second)),
		"numbered":        raw(sent(t, numbered), signed.Add(5*time.Second)),
		"after numbered":  raw(prefixes("10.4.0.0/16"), signed.Add(5*time.Second)),
		"last withdrawal": raw(withdrawal, signed.Add(6*time.Second)),
		"too old":         raw(prefixes("10.5.0.0/16"), signed.Add(-301*time.Second)),
	}
	wide := prefixes("10.6.0.0/16")
	wide.SetTsig(parKey, dns.HmacSHA256, 65535, signed.Add(-310*time.Second).Unix())
	wideMessage, _, err := dns.TsigGenerate(wide, parSecret, "", false)
	if err != nil {
		t.Fatal(err)
	}
	messages["allows any age"] = wideMessage

	run := func(port int, steps ...string) {
		t.Helper()
		for _, step := range steps {
			name, refused := strings.CutPrefix(step, "!")
			reply := exchange(t, port, messages[name])
			if refused && reply.Rcode != dns.RcodeNotAuth || !refused && reply.Rcode != dns.RcodeSuccess {
				t.Errorf("%s: Expected NOTAUTH %v, got %v", name, refused, reply)
			}
			if refused && name == "first" && !isBadTime(reply, signed) {
				t.Errorf("Expected a signed BADTIME, got %v", reply)
			}
		}
	}
	shown := func(port int, want string) {
		t.Helper()
		got := ""
		for _, rr := range query(t, port, "tcp", "par1.lb."+testZone, dns.TypeAPL).Answer {
			got += rr.(*dns.APL).Prefixes[0].Network.String()
		}
		if got != want {
			t.Errorf("Expected %q, got %q", want, got)
		}
	}
	t.Run("first process", func(t *testing.T) {
		s, port := serve(t, lines)
		run(port, "!too old", "!allows any age", "first", "first", "second", "second", "!first")
		shown(port, "10.2.0.0/16")
		run(port, "withdrawal", "!first", "!second", "withdrawal")
		shown(port, "")
		if err := s.restart(lines + "\nttl 60s"); err != nil {
			t.Fatal(err)
		}
		run(port, "!first", "back", "!withdrawal")
		shown(port, "10.3.0.0/16")
	})
	_, port := serve(t, lines)
	run(port, "!first", "!withdrawal", "back", "numbered", "!back")
	shown(port, "10.9.0.0/16")
	run(port, "after numbered", "after numbered", "!back")
	shown(port, "10.4.0.0/16")
	run(port, "last withdrawal", "!after numbered", "!back", "last withdrawal")
	shown(port, "")
}

func TestReplaysWithinOneSecond(t *testing.T) {
	var r replays
	sig := func(second int64, mac string) signature {
		return signature{key: "k1.", time: time.Unix(second, 0), mac: mac}
	}
	last := uint64(0)
	for _, step := range []struct {
		name string
		sig  signature
		want uint64 // 0: a replay
	}{
		{"first", sig(100, "a"), 100_000},
		{"sent again", sig(100, "a"), 100_000},
		{"second", sig(100, "b"), 100_001},
		{"replay", sig(100, "a"), 0},
		{"older", sig(99, "x"), 0},
		{"newer", sig(101, "c"), 101_000},
		{"replay of a second ago", sig(100, "b"), 0},
	} {
		serial, err := r.serial("par1", step.sig, last)
		if err != nil {
			serial = 0
		}
		if serial != step.want {
			t.Fatalf("%s: Expected %d, got %d, %v", step.name, step.want, serial, err)
		}
		if err == nil {
			r.accept("par1", serial, last, step.sig.mac)
			last = serial
		}
	}
	r.accept("par1", 101_500, last, "") // with a serial
	if _, err := r.serial("par1", sig(101, "c"), 101_500); err == nil {
		t.Error("Expected a replay after a registration with a serial")
	}
	if serial, err := r.serial("par1", sig(101, "d"), 101_500); err != nil || serial != 101_501 {
		t.Errorf("Expected the next serial, got %d, %v", serial, err)
	}
	if serial, err := r.serial("par1", sig(101, "d"), 101_700); err != nil || serial != 101_700 {
		t.Errorf("Expected the last serial, which another server accepted, got %d, %v", serial, err)
	}
	if _, err := r.serial("par1", sig(101, "d"), 102_000); err == nil {
		t.Error("Expected a signature of the second before the last serial to be refused")
	}

	// An earlier process accepted an unknown number in the second of the last serial.
	var restarted replays
	restarted.accept("par1", 101_800, 101_700, "")
	if serial, err := restarted.serial("par1", sig(101, "d"), 101_800); err != nil || serial != 101_800 {
		t.Errorf("Expected the last serial, for the same content only, got %d, %v", serial, err)
	}
}

// What a key may not do is refused before anything else is looked at.
func TestPermissionComesFirst(t *testing.T) {
	d := started(t, "accept k1 par1 any for svc\naccept k1 nyc1 any", nil)
	par := nodeAt("par1", "192.0.2.1")
	failing := []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "nobody.lb." + testZone, Rrtype: dns.TypeANY, Class: dns.ClassANY}}}
	with := func(r *registration.Registration) *dns.Msg {
		m := sent(t, r)
		m.Answer = failing
		return m
	}
	other := nodeAt("par1", "192.0.2.1")
	other.Cuts = []string{"other." + testZone}
	broken := with(par)
	broken.Ns = append(broken.Ns, &dns.MX{Hdr: dns.RR_Header{Name: "par1.lb." + testZone, Rrtype: dns.TypeMX, Class: dns.ClassINET}, Mx: "."})
	for _, tc := range []struct {
		name, key string
		m         *dns.Msg
		want      registry.Outcome
	}{
		{"unsigned", "", with(par), unsigned},
		{"key of no accept rule", "k2.", with(par), outOfScope},
		{"key of no accept rule, empty", "k2.", &dns.Msg{Question: with(par).Question, Answer: failing}, outOfScope},
		{"node", "k1.", with(nodeAt("lon1", "192.0.2.3")), outOfScope},
		{"cut", "k1.", with(other), outOfScope},
		{"malformed", "k1.", broken, malformed},
		{"prerequisite", "k1.", with(par), prerequisiteFailed},
		{"permitted", "k1.", sent(t, par), registry.Added},
	} {
		if _, got, err := d.register(tc.m, signedNow(tc.key)); got != tc.want || (err == nil) != (tc.want == registry.Added) {
			t.Errorf("%s: Expected %s, got %s, %v", tc.name, tc.want, got, err)
		}
	}
}

// RFC 2136, section 2.5: the update section may be empty.
func TestUpdateWithoutUpdates(t *testing.T) {
	_, port := serve(t, "")
	if r := send(t, port, sent(t, nodeAt("par1", "192.0.2.53")), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected par1 to register, got %v", r)
	}
	for class, want := range map[uint16]int{0: dns.RcodeSuccess, dns.ClassANY: dns.RcodeSuccess, dns.ClassNONE: dns.RcodeYXDomain} {
		m := records(0, 0)
		if class != 0 {
			m.Answer = []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "par1.lb." + testZone, Rrtype: dns.TypeANY, Class: class}}}
		}
		if r := send(t, port, m.Copy(), parKey, parSecret); r.Rcode != want {
			t.Errorf("Expected %s, got %v", dns.RcodeToString[want], r)
		}
		if r := send(t, port, m, "", ""); r.Rcode != dns.RcodeRefused {
			t.Errorf("Expected REFUSED without a signature, got %v", r)
		}
	}
}

// A node that registers again and again waits; the others do not wait for it.
func TestNodeThatRegistersTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := started(t, "accept k1 par1 any\naccept k1 nyc1 any\naccept k2 par1 any", nil)
		attempt := func(key, node string) registry.Outcome {
			r := nodeAt(node, "192.0.2.1")
			r.Serial = uint64(time.Now().UnixMilli()) // #nosec G115 -- positive since 1970
			_, outcome, _ := d.register(sent(t, r), signedNow(key))
			return outcome
		}
		accepted := 0
		for range 3 * updatesAtOnce {
			switch outcome := attempt("k1.", "par1"); outcome {
			case registry.Added, registry.Refreshed:
				accepted++
			case tooOften:
			default:
				t.Fatalf("Expected a refusal, got %s", outcome)
			}
		}
		if accepted != updatesAtOnce {
			t.Errorf("Expected %d updates to be accepted, got %d", updatesAtOnce, accepted)
		}
		if outcome := attempt("k1.", "nyc1"); outcome != registry.Added {
			t.Errorf("Expected another node to register, got %s", outcome)
		}
		if outcome := attempt("k2.", "par1"); outcome != registry.Refreshed {
			t.Errorf("Expected another key to register the node, got %s", outcome)
		}
		time.Sleep(time.Second)
		if outcome := attempt("k1.", "par1"); outcome != registry.Refreshed {
			t.Errorf("Expected the node to register later, got %s", outcome)
		}
	})
}

// Of one key, UPDATEs are processed one at a time, and few wait.
func TestTurnsOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shares
		leave, ok := s.enter("k1.", 100)
		if !ok {
			t.Fatal("Expected the first UPDATE to be processed")
		}
		entered := make(chan func(), 1)
		go func() {
			leave, _ := s.enter("k1.", waitingCost-100)
			entered <- leave
		}()
		synctest.Wait()
		if len(entered) > 0 {
			t.Error("Expected the second UPDATE of a key to wait")
		}
		if _, ok := s.enter("k1.", 1); ok {
			t.Error("Expected too many UPDATEs of a key to be refused")
		}
		other, ok := s.enter("k2.", 100)
		if !ok {
			t.Error("Expected another key not to wait")
		}
		other()
		leave()
		(<-entered)()
		if leave, ok = s.enter("k1.", waitingCost); !ok {
			t.Fatal("Expected all to have left")
		}
		leave()
	})
}

// Deputies that cannot exist leave nothing in the tables.
func TestInventedDeputiesTakeNoMemory(t *testing.T) {
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any", nil)
	r := nodeAt("par1", "192.0.2.1")
	var names int
	for i := range 20 {
		r.Deputies = []string{"nyc1"}
		for j := range 15 {
			r.Deputies = append(r.Deputies, fmt.Sprintf("x%d-%d", i, j))
		}
		registers(t, d, r)
		if i == 0 {
			names = len(d.snapshot.Load().names)
		}
	}
	if n := len(d.snapshot.Load().names); n != names || n > 3 {
		t.Errorf("Expected as many names as after the first registration, %d, got %d", names, n)
	}
	registers(t, d, nodeAt("nyc1", "192.0.2.2"))
	if n := d.snapshot.Load().named("par1.lb." + testZone); len(n.deputies) != 1 {
		t.Errorf("Expected the deputy that exists, got %v", n.deputies)
	}
}

// Whatever a key makes up, the log has one line for each kind of refusal, of
// bounded length.
func TestLogOfRefusalsIsBounded(t *testing.T) {
	l := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		d := started(t, "accept k1 par1 10.0.0.0/8 for svc", nil)
		l.Lines()
		for i := range 200 {
			prefix := nodeAt("par1", "192.0.2.1", fmt.Sprintf("192.0.%d.0/24", i))
			cut := nodeAt("par1", "192.0.2.1")
			cut.Cuts = []string{strings.Repeat(fmt.Sprintf("c%d.", i), 30) + testZone}
			serial := nodeAt("par1", "192.0.2.1")
			serial.Serial = uint64(time.Now().Add(time.Hour).UnixMilli()) // #nosec G115 -- positive since 1970
			word := sent(t, nodeAt("par1", "192.0.2.1"))
			word.Ns = append(word.Ns, &dns.TXT{Hdr: dns.RR_Header{Name: "par1.lb." + testZone, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"v=1 serial=" + strings.Repeat("\\010x", 60)}})
			for _, m := range []*dns.Msg{
				sent(t, prefix), sent(t, cut), sent(t, nodeAt(fmt.Sprintf("n%d", i), "192.0.2.1")), sent(t, serial), word,
			} {
				if _, _, err := d.register(m, signedNow("k1.")); err == nil {
					t.Fatal("Expected a refusal")
				}
			}
			time.Sleep(time.Second)
		}
	})
	lines := l.Lines()
	if len(lines) > 5 {
		t.Errorf("Expected at most 5 lines, got %d: %s", len(lines), strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		if len(line) > 2*maxText || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\n\r\x1b") {
			t.Errorf("Expected one short line, got %q", line)
		}
	}
}

func TestTextOfSenderIsClipped(t *testing.T) {
	if got := clip("a\nb\x1b[31m\xff" + strings.Repeat("x", 1000)); got != "a?b?[31m?"+strings.Repeat("x", maxText-9)+"…" {
		t.Errorf("Expected a short line that prints, got %q", got)
	}
}

// A cut may name a node that has not registered yet.
func TestCutOfNodeThatHasNotRegistered(t *testing.T) {
	d := started(t, "accept k1 par1 any\nnode nyc1 192.0.2.9\ncut svc par1 nyc1\ncut other par1", nil)
	if got := referredTo(t, d, "10.0.0.1"); got != "nyc1" {
		t.Errorf("Expected the node that is registered, got %s", got)
	}
	if m := ask(t, d, "10.0.0.1", "www.other."+testZone, dns.TypeA); len(m.Ns) > 0 && m.Ns[0].Header().Rrtype == dns.TypeNS {
		t.Errorf("Expected no referral without a node, got %v", m)
	}
	par := nodeAt("par1", "192.0.2.1", "10.0.0.0/8")
	par.Cuts = nil
	registers(t, d, par)
	if got := referredTo(t, d, "10.0.0.1"); got != "par1" {
		t.Errorf("Expected the node that the line names, got %s", got)
	}
}

// BenchmarkConflict has the most cuts that one registration may have among the
// cuts of many nodes.
func BenchmarkConflict(b *testing.B) {
	d := started(b, "accept k1 par1 any\naccept k1 nyc1 any", nil)
	big, mine := nodeAt("nyc1", "192.0.2.2"), nodeAt("par1", "192.0.2.1")
	big.Cuts, mine.Cuts = nil, nil
	for i := range 10_000 {
		big.Cuts = append(big.Cuts, fmt.Sprintf("a.c%d.%s", i, testZone))
	}
	for i := range 1000 {
		mine.Cuts = append(mine.Cuts, fmt.Sprintf("a.d%d.%s", i, testZone))
	}
	registers(b, d, big)
	registers(b, d, mine)
	for i := range mine.Cuts {
		mine.Cuts[i] = mine.Cuts[i][2:] // above those registered
	}
	s := d.snapshot.Load()
	for b.Loop() {
		if err := s.conflict(mine); err != nil {
			b.Fatal(err)
		}
	}
}

// Names have no case; those of keys are known in the usual ones.
func TestKeyNameInOtherCase(t *testing.T) {
	_, port := serve(t, "accept Nyc1.Key. other any")
	for _, tc := range []struct {
		key, secret, node string
		want              int
	}{
		{"PAR1.KEY.", parSecret, "par1", dns.RcodeSuccess},
		{"Nyc1.Key.", nycSecret, "nyc1", dns.RcodeSuccess},
		{"par1.KEY.", parSecret, "par1", dns.RcodeNotAuth}, // see docs/registration.md
	} {
		b := signedMessage(t, sent(t, nodeAt(tc.node, "192.0.2.1")), tc.key, tc.secret, time.Now())
		r := exchange(t, port, b)
		if r.Rcode != tc.want || r.IsTsig() == nil || tc.want == dns.RcodeSuccess && r.IsTsig().MACSize == 0 {
			t.Errorf("%s: Expected %s, signed, got %v", tc.key, dns.RcodeToString[tc.want], r)
		}
	}
}

// A node that registers ahead of the clock is let in again by 'forget'.
func TestForgetResetsSerialAheadOfClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := filepath.Join(t.TempDir(), "admin")
		d := started(t, "accept k1 par1 any\nadmin "+admin, nil)
		serial := func() uint64 { return uint64(time.Now().UnixMilli()) } // #nosec G115 -- positive since 1970
		r := nodeAt("par1", "192.0.2.1")
		r.Serial = serial() + 240_000
		if _, _, err := d.register(sent(t, r), signedNow("k1.")); err != nil {
			t.Fatal(err)
		}
		r.Serial = serial() + 1
		if _, outcome, _ := d.register(sent(t, r), signedNow("k1.")); outcome != registry.WrongSerial {
			t.Fatalf("Expected the node to be refused, got %s", outcome)
		}
		writeMap(t, admin, "forget par1 until "+time.Now().Add(time.Hour).Format(time.RFC3339)+" reason clock\n")
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.snapshot.Load().named("par1.lb."+testZone) == nil {
			t.Error("Expected the live node to stay")
		}
		r.Serial = serial()
		if _, _, err := d.register(sent(t, r), signedNow("k1.")); err != nil {
			t.Errorf("Expected the node to register, got: %v", err)
		}
	})
}
