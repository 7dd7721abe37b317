//go:build unix

package test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	metricsURL = "http://127.0.0.1:9153/metrics"
	www        = "www.svc.gslb.example.org."
	cut        = "svc.gslb.example.org."
)

// ask sends one query from an address, as dig -b does, and returns an empty
// message if there is no reply.
func ask(t *testing.T, from, to, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.RecursionDesired = false
	client := dns.Client{
		Dialer:  &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}},
		Timeout: 20 * time.Second, // longer than any machine is slow
	}
	r, _, err := client.Exchange(m, net.JoinHostPort(to, "1053"))
	if err != nil {
		t.Logf("%s asks %s for %s: %v", from, to, name, err)
		return new(dns.Msg)
	}
	return r
}

// referredTo returns the address of the first node in the referral of a
// resolver, or "". A deputy may follow.
func referredTo(t *testing.T, resolver string) string {
	t.Helper()
	r := ask(t, resolver, "127.0.0.2", www, dns.TypeA)
	if r.Authoritative || len(r.Answer) > 0 || len(r.Ns) == 0 || r.Ns[0].Header().Rrtype != dns.TypeNS || r.Ns[0].Header().Name != cut {
		return ""
	}
	for _, rr := range r.Extra {
		if a, ok := rr.(*dns.A); ok && a.Hdr.Name == r.Ns[0].(*dns.NS).Ns {
			return a.A.String()
		}
	}
	return ""
}

// answerTo returns the address in the answer of a node to one resolver, or "".
func answerTo(t *testing.T, resolver, node string) string {
	t.Helper()
	r := ask(t, resolver, node, www, dns.TypeA)
	if len(r.Answer) != 1 || len(r.Ns) != 0 {
		return ""
	}
	return r.Answer[0].(*dns.A).A.String()
}

// explanation returns what a server says to the TXT question of a client for an
// explanation, over TCP.
func explanation(t *testing.T, from, to, name string) string {
	t.Helper()
	text, err := tryExplanation(from, to, name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tryExplanation is explanation for a test that asks until there is a reply.
func tryExplanation(from, to, name string) (string, error) {
	client := dns.Client{Net: "tcp", Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Timeout: 10 * time.Second}
	r, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeTXT), to+":1053")
	if err != nil {
		return "", err
	}
	var lines []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			lines = append(lines, strings.Join(txt.Txt, ""))
		}
	}
	return strings.Join(lines, "\n"), nil
}

// example is a copy of corefile.example that a test can change.
type example struct {
	t    *testing.T
	path string
	text string
}

func newExample(t *testing.T) *example {
	t.Helper()
	// Two servers can share a port (SO_REUSEPORT): each would get some of the
	// queries.
	if conn, err := net.Dial("tcp", "127.0.0.2:1053"); err == nil {
		conn.Close()
		t.Fatal("Another server listens on 127.0.0.2:1053, an address of the example: end it first")
	}
	text, err := os.ReadFile(filepath.Join(root, "corefile.example"))
	if err != nil {
		t.Fatal(err)
	}
	e := &example{t: t, path: filepath.Join(t.TempDir(), "Corefile")}
	e.write(string(text))
	return e
}

func (e *example) write(text string) {
	e.t.Helper()
	e.text = text
	if err := os.WriteFile(e.path, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// replace replaces a text that occurs once.
func (e *example) replace(old, text string) {
	e.t.Helper()
	if strings.Count(e.text, old) != 1 {
		e.t.Fatalf("Expected %q once in the example, got %d", old, strings.Count(e.text, old))
	}
	e.write(strings.Replace(e.text, old, text, 1))
}

// remove removes the text from one heading to another.
func (e *example) remove(from, to string) {
	e.t.Helper()
	i, j := strings.Index(e.text, from), strings.Index(e.text, to)
	if i < 0 || j < i {
		e.t.Fatalf("Expected sections %q and %q in the example", from, to)
	}
	e.write(e.text[:i] + e.text[j:])
}

// addNear has the nodes register the places of the resolvers, for tests that are not
// about the survey.
func (e *example) addNear() {
	e.t.Helper()
	for node, near := range map[string]string{"node     par1 127.0.0.3\n": "127.0.1.0/24", "node     nyc1 127.0.0.4\n": "127.0.2.0/24"} {
		e.replace(node, node+"        near     "+near+"\n")
	}
}

// TestExample follows the comments in corefile.example.
func TestExample(t *testing.T) {
	e := newExample(t)
	s := start(t, "-conf", e.path)

	// DNS-B learns where resolvers are from the survey, one network after the other.
	layerOf := func(resolver string) string {
		text, err := tryExplanation(resolver, "127.0.0.2", "_explain."+cut)
		if err != nil {
			t.Logf("%s asks for an explanation: %v", resolver, err)
		}
		for line := range strings.Lines(text) {
			if layer, ok := strings.CutPrefix(line, "layer "); ok {
				return strings.TrimSpace(layer)
			}
		}
		return ""
	}
	wait(t, 15*time.Second, "referrals", func() bool { return referredTo(t, "127.0.1.10") != "" })
	for _, tc := range []struct{ resolver, node string }{{"127.0.1.10", "127.0.0.3"}, {"127.0.2.10", "127.0.0.4"}} {
		if tc.resolver == "127.0.2.10" {
			if layer := layerOf(tc.resolver); layer != "default" {
				t.Errorf("Expected nothing to be known before the first question, got layer %q", layer)
			}
		}
		t.Logf("Found the network of %s after %s", tc.resolver, wait(t, time.Minute, "a referral by the survey", func() bool {
			return referredTo(t, tc.resolver) == tc.node && layerOf(tc.resolver) == "survey"
		}))
	}
	t.Logf("Learned the map after %s", wait(t, 75*time.Second, "the nodes to rank servers by the survey", func() bool {
		for _, resolver := range []string{"127.0.1.10", "127.0.2.10"} {
			for _, node := range []string{"127.0.0.3", "127.0.0.4"} {
				if text, err := tryExplanation(resolver, node, "_explain."+www); err != nil || !strings.Contains(text, "by the survey, rule survey") {
					return false
				}
			}
		}
		return true
	}))
	if got := answerTo(t, "127.0.1.10", "127.0.0.3"); got != "127.0.0.11" {
		t.Errorf("Expected par1 to answer with fra, got %q", got)
	}
	if got := answerTo(t, "127.0.2.10", "127.0.0.4"); got != "127.0.0.12" {
		t.Errorf("Expected nyc1 to answer with iad, got %q", got)
	}
	if got := answerTo(t, "127.0.1.10", "127.0.0.4"); got != "127.0.0.11" {
		t.Errorf("Expected the deputy of par1 to answer as par1 does, got %q", got)
	}
	if r := ask(t, "127.0.1.10", "127.0.0.2", www, dns.TypeA); len(r.Ns) != 2 || r.Ns[1].(*dns.NS).Ns != "nyc1.lb.gslb.example.org." {
		t.Errorf("Expected a referral to par1 and its deputy, got %v", r)
	}
	for _, tc := range []struct{ at, name, want string }{
		{"127.0.0.2", "_explain.svc.gslb.example.org.", "par1"}, {"127.0.0.4", "_explain.www.svc.gslb.example.org.", "par1"},
	} {
		if got := explanation(t, "127.0.1.10", tc.at, tc.name); !strings.Contains(got, tc.want) {
			t.Errorf("Expected %s to give its reasons, got %s", tc.at, got)
		}
	}
	if r := ask(t, "127.0.0.1", "127.0.0.1", "www.example.org.", dns.TypeA); len(r.Answer) == 0 || r.Answer[0].(*dns.CNAME).Target != www {
		t.Errorf("Expected DNS-A to answer with the CNAME, got %v", r)
	}
	if r := ask(t, "127.0.0.1", "127.0.0.1", www, dns.TypeA); len(r.Ns) != 1 || r.Ns[0].Header().Name != "gslb.example.org." {
		t.Errorf("Expected DNS-A to refer to DNS-B, got %v", r)
	}
	if got := explanation(t, "127.0.0.1", "127.0.0.2", "survey._explain.gslb.example.org."); !strings.Contains(got, "sites: 2 measured, 0 searching, 0 silent, 0 unmeasured") {
		t.Errorf("Expected both networks to be measured, got %s", got)
	}

	values := scrape(t, metricsURL)
	for _, name := range []string{
		`coredns_dnsb_referrals_total{layer="survey",node="par1",zone="gslb.example.org."}`, `coredns_dnsb_referrals_total{layer="survey",node="nyc1",zone="gslb.example.org."}`,
		`coredns_dnslb_survey_answers_total{node="par1",zone="svc.gslb.example.org."}`, `coredns_dnslb_survey_answers_total{node="nyc1",zone="svc.gslb.example.org."}`,
	} {
		if values[name] == 0 {
			t.Errorf("Expected %s to count, got 0", name)
		}
	}

	// iad moves away, and back: nyc1 leaves it for a resolver that nobody measured.
	const iadDelay = "delay 1 3ms\n" // of iad for nyc1
	e.replace(iadDelay, "delay 1 300ms\n")
	t.Logf("Switch from a slower server after %s", wait(t, 75*time.Second, "nyc1 to leave the slow server", func() bool { return answerTo(t, "127.0.9.10", "127.0.0.4") == "127.0.0.11" }))
	e.replace("delay 1 300ms\n", iadDelay)
	t.Logf("Switch to a faster server after %s", wait(t, 75*time.Second, "nyc1 to return to the fast server", func() bool { return answerTo(t, "127.0.9.10", "127.0.0.4") == "127.0.0.12" }))

	const fraDelay = "delay 1 2ms\n" // of fra for par1

	// fra fails, and recovers.
	e.replace(fraDelay, "drop 1\n")
	t.Logf("Switch from a dead server after %s", wait(t, 30*time.Second, "par1 to leave the dead server", func() bool { return answerTo(t, "127.0.1.10", "127.0.0.3") == "127.0.0.12" }))
	e.replace("drop 1\n", fraDelay)
	t.Logf("Switch to the recovered server after %s", wait(t, 60*time.Second, "par1 to take the server again", func() bool { return answerTo(t, "127.0.1.10", "127.0.0.3") == "127.0.0.11" }))

	// par1 withdraws.
	e.remove("# ---- 3.", "# ---- 4.")
	t.Logf("Referrals without par1 after %s", wait(t, 15*time.Second, "DNS-B to refer to nyc1", func() bool { return referredTo(t, "127.0.1.10") == "127.0.0.4" }))

	if took := s.stop(); took > 10*time.Second {
		t.Errorf("Expected an end within 10s, took %s", took)
	}
	if out := s.out.String(); !strings.Contains(out, "withdrew") {
		t.Errorf("Expected a withdrawal at the end, got:\n%s", out)
	}
}
