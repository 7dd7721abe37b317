//go:build unix

package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestNodeRegistersInParts has a node with more prefixes than fit into one
// message.
func TestNodeRegistersInParts(t *testing.T) {
	const count = 100_000
	dir := t.TempDir()
	near := filepath.Join(dir, "near")
	f, err := os.Create(near)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range count {
		fmt.Fprintf(w, "%d.%d.%d.0/24\n", 16+i>>16, i>>8&255, i&255)
	}
	fmt.Fprintln(w, "127.0.0.0/8")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	port, metrics := freePort(t), freePort(t)
	path := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(path, fmt.Appendf(nil, `gslb.example.org:%[1]s {
		bind 127.0.0.1
		tsig {
			secret par1.key.example.org. cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
		}
		dnsb {
			ns b1 127.0.0.1
			accept par1.key.example.org par1 any for svc.gslb.example.org
			store db %[2]s/store
		}
		prometheus 127.0.0.1:%[3]s
	}
	svc.gslb.example.org:%[1]s {
		bind 127.0.0.2
		latencyprobe {
			rtt tcp %[1]s
			interval 1s
		}
		dnslb {
			server a 127.0.0.1
			service www.svc.gslb.example.org a
			node par1 127.0.0.2
			near %[4]s
			register 127.0.0.1:%[1]s
			key par1.key.example.org cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==
		}
	}
	`, port, dir, metrics, near), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "-conf", path)
	registered := func() float64 {
		return scrape(t, "http://127.0.0.1:"+metrics+"/metrics")[`coredns_dnsb_map_prefixes{source="registration",zone="gslb.example.org."}`]
	}
	wait(t, 30*time.Second, "all prefixes at DNS-B", func() bool { return registered() == count+1 })
	r, err := dns.Exchange(new(dns.Msg).SetQuestion("www.svc.gslb.example.org.", dns.TypeA), net.JoinHostPort("127.0.0.1", port))
	if err != nil || len(r.Ns) != 1 || r.Ns[0].(*dns.NS).Ns != "par1.lb.gslb.example.org." {
		t.Errorf("Expected a referral to the node, got %v, %v", r, err)
	}

	// The node withdraws, and registers again.
	if took := s.stop(); took > 10*time.Second {
		t.Errorf("Expected an end within 10s, took %s", took)
	}
	start(t, "-conf", path)
	wait(t, 30*time.Second, "all prefixes at DNS-B again", func() bool { return registered() == count+1 })
}
