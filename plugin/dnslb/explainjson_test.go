package dnslb

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
)

// TestExplanationAsJSON checks that explanations as JSON say what those as text say.
func TestExplanationAsJSON(t *testing.T) {
	d := explainable(t)
	ask := func(name, from string, tcp bool) *dns.Msg {
		t.Helper()
		w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: from, TCP: tcp})
		if _, err := d.ServeDNS(t.Context(), w, new(dns.Msg).SetQuestion(name, dns.TypeTXT)); err != nil {
			t.Fatal(err)
		}
		return w.Msg
	}
	objects := func(name string) []explain.Object {
		t.Helper()
		var texts []string
		for _, rr := range ask(name, "198.51.100.1", true).Answer {
			texts = append(texts, dnsmsg.Text(rr.(*dns.TXT)))
		}
		objects, next, err := explain.ParseObjects(texts)
		if err != nil || next != 0 {
			t.Fatalf("%s: Expected objects, got %q, %v", name, texts, err)
		}
		for _, o := range objects {
			if o.Plugin != "dnslb" || o.Zone != testZone {
				t.Errorf("%s: Unexpected object %+v", name, o)
			}
		}
		return objects
	}
	for _, name := range []string{"_json._explain." + testZone, "_json.status._explain." + testZone} {
		got := objects(name)
		var s Status
		if len(got) != 1 || got[0].Kind != "status" || json.Unmarshal(got[0].Value, &s) != nil {
			t.Fatalf("%s: Expected a summary, got %+v", name, got)
		}
		if want := d.Summary().Lines(); !slices.Equal(s.Lines(), want) {
			t.Errorf("%s: Expected %q, got %q", name, want, s.Lines())
		}
		if o := s.Overrides; len(o) != 1 || o[0].Verb != "drain" || !slices.Equal(o[0].Arguments, []string{"b"}) || o[0].Reason != "new disk" || o[0].Until.Year() != 2100 || o[0].Idle != "" || o[0].DNSB != "" {
			t.Errorf("Expected the override with its fields, got %+v", o)
		}
	}
	got := objects("_JSON._explain.www." + testZone)
	var e Explanation
	if len(got) != 1 || got[0].Kind != "answer" || json.Unmarshal(got[0].Value, &e) != nil || e.Service != "www."+testZone || len(e.Servers) != 3 || e.Address.String() != "198.51.100.1" {
		t.Errorf("Expected the explanation of the service, got %+v", got)
	}
	if got := objects("_json._explain.none." + testZone); len(got) != 1 || got[0].Kind != explain.KindError || !strings.Contains(string(got[0].Value), "is no service") {
		t.Errorf("Expected an error, got %+v", got)
	}
	if got := objects("_json-1._explain.www." + testZone); len(got) != 0 {
		t.Errorf("Expected no more objects, got %+v", got)
	}
	if m := ask("_json._explain.www."+testZone, "198.51.100.1", false); !m.Truncated || len(m.Answer) > 0 {
		t.Errorf("Expected truncation over UDP, got %v", m)
	}
	if m := ask("_json._explain.www."+testZone, "203.0.113.1", true); m.Rcode != dns.RcodeNameError {
		t.Errorf("Expected no such name for others, got %v", m)
	}
	if got := told(ask("status._explain."+testZone, "198.51.100.1", true)); !strings.HasPrefix(got, testZone+" on node par1") {
		t.Errorf("Expected the summary, got %s", got)
	}
}
