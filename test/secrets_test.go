//go:build unix

package test

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestChangedSecretsFileIsReported changes the file with the keys of a DNS-B while
// it runs: the log says that a reload is due, and after it the keys count. A file
// with an error changes nothing.
func TestChangedSecretsFileIsReported(t *testing.T) {
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
	keys(first)
	s := start(t, "-conf", write("Corefile", fmt.Sprintf(`gslb.example.org:%s {
		bind 127.0.0.1
		tsig {
			secrets %s/keys
		}
		dnsb {
			ns b1 127.0.0.1
			accept par1.key par1 any
		}
	}
	`, port, dir)))
	// accepted reports whether DNS-B takes a registration that is signed with a secret.
	accepted := func(secret string) bool {
		cmd := exec.Command(nsupdate, "-y", "hmac-sha256:par1.key:"+secret)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("server 127.0.0.1 %s\nzone gslb.example.org\n%s\nsend\n", port, registrationScript("par1", "192.0.2.53", "198.51.100.0/24")))
		out, err := cmd.CombinedOutput()
		return err == nil && len(out) == 0
	}
	if !accepted(first) || accepted(second) {
		t.Fatal("Expected the first secret alone to count")
	}

	const changed = "have changed, using the previous version until the Corefile is reloaded"
	reload := func(result string) {
		t.Helper()
		before := strings.Count(s.out.String(), result)
		if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		wait(t, time.Minute, result, func() bool { return strings.Count(s.out.String(), result) > before })
	}
	keys(second)
	s.waitFor(changed, time.Minute)
	if !accepted(first) || accepted(second) {
		t.Error("Expected the first secret alone to count before a reload")
	}
	reload("Reloading complete")
	if accepted(first) || !accepted(second) {
		t.Error("Expected the second secret alone to count after a reload")
	}

	write("keys", "oops\n")
	wait(t, time.Minute, "the next change to be reported", func() bool { return strings.Count(s.out.String(), changed) == 2 })
	reload("Restart failed")
	if !accepted(second) {
		t.Error("Expected the previous secret while the file has an error")
	}
	keys(first)
	reload("Reloading complete")
	if !accepted(first) {
		t.Error("Expected the first secret to count again")
	}
}
