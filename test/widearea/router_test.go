package widearea

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	parAddr  = netip.MustParseAddr("192.0.2.1")
	nycAddr  = netip.MustParseAddr("192.0.2.2")
	nycAddr6 = netip.MustParseAddr("2001:db8::2")
)

func twoCities(t *testing.T, ms float64) *Matrix {
	t.Helper()
	m, err := NewMatrix([]string{"Paris", "NewYork"}, [][]float64{{0, ms}, {ms, 0}})
	if err != nil {
		t.Fatalf("Expected a matrix, got %v", err)
	}
	return m
}

// packetTo returns a packet with the fields that a Router reads, and a number
// after the header.
func packetTo(to netip.Addr, number uint32) []byte {
	size := 20
	if to.Is6() {
		size = 40
	}
	p := make([]byte, size+4)
	if to.Is6() {
		p[0] = 6 << 4
		copy(p[24:], to.AsSlice())
	} else {
		p[0] = 4<<4 | 5
		copy(p[16:], to.AsSlice())
	}
	binary.BigEndian.PutUint32(p[size:], number)
	return p
}

func numberOf(p []byte) uint32 { return binary.BigEndian.Uint32(p[len(p)-4:]) }

func TestRouterDelaysPackets(t *testing.T) {
	start := time.Unix(1000, 0)
	now := start
	r := NewRouter(twoCities(t, 80), 1)
	got := make(map[uint32]time.Duration)
	par := r.Attach("Paris", func([]byte) { t.Error("Expected no packet for Paris") }, parAddr)
	nyc := r.Attach("NewYork", func(p []byte) { got[numberOf(p)] = now.Sub(start) }, nycAddr, nycAddr6)
	nyc2 := r.Attach("NewYork", func([]byte) {}, netip.MustParseAddr("192.0.2.3"))

	sent := packetTo(nycAddr, 1)
	r.Receive(now, par, sent)
	clear(sent) // the router has a copy
	r.Receive(now.Add(3*time.Millisecond), par, packetTo(nycAddr6, 2))
	r.SetMatrix(r.Matrix().With("Paris", "NewYork", 20*time.Millisecond))
	r.Receive(now.Add(5*time.Millisecond), par, packetTo(nycAddr, 3))
	r.Receive(now, nyc2, packetTo(nycAddr, 4))
	r.Receive(now, par, packetTo(netip.MustParseAddr("203.0.113.1"), 5))
	r.Receive(now, par, nil)
	r.Receive(now, par, []byte{4 << 4})
	r.Receive(now, par, []byte{6 << 4})

	var steps []time.Duration
	for {
		next, ok := r.Deliver(now)
		if !ok {
			break
		}
		if !next.After(now) {
			t.Fatalf("Expected the packets that are due at %v to be delivered", next)
		}
		now = next
		steps = append(steps, now.Sub(start))
		if early, ok := r.Deliver(now.Add(-1)); !ok || !early.Equal(now) {
			t.Errorf("Expected the next packet at %v, got %v, %v", now, early, ok)
		}
	}
	want := map[uint32]time.Duration{
		1: 40 * time.Millisecond,
		2: 43 * time.Millisecond,
		3: 15 * time.Millisecond, // overtakes the others on the shorter path
		4: Local / 2,
	}
	if len(got) != len(want) {
		t.Errorf("Expected packets at %v, got %v", want, got)
	}
	for number, at := range want {
		if got[number] != at {
			t.Errorf("Expected packet %d after %v, got %v", number, at, got[number])
		}
	}
	if sent, none := par.Sent(nyc), par.Sent(nyc2); sent != 3 || none != 0 {
		t.Errorf("Expected 3 packets from Paris to New York and none to the other host, got %d and %d", sent, none)
	}
	if len(steps) != len(want) {
		t.Errorf("Expected %d times of delivery, got %v", len(want), steps)
	}
}

func TestRouterKeepsOrderOfPackets(t *testing.T) {
	now := time.Unix(1000, 0)
	r := NewRouter(twoCities(t, 10), 1)
	var got []uint32
	par := r.Attach("Paris", func([]byte) {}, parAddr)
	r.Attach("NewYork", func(p []byte) { got = append(got, numberOf(p)) }, nycAddr)
	const packets = 1000
	var at time.Duration
	random := rand.New(rand.NewPCG(1, 2))
	for i := range uint32(packets) {
		r.Receive(now.Add(at), par, packetTo(nycAddr, i))
		at += time.Duration(random.IntN(3)) // some at the same time
	}
	if _, ok := r.Deliver(now.Add(time.Second)); ok {
		t.Error("Expected all packets to be delivered")
	}
	if len(got) != packets {
		t.Fatalf("Expected %d packets, got %d", packets, len(got))
	}
	for i, number := range got {
		if number != uint32(i) {
			t.Fatalf("Expected packet %d in its place, got %d", i, number)
		}
	}
}

func TestRouterLosesShareOfPackets(t *testing.T) {
	for _, share := range []float64{0, 0.05, 0.5, 1} {
		now := time.Unix(1000, 0)
		r := NewRouter(twoCities(t, 10).WithLoss("NewYork", "Paris", share), 7)
		var got float64
		par := r.Attach("Paris", func([]byte) {}, parAddr)
		r.Attach("NewYork", func([]byte) { got++ }, nycAddr)
		const packets = 20000
		for range packets {
			r.Receive(now, par, packetTo(nycAddr, 0))
		}
		r.Deliver(now.Add(time.Second))
		// Four standard deviations.
		if lost, within := packets-got, 4*math.Sqrt(packets*share*(1-share)); math.Abs(lost-packets*share) > within {
			t.Errorf("Expected %g ± %g of %d packets lost, got %g", packets*share, within, packets, lost)
		}
	}
}

func TestRouterDropsPacketsOfCutHost(t *testing.T) {
	now := time.Unix(1000, 0)
	r := NewRouter(twoCities(t, 10), 1)
	var got []uint32
	nyc := r.Attach("NewYork", func(p []byte) { got = append(got, numberOf(p)) }, nycAddr)
	par := r.Attach("Paris", func(p []byte) { got = append(got, numberOf(p)) }, parAddr)
	sendBoth := func(number uint32) {
		r.Receive(now, par, packetTo(nycAddr, number))
		r.Receive(now, nyc, packetTo(parAddr, number+100))
	}

	sendBoth(1) // in transit when the host is disconnected
	nyc.Cut(true)
	now = now.Add(time.Second)
	r.Deliver(now)
	sendBoth(2)
	nyc.Cut(false)
	now = now.Add(time.Second)
	r.Deliver(now)
	if len(got) != 0 {
		t.Errorf("Expected no packet from or to the disconnected host, got %v", got)
	}
	sendBoth(3)
	r.Deliver(now.Add(time.Second))
	if len(got) != 2 || got[0] != 3 || got[1] != 103 {
		t.Errorf("Expected packets in both directions after reconnecting, got %v", got)
	}
}

func TestMatrixOfTable(t *testing.T) {
	const table = ",Paris,NewYork,Osaka\nParis,0.0,70,230\nNewYork,80,0.0,170\nOsaka,230,170,0.0\n"
	m, err := parseMatrix(strings.NewReader(table))
	if err != nil {
		t.Fatalf("Expected a matrix, got %v", err)
	}
	if got := m.RTT("NewYork", "Paris"); got != 75*time.Millisecond {
		t.Errorf("Expected the mean of both directions, got %v", got)
	}
	if got := m.RTT("Paris", "Paris"); got != Local {
		t.Errorf("Expected %v inside a city, got %v", Local, got)
	}
	if city, gap := m.Nearest("Paris", []string{"Osaka", "NewYork"}); city != "NewYork" || gap != 155*time.Millisecond {
		t.Errorf("Expected NewYork by 155ms, got %s by %v", city, gap)
	}
	if m.Has("Paris", "Atlantis") || !m.Has("Osaka") {
		t.Error("Expected the matrix to have its cities and no others")
	}
	next := m.With("Paris", "Osaka", time.Millisecond)
	if a, b := next.RTT("Osaka", "Paris"), next.RTT("Paris", "Osaka"); a != b || a != time.Millisecond {
		t.Errorf("Expected 1ms in both directions, got %v and %v", a, b)
	}
	if got := m.RTT("Paris", "Osaka"); got != 230*time.Millisecond {
		t.Errorf("Expected no change of the first matrix, got %v", got)
	}
}

func TestMatrixRejectsInvalidTable(t *testing.T) {
	for name, table := range map[string]string{
		"empty":                 "",
		"no cities":             "x\n",
		"missing row":           ",A,B\nA,0,1\n",
		"extra row":             ",A\nA,0\nB,0\n",
		"missing column":        ",A,B\nA,0\nB,1,0\n",
		"rows in another order": ",A,B\nB,0,1\nA,1,0\n",
		"invalid number":        ",A,B\nA,0,x\nB,1,0\n",
		"NaN":                   ",A,B\nA,0,NaN\nB,1,0\n",
		"negative time":         ",A,B\nA,0,-5\nB,1,0\n",
		"city given twice":      ",A,A\nA,0,1\nA,1,0\n",
		"unterminated quote":    ",A,B\nA,0,\"1\nB,1,0\n",
	} {
		if _, err := parseMatrix(strings.NewReader(table)); err == nil {
			t.Errorf("%s: Expected an error, got none", name)
		}
	}
}

func TestRouterAnswersWhereTTLEnds(t *testing.T) {
	start := time.Unix(1000, 0)
	m := twoCities(t, 80)
	for _, to := range []netip.Addr{nycAddr, nycAddr6} {
		for _, tc := range []struct {
			hops   bool
			ttl    byte
			city   string // of the router; "": the packet arrives
			within time.Duration
		}{
			{true, 1, "Paris", Local}, {true, 2, "NewYork", 80 * time.Millisecond}, {true, 3, "", 40 * time.Millisecond},
			{false, 1, "", 40 * time.Millisecond},
		} {
			now := start
			r := NewRouter(m, 1)
			if tc.hops {
				r.Hops()
			}
			arrived := false
			var replies [][]byte
			par := r.Attach("Paris", func(p []byte) { replies = append(replies, append([]byte(nil), p...)) }, parAddr, netip.MustParseAddr("2001:db8::1"))
			r.Attach("NewYork", func([]byte) { arrived = true }, nycAddr, nycAddr6)
			packet := packetTo(to, 7)
			if to.Is6() {
				packet[7] = tc.ttl
				copy(packet[8:], netip.MustParseAddr("2001:db8::1").AsSlice())
			} else {
				packet[8] = tc.ttl
				copy(packet[12:], parAddr.AsSlice())
			}
			r.Receive(now, par, packet)
			for next, ok := r.Deliver(now); ok; next, ok = r.Deliver(now) {
				now = next
			}
			if arrived != (tc.city == "") || len(replies) > 1 || (len(replies) == 1) == arrived || now.Sub(start) != tc.within {
				t.Errorf("%s with TTL %d: Expected an answer of %q after %s, got %d after %s", to, tc.ttl, tc.city, tc.within, len(replies), now.Sub(start))
				continue
			}
			if tc.city == "" {
				continue
			}
			reply, header := replies[0], 20
			sender, _ := netip.AddrFromSlice(reply[12:16])
			if to.Is6() {
				header = 40
				sender, _ = netip.AddrFromSlice(reply[8:24])
			}
			quoted := reply[header+8:]
			if sender != m.RouterAddr(tc.city, to.Is6()) || len(quoted) < len(packet) || string(quoted[:len(packet)]) != string(packet) {
				t.Errorf("%s with TTL %d: Expected %s to quote the packet, got %x of %s", to, tc.ttl, m.RouterAddr(tc.city, to.Is6()), quoted, sender)
			}
		}
	}
}
