//go:build unix

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestSources keeps services as plain records at DNS-A, which a DNS-LB pulls, and
// others in a file, and changes both.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	port, probed := freePort(t), freePort(t)
	// 127.0.0.41 answers probes, .42 refuses them.
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.41", probed))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	zone := func(serial int, records string) {
		write("zone", fmt.Sprintf("@ 60 IN SOA ns.example.org. hostmaster.example.org. %d 1 1 3600 60\n@ 60 IN NS ns.example.org.\n%s", serial, records))
	}
	zone(1, "www 60 IN A 127.0.0.42\nwww 60 IN A 127.0.0.41\nwww 60 IN MX 10 mail.example.org.\n")
	write("services", "server ok 127.0.0.41\nserver dead 127.0.0.42\nservice www.svc.example.org\nservice api.svc.example.org dead ok\n")
	corefile := write("Corefile", fmt.Sprintf(`svc.example.org:%[1]s {
		bind 127.0.0.1
		file %[2]s/zone {
			reload 1s
		}
		transfer {
			to * 127.0.0.2:%[1]s
		}
	}
	svc.example.org:%[1]s {
		bind 127.0.0.2
		secondary {
			transfer from 127.0.0.1:%[1]s
		}
		latencyprobe {
			rtt tcp %[3]s
			interval 1s
		}
		dnslb {
			services %[2]s/services
			node lb1 127.0.0.2
		}
	}
	`, port, dir, probed))
	s := start(t, "-conf", corefile)

	query := func(name string, qtype uint16) *dns.Msg {
		t.Helper()
		r, err := dns.Exchange(new(dns.Msg).SetQuestion(name+".svc.example.org.", qtype), net.JoinHostPort("127.0.0.2", port))
		if err != nil {
			return new(dns.Msg)
		}
		return r
	}
	answers := func(name, want string) func() bool {
		return func() bool {
			r := query(name, dns.TypeA)
			var got []string
			for _, rr := range r.Answer {
				if a, ok := rr.(*dns.A); ok {
					got = append(got, a.A.String())
				}
			}
			return strings.Join(got, " ") == want
		}
	}
	wait(t, 30*time.Second, "the server that is up, from the zone", answers("www", "127.0.0.41"))
	wait(t, 10*time.Second, "the server that is up, from the file", answers("api", "127.0.0.41"))
	if r := query("www", dns.TypeMX); len(r.Answer) != 1 || len(r.Ns) != 0 || !r.Authoritative {
		t.Errorf("Expected other types from the zone, without NS records, got %v", r)
	}

	zone(2, "www 60 IN A 127.0.0.42\nwww 60 IN A 127.0.0.41\nftp 60 IN A 127.0.0.41\n")
	write("services", "server ok 127.0.0.41\nserver dead 127.0.0.42\nservice www.svc.example.org answers 2\nservice ftp.svc.example.org\nservice new.svc.example.org ok\n")
	wait(t, 15*time.Second, "a service that is new in the file", answers("new", "127.0.0.41"))
	wait(t, 15*time.Second, "a service that is new in both", answers("ftp", "127.0.0.41"))
	if r := query("api", dns.TypeA); r.Rcode != dns.RcodeNameError {
		t.Errorf("Expected a service that was removed not to exist, got %v", r)
	}
	if r := query("www", dns.TypeMX); len(r.Answer) != 0 || len(r.Ns) != 1 {
		t.Errorf("Expected no MX record any more, got %v", r)
	}

	// What is wrong changes nothing.
	write("services", "server ok\n")
	s.waitFor("stays as it was", 15*time.Second)
	if !answers("new", "127.0.0.41")() {
		t.Error("Expected the services of before when the file is wrong")
	}
}
