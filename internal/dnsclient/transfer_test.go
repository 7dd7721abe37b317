package dnsclient

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const testSerial = 2026112600

// serveZone answers with so many records, signed, and returns its endpoint.
func serveZone(t *testing.T, key Key, records int) Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: ".", Mbox: ".", Serial: testSerial}
	srv := &dns.Server{Listener: l, TsigSecret: key.secrets(), Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{soa}
		for i := range records {
			m.Answer = append(m.Answer, &dns.TXT{
				Hdr: dns.RR_Header{Name: fmt.Sprintf("%d.example.org.", i), Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"},
			})
		}
		m.Answer = append(m.Answer, soa)
		key.sign(m)
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return Endpoint(l.Addr().String())
}

func TestTransfer(t *testing.T) {
	key, err := NewKey(testKey, "", "c2VjcmV0c2VjcmV0c2VjcmV0")
	if err != nil {
		t.Fatal(err)
	}
	wrong := key
	wrong.Secret = "b3RoZXJzZWNyZXRvdGhlcnNlY3JldA=="
	refuse := errors.New("unexpected record")
	tests := []struct {
		name string
		key  Key
		max  int
		add  error
		want string
	}{
		{"whole zone", key, 1 << 16, nil, ""},
		{"too long", key, 64, nil, "zone longer than 64 bytes"},
		{"refused record", key, 1 << 16, refuse, refuse.Error()},
		{"wrong secret", wrong, 1 << 16, nil, "dns:"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			err := serveZone(t, key, 20).Transfer(t.Context(), nil, "example.org.", tc.key, tc.max, func(dns.RR) error { n++; return tc.add })
			if tc.want == "" && (err != nil || n != 22) {
				t.Errorf("Expected 22 records, got %d, %v", n, err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Expected an error with %q, got %v", tc.want, err)
			}
			if tc.add != nil && n != 1 {
				t.Errorf("Expected nothing after the first error, got %d records", n)
			}
		})
	}
}

func TestLimitedConn(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() { defer server.Close(); _, _ = server.Write(make([]byte, 8)) }()
	if n, err := io.Copy(io.Discard, &limitedConn{Conn: client, rest: 7}); n != 7 || !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("Expected an error after 7 bytes, got %d, %v", n, err)
	}
}
