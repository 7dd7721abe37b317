//go:build unix

package test

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestChangedSecretsCountByThemselves changes the file with the keys of a DNS-B
// while it runs: soon the new key counts, and no query is lost. A file with an
// error changes nothing, and a Corefile that was edited meanwhile has to be
// reloaded by hand, as has one with *reload*.
func TestChangedSecretsCountByThemselves(t *testing.T) {
	const (
		first  = "Zmlyc3RmaXJzdGZpcnN0Zmlyc3Q=" // #nosec G101 -- of this test
		second = "c2Vjb25kc2Vjb25kc2Vjb25kc2U="
	)
	nsupdate := program(t, "nsupdate", "bind9-dnsutils")
	dir, port := t.TempDir(), freePort(t)
	write := writerIn(t, dir)
	keys := func(secret string) {
		write("keys", fmt.Sprintf("key \"par1.key\" {\n\talgorithm hmac-sha256;\n\tsecret \"%s\";\n};\n", secret))
	}
	corefile := func(more string) string {
		return write("Corefile", fmt.Sprintf(`gslb.example.org:%s {
		bind 127.0.0.1
		tsig {
			secrets %s/keys
		}
		dnsb {
			ns b1 127.0.0.1
			accept par1.key par1 any
		}
		%s
	}
	other.example.org:%[1]s { # has nothing to do with the keys of DNS-B
		bind 127.0.0.1
		tsig {
			secret other no-base64
		}
	}
	`, port, dir, more))
	}
	keys(first)
	s := start(t, "-conf", corefile(""))
	// accepted reports whether DNS-B takes a registration that is signed with a secret.
	accepted := func(secret string) bool {
		cmd := exec.Command(nsupdate, "-y", "hmac-sha256:par1.key:"+secret)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("server 127.0.0.1 %s\nzone gslb.example.org\n%s\nsend\n", port, registrationScript("par1", "192.0.2.53", "198.51.100.0/24")))
		out, err := cmd.CombinedOutput()
		return err == nil && len(out) == 0
	}
	// after waits until the program has logged a line once more than before the change.
	after := func(line string, change func()) {
		t.Helper()
		before := strings.Count(s.out.String(), line)
		change()
		wait(t, time.Minute, line, func() bool { return strings.Count(s.out.String(), line) > before })
	}
	reload := func() {
		if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	const (
		complete = "Reloading complete"
		due      = `/keys", using the previous version until the Corefile is reloaded`
	)
	if !accepted(first) || accepted(second) {
		t.Fatal("Expected the first secret alone to count")
	}

	lost := askAllTheTime(t, "127.0.0.1:"+port, "gslb.example.org.")
	after(complete, func() { keys(second) })
	if accepted(first) || !accepted(second) {
		t.Error("Expected the second secret alone to count after it was written")
	}
	if asked, failed := lost(); asked == 0 || failed > 0 {
		t.Errorf("Expected answers to all queries, got none to %d of %d", failed, asked)
	}

	after("Failed to read secrets of tsig in", func() { write("keys", "oops\n") })
	if !accepted(second) {
		t.Error("Expected the previous secret while the file has an error")
	}
	after("Recovered: secrets of tsig in", func() { keys(second) })
	after(complete, func() { keys(first) })
	if !accepted(first) {
		t.Error("Expected the first secret to count again")
	}

	corefile("reload 1h\nlog")
	after(due, func() { keys(second) })
	if !accepted(first) || accepted(second) {
		t.Error("Expected the first secret alone to count while the Corefile is edited")
	}
	after(complete, reload)
	if accepted(first) || !accepted(second) {
		t.Error("Expected the second secret alone to count after a reload by hand")
	}
	after(due, func() { keys(first) })
	if accepted(first) || !accepted(second) {
		t.Error("Expected the second secret alone to count beside *reload*")
	}
	if n := strings.Count(s.out.String(), "reloading the Corefile"); n != 2 {
		t.Errorf("Expected one reload for each of two changes, got %d", n)
	}
}

// askAllTheTime asks for the SOA record of a zone until the function that it
// returns is called, which returns how many queries there were, and how many of
// them without the answer.
func askAllTheTime(t *testing.T, server, zone string) (stop func() (asked, failed int)) {
	t.Helper()
	conn, err := dns.DialTimeout("udp", server, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var asked, failed int
	done := make(chan struct{})
	wg.Go(func() {
		defer conn.Close()
		client := dns.Client{Timeout: time.Minute} // a reply that is lost never comes
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
			asked++
			if r, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(zone, dns.TypeSOA), conn); err != nil || len(r.Answer) != 1 {
				failed++
			}
		}
	})
	return func() (int, int) {
		close(done)
		wg.Wait()
		return asked, failed
	}
}
