package dnsb

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
)

// TestExplanationsAsJSON asks for each list as JSON.
func TestExplanationsAsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	writeMap(t, path, "drain par1"+laterOn+"\ndown server fra* for www.svc."+testZone+laterOn+"\n")
	_, port := serve(t, "explain 127.0.0.0/8\nadmin "+path)
	for _, r := range []struct{ node, key, secret string }{{"par1", parKey, parSecret}, {"nyc1", nycKey, nycSecret}} {
		if m := send(t, port, sent(t, nodeAt(r.node, "127.0.0.1", "10.1.0.0/16")), r.key, r.secret); m.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected %s to register, got %v", r.node, m)
		}
	}
	query(t, port, "udp", "www.svc."+testZone, dns.TypeA) // of an unmapped resolver
	ask := func(name string) (objects []explain.Object) {
		t.Helper()
		var texts []string
		for _, rr := range query(t, port, "tcp", name, dns.TypeTXT).Answer {
			texts = append(texts, dnsmsg.Text(rr.(*dns.TXT)))
		}
		objects, next, err := explain.ParseObjects(texts)
		if err != nil || next != 0 {
			t.Fatalf("%s: Expected objects, got %q, %v", name, texts, err)
		}
		return objects
	}
	shown := func(name string) string {
		t.Helper()
		var lines []string
		for _, o := range ask(name) {
			if o.Plugin != "dnsb" || o.Zone != testZone {
				t.Errorf("%s: Unexpected object %+v", name, o)
			}
			switch o.Kind {
			case "node":
				var n NodeStatus
				_ = json.Unmarshal(o.Value, &n)
				lines = append(lines, fmt.Sprintf("%s %s %d overrides current=%v", n.Node, n.State, n.Overrides, n.OverridesCurrent))
			case "referral":
				var e Explanation
				_ = json.Unmarshal(o.Value, &e)
				lines = append(lines, e.Cut+" to "+e.Referral[0].Node)
			case "status":
				var s Status
				_ = json.Unmarshal(o.Value, &s)
				lines = append(lines, s.NodeCounts())
				for _, o := range s.Overrides {
					lines = append(lines, fmt.Sprintf("%s %q %s %s", o.Verb, o.Arguments, o.Until.Format("2006"), o.Reason))
				}
			default:
				lines = append(lines, o.Kind+" "+string(o.Value))
			}
		}
		return strings.Join(lines, "\n")
	}
	for name, want := range map[string]string{
		"_json.nodes._explain." + testZone:    "nyc1 live 1 overrides current=false\npar1 drained 1 overrides current=false",
		"_json-1.nodes._explain." + testZone:  "par1 drained 1 overrides current=false",
		"_json-9.nodes._explain." + testZone:  "",
		"_json._explain.www.svc." + testZone:  "svc." + testZone + " to nyc1",
		"_JSON._explain." + testZone:          "svc." + testZone + " to nyc1",
		"_json._explain.none." + testZone:     `error "none.` + testZone + ` is not at or below a cut; the cuts are: svc.` + testZone + `"`,
		"_json.overlaps._explain." + testZone: "", // they are counted later
		"_json.status._explain." + testZone:   "1 live, 0 stale, 0 dead, 1 drained\n" + `drain ["par1"] 2100 new disk` + "\n" + `down ["server" "fra*" "for" "www.svc.` + testZone + `"] 2100 new disk`,
	} {
		if got := shown(name); got != want {
			t.Errorf("%s: Expected %q, got %q", name, want, got)
		}
	}
	if got := shown("_json.unmapped._explain." + testZone); !strings.HasPrefix(got, `unmapped {"prefix":"127.0.0.0/24","count":1,`) {
		t.Errorf("Expected the resolver of the test, got %s", got)
	}
	if m := query(t, port, "udp", "_json.status._explain."+testZone, dns.TypeTXT); !m.Truncated || len(m.Answer) > 0 {
		t.Errorf("Expected truncation over UDP, got %v", m)
	}
	if m := query(t, port, "tcp", "_json.none._explain."+testZone, dns.TypeTXT); m.Rcode != dns.RcodeNameError {
		t.Errorf("Expected no such name, got %v", m)
	}
	text := query(t, port, "tcp", "status._explain."+testZone, dns.TypeTXT)
	if len(text.Answer) != 4 || !strings.Contains(text.Answer[1].String(), "nodes: 1 live, 0 stale, 0 dead, 1 drained") || !strings.Contains(text.Answer[2].String(), "override: drain par1 until") {
		t.Errorf("Expected the state as text, got %v", text)
	}
}
