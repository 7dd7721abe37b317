package operator

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

// serve starts a server that answers questions for TXT records with these texts by
// name, over TCP only.
func serve(t *testing.T, texts map[string][]string) Server {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", testport.Free(t))
	var packets net.PacketConn
	l, err := net.Listen("tcp", address)
	if err == nil {
		packets, err = net.ListenPacket("udp", address)
	}
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		for _, text := range texts[r.Question[0].Name] {
			m.Answer = append(m.Answer, dnsmsg.NewTXT(dnsmsg.Header(r.Question[0].Name, dns.TypeTXT, 1), text))
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncated, m.Answer = true, nil
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: packets, Handler: handler}} {
		done, started := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started // else Shutdown does nothing
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return Server{Address: netip.MustParseAddrPort(l.Addr().String())}
}

func TestAskForObjects(t *testing.T) {
	node := func(name, address string) string {
		return `{"version":1,"kind":"node","value":{"node":"` + name + `","addresses":["` + address + `"]}}`
	}
	s := serve(t, map[string][]string{
		"_json.nodes._explain.a.":   {node("par1", "192.0.2.1"), node("nyc1", "2001:db8::1"), `{"version":1,"next":2}`},
		"_json-2.nodes._explain.a.": {node("sin1", "192.0.2.3"), `{"version":1,"kind":"error","value":"x"}`, `{"version":1,"kind":"node","value":{"node":"none"}}`},
		"_json.nodes._explain.b.":   {node("par1", "192.0.2.1"), `{"version":1,"next":1}`},
		"_json-1.nodes._explain.b.": {`{"version":1,"next":1}`},
		"_json.nodes._explain.c.":   {`{"version":9}`},
		"_json.nodes._explain.d.":   {`{"version":1}`},
		"_explain.text.":            {"a line\x1b[2J"},
	})
	nodes, err := Nodes(t.Context(), s, "a")
	var got []string
	for _, n := range nodes {
		got = append(got, n.Name+" "+n.Address.Addr().String())
	}
	if text := strings.Join(got, ", "); err != nil || text != "par1 192.0.2.1, nyc1 2001:db8::1, sin1 192.0.2.3" || nodes[0].Address.Port() != s.Address.Port() {
		t.Errorf("Expected the nodes of both messages, got %s, %v", text, err)
	}
	for zone, want := range map[string]string{"b": "object 1 follows object 1", "c": "unknown version 9", "none": "no explanation: "} {
		if _, err := Nodes(t.Context(), s, zone); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Expected error %q, got %v", zone, want, err)
		}
	}
	if a := Ask(t.Context(), s, "nodes._explain.d.", netip.Addr{}, true); a.Problem != "" || len(a.Objects) != 0 {
		t.Errorf("Expected no objects and no error, got %+v", a)
	}
	if a := Ask(t.Context(), s, "_explain.text.", netip.Addr{}, false); len(a.Lines) != 1 || strings.Contains(a.Lines[0], "\x1b") || !strings.HasPrefix(a.Lines[0], "a line") {
		t.Errorf("Expected a printable line, got %+v", a)
	}
}
