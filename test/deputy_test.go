//go:build unix

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestDeputyAnswersAsPrincipal starts the example, in which each of the two
// nodes is the deputy of the other one: DNS-B names both, and each answers the
// resolvers of the other one by its measurements, also after a reload and when
// the other one has withdrawn.
func TestDeputyAnswersAsPrincipal(t *testing.T) {
	const secret = "dmlld3MtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=" // view key of the example
	e := newExample(t)
	e.addNear()
	admin := filepath.Join(t.TempDir(), "admin")
	override := func(lines string) {
		if err := os.WriteFile(admin, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	override("")
	e.replace("        ns      b1 127.0.0.2\n", "        ns      b1 127.0.0.2\n        admin   "+admin+"\n")
	s := start(t, "-conf", e.path)

	const parResolver, nycResolver = "127.0.1.10", "127.0.2.10"
	t.Logf("Answers of the deputies after %s", wait(t, 75*time.Second, "each node to answer by the measurements of the other", func() bool {
		out := s.out.String() // before this both answer in configured order
		return strings.Contains(out, `Started following the view of node "par1" as its deputy "nyc1"`) && strings.Contains(out, `Started following the view of node "nyc1" as its deputy "par1"`) &&
			answerTo(t, parResolver, "127.0.0.4") == "127.0.0.11" && answerTo(t, nycResolver, "127.0.0.3") == "127.0.0.12"
	}))
	if got := answerTo(t, parResolver, "127.0.0.3"); got != "127.0.0.11" {
		t.Errorf("Expected par1 to answer its own resolvers with fra, got %q", got)
	}
	if got := answerTo(t, nycResolver, "127.0.0.4"); got != "127.0.0.12" {
		t.Errorf("Expected nyc1 to answer its own resolvers with iad, got %q", got)
	}
	r := ask(t, parResolver, "127.0.0.2", www, dns.TypeA)
	if len(r.Ns) != 2 || r.Ns[0].Header().Ttl != 300 {
		t.Errorf("Expected a referral to a node and its deputy for 300 s, got %v", r)
	}

	zone := "par1._view.svc.gslb.example.org"
	switch dig, err := exec.LookPath("dig"); {
	case err == nil:
		transfer := func(args ...string) string {
			out, _ := exec.Command(dig, append([]string{"@127.0.0.3", "-p", "1053", zone, "AXFR"}, args...)...).CombinedOutput() // #nosec G204 -- a test
			return string(out)
		}
		if out := transfer("-y", "hmac-sha256:views.key.example.org:"+secret); !strings.Contains(out, "fra."+zone) || !strings.Contains(out, "127.0.0.11 value=") || !strings.Contains(out, `"www" "127.0.0.11"`) {
			t.Errorf("Expected dig to show the view, got %s", out)
		}
		if out := transfer(); strings.Contains(out, "fra."+zone) {
			t.Errorf("Expected no view without a signature, got %s", out)
		}
	case os.Getenv("CI") != "":
		t.Error("Expected dig to be installed")
	}

	// A pin moves the resolvers of par1 to nyc1: both nodes answer them by the
	// measurements of nyc1 then.
	override("pin 127.0.1.0/24 nyc1 until " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + " reason test\n")
	t.Logf("Pin obeyed after %s", wait(t, 75*time.Second, "both nodes to obey the pin", func() bool {
		return answerTo(t, parResolver, "127.0.0.4") == "127.0.0.12" && answerTo(t, parResolver, "127.0.0.3") == "127.0.0.12"
	}))
	explained := explanation(t, parResolver, "127.0.0.3", "_explain."+www)
	if want := "map of DNS-B for 127.0.1.0/24: nyc1 (pin), par1 (registration)"; !strings.Contains(explained, want) {
		t.Errorf("Expected %q, got %s", want, explained)
	}
	override("")
	t.Logf("Pin gone after %s", wait(t, 75*time.Second, "both nodes to forget the pin", func() bool {
		return answerTo(t, parResolver, "127.0.0.4") == "127.0.0.11" && answerTo(t, parResolver, "127.0.0.3") == "127.0.0.11"
	}))

	// par1 gets more resolvers, and nyc1 drops its deputy.
	e.replace("        near     127.0.1.0/24\n", "        near     127.0.1.0/24 127.0.9.0/24\n")
	e.replace("        deputy   par1\n", "")
	const newResolver = "127.0.9.10"
	t.Logf("New resolvers after %s", wait(t, 75*time.Second, "the deputy to know the new resolvers of par1", func() bool {
		return answerTo(t, newResolver, "127.0.0.4") == "127.0.0.11"
	}))
	t.Logf("Dismissal after %s", wait(t, 45*time.Second, "par1 to learn that it is no longer a deputy", func() bool {
		out := s.out.String()
		return strings.Contains(out, `Node "nyc1" dismissed its deputy "par1"`) && strings.Contains(out, ": the node has no deputies any more")
	}))
	if got := answerTo(t, nycResolver, "127.0.0.3"); got != "127.0.0.12" {
		t.Errorf("Expected par1 to answer earlier referrals as before, got %q", got)
	}
	if got := answerTo(t, parResolver, "127.0.0.4"); got != "127.0.0.11" {
		t.Errorf("Expected nyc1 to stay the deputy of par1, got %q", got)
	}

	// par1 withdraws. Resolvers with an earlier referral ask its deputy.
	e.remove("# ---- 3.", "# ---- 4.")
	wait(t, 15*time.Second, "par1 to withdraw", func() bool { return strings.Contains(s.out.String(), `Withdrew node "par1"`) })
	for range 10 {
		if got := answerTo(t, parResolver, "127.0.0.4"); got != "127.0.0.11" {
			t.Fatalf("Expected the deputy to answer by the measurements of par1 after its withdrawal, got %q", got)
		}
		time.Sleep(500 * time.Millisecond)
	}
	if name := `coredns_dnslb_view_age_seconds{node="nyc1",of="par1"}`; scrape(t, metricsURL)[name] <= 0 {
		t.Errorf("Expected %s", name)
	}
}
