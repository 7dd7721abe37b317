package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestStolenKeyIsReplaced follows docs/security.md: the thief of the key of a node
// makes the node stand at another address, with a serial ahead of the clock, until
// the key is replaced.
func TestStolenKeyIsReplaced(t *testing.T) {
	const (
		key, secret       = "par1.key.example.org", "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="
		newKey, newSecret = "par1-2.key.example.org", "cGFyMS1hZnRlci10aGUtdGhlZnQtb2YtdGhlLWtleQ=="
		node              = "par1.lb.gslb.example.org."
	)
	e := newExample(t)
	admin := filepath.Join(t.TempDir(), "admin")
	e.replace("        ns      b1 127.0.0.2\n", "        ns      b1 127.0.0.2\n        admin   "+admin+"\n")
	s := start(t, "-conf", e.path)
	s.waitFor(`Registered node "par1" by key`, 30*time.Second)

	standsAt := func(address string) bool {
		r := ask(t, "127.0.0.1", "127.0.0.2", node, dns.TypeA)
		return len(r.Answer) == 1 && r.Answer[0].(*dns.A).A.String() == address
	}
	// register sends what the thief does, and returns the RCODE, -1 without a reply.
	register := func() int {
		m := new(dns.Msg).SetUpdate("gslb.example.org.")
		for _, text := range []string{
			node + " 0 A 127.0.0.9", node + " 0 APL 1:127.0.1.0/24", cut + " 0 NS " + node,
			fmt.Sprintf(`%s 0 TXT "v=1 serial=%d parts=1"`, node, time.Now().Add(4*time.Minute).UnixMilli()),
		} {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			m.Ns = append(m.Ns, rr)
		}
		m.SetTsig(key+".", dns.HmacSHA256, 300, time.Now().Unix())
		client := dns.Client{Net: "tcp", TsigSecret: map[string]string{key + ".": secret}}
		r, _, err := client.Exchange(m, "127.0.0.2:1053")
		if r == nil { // as amid a reload
			t.Logf("No reply: %v", err)
			return -1
		}
		return r.Rcode
	}
	if rcode := register(); rcode != dns.RcodeSuccess || !standsAt("127.0.0.9") {
		t.Fatalf("Expected the thief to register, got %s", dns.RcodeToString[rcode])
	}

	e.write(strings.NewReplacer(key, newKey, secret, newSecret).Replace(e.text))
	wait(t, 30*time.Second, "the stolen key to be refused", func() bool { return register() == dns.RcodeNotAuth })
	if !standsAt("127.0.0.9") {
		t.Error("Expected the registration of the thief to stay, as the new 'accept' line permits it")
	}
	s.waitFor(", the last serial of the node", 60*time.Second)

	line := "forget par1 until " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + " reason stolen key\n"
	if err := os.WriteFile(admin, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	wait(t, 90*time.Second, "the node to register again", func() bool { return standsAt("127.0.0.3") })
}
