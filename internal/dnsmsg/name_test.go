package dnsmsg

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestParent(t *testing.T) {
	for name, want := range map[string]string{"www.example.org.": "example.org.", `a\.b.org.`: "org.", "org.": ".", ".": "."} {
		if got := Parent(name); got != want {
			t.Errorf("Expected %q above %q, got %q", want, name, got)
		}
	}
}

func TestMailbox(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 61)+".", 4)
	for zone, want := range map[string]string{".": "hostmaster.", "example.org.": "hostmaster.example.org.", long: long} {
		if got := Mailbox(zone); got != want {
			t.Errorf("Expected %q for %q, got %q", want, zone, got)
		}
		if _, err := dns.PackRR(NewSOA(zone, zone, want, 1, 0), make([]byte, 1024), 0, nil, false); err != nil {
			t.Errorf("Expected the SOA record of %q to fit, got %v", zone, err)
		}
	}
}
