package prober

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

var pathQuery = DNS{Name: "_survey.example.org.", Type: dns.TypeTXT}

// probePath sends a packet to an address of this machine, by which no router is.
func probePath(t *testing.T, addr netip.AddrPort, patience time.Duration) (Hop, error) {
	t.Helper()
	d := pathQuery
	d.Port = addr.Port()
	p, err := OpenPath(t.Context(), d, addr.Addr(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return p.Probe(ctx, 1)
}

// TestPathEnds checks what comes of a packet that arrives: test/widearea has routers.
func TestPathEnds(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			conn, err := net.ListenPacket("udp", net.JoinHostPort(host, strconv.Itoa(testport.Free(t))))
			if err != nil {
				t.Skipf("no %s: %v", host, err)
			}
			addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			want := Hop{Addr: netip.MustParseAddr(host), Last: true}
			expect := func(what string) {
				t.Helper()
				hop, err := probePath(t, addr, patience)
				if rtt := hop.RTT; err != nil || rtt <= 0 || rtt > patience {
					t.Errorf("%s: Expected a latency, got %s, %v", what, rtt, err)
				}
				if hop.RTT = 0; hop != want {
					t.Errorf("%s: Expected %+v, got %+v", what, want, hop)
				}
			}
			if hop, err := probePath(t, addr, 50*time.Millisecond); ReasonOf(err) != Timeout {
				t.Errorf("Expected no answer in time, got %+v, %v", hop, err)
			}
			go func() {
				buf := make([]byte, maxDatagram)
				for {
					n, from, err := conn.ReadFrom(buf)
					if err != nil {
						return
					}
					query := new(dns.Msg)
					if err := query.Unpack(buf[:n]); err != nil {
						t.Errorf("Expected a query, got %v", err)
						continue
					}
					other, _ := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)).Pack()
					_, _ = conn.WriteTo(other, from) // is ignored
					reply, _ := new(dns.Msg).SetRcode(query, dns.RcodeRefused).Pack()
					_, _ = conn.WriteTo(reply, from)
				}
			}()
			expect("an answer")
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			expect("a closed port")
		})
	}
	if _, err := OpenPath(t.Context(), pathQuery, loopback, netip.MustParseAddr("192.0.2.77")); LocalReasonOf(err) != LocalAddress {
		t.Errorf("Expected no source address, got %v", err)
	}
}

func TestHopOf(t *testing.T) {
	query := &dns.Msg{MsgHdr: dns.MsgHdr{Id: 0x1234}}
	control := func(level, kind int32, origin, icmpType byte, sender []byte) []byte {
		data := make([]byte, 16, 64)
		binary.NativeEndian.PutUint32(data, uint32(syscall.EHOSTUNREACH))
		data[4], data[5] = origin, icmpType
		data = append(data, sender...)
		b := make([]byte, unix.CmsgSpace(len(data)))
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data)))) // #nosec G115 -- small
		binary.NativeEndian.PutUint32(b[8:], uint32(level))               // #nosec G115 -- likewise
		binary.NativeEndian.PutUint32(b[12:], uint32(kind))               // #nosec G115 -- likewise
		copy(b[unix.CmsgLen(0):], data)
		return b
	}
	four := append([]byte{2, 0, 0, 0, 203, 0, 113, 9}, make([]byte, 8)...)
	six := slices.Concat([]byte{10, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8::9").AsSlice(), make([]byte, 4))
	for _, tc := range []struct {
		name    string
		control []byte
		quoted  []byte
		want    Hop
		ok      bool
	}{
		{"time exceeded", control(unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_ICMP, 11, four), nil, Hop{Addr: netip.MustParseAddr("203.0.113.9")}, true},
		{"with the query", control(unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_ICMP, 11, four), []byte{0x12, 0x34, 0}, Hop{Addr: netip.MustParseAddr("203.0.113.9")}, true},
		{"of another query", control(unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_ICMP, 11, four), []byte{0x12, 0x35, 0}, Hop{}, false},
		{"rejected", control(unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_ICMP, 3, four), nil, Hop{Addr: netip.MustParseAddr("203.0.113.9"), Last: true}, true},
		{"time exceeded of IPv6", control(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.SO_EE_ORIGIN_ICMP6, 3, six), nil, Hop{Addr: netip.MustParseAddr("2001:db8::9")}, true},
		{"rejected of IPv6", control(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.SO_EE_ORIGIN_ICMP6, 1, six), nil, Hop{Addr: netip.MustParseAddr("2001:db8::9"), Last: true}, true},
		{"without a sender", control(unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_ICMP, 11, nil), nil, Hop{}, false},
		{"of another kind", control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS, 0, 0, four), nil, Hop{}, false},
		{"nothing", nil, nil, Hop{}, false},
	} {
		if hop, ok, err := hopOf(tc.control, tc.quoted, query); hop != tc.want || ok != tc.ok || err != nil {
			t.Errorf("%s: Expected %+v, %t, got %+v, %t, %v", tc.name, tc.want, tc.ok, hop, ok, err)
		}
	}
	if _, ok, err := hopOf(control(unix.IPPROTO_IP, unix.IP_RECVERR, unix.SO_EE_ORIGIN_LOCAL, 0, four), nil, query); !ok || ReasonOf(err) != Unreachable {
		t.Errorf("Expected an error of this machine, got %v", err)
	}
}
