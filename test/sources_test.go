//go:build unix

package test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestServicesFollowZoneAndFile has services in a zone that the DNS-LB
// transfers from DNS-A, and others in a file, and changes both.
func TestServicesFollowZoneAndFile(t *testing.T) {
	dir := t.TempDir()
	port, probed := freePort(t), freePort(t)
	// 127.0.0.41 accepts probes, and 127.0.0.42 refuses them.
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
	wait(t, 30*time.Second, "an answer with the server of the zone that is up", answers("www", "127.0.0.41"))
	wait(t, 10*time.Second, "an answer with the server of the file that is up", answers("api", "127.0.0.41"))
	if r := query("www", dns.TypeMX); len(r.Answer) != 1 || len(r.Ns) != 0 || !r.Authoritative {
		t.Errorf("Expected the MX record of the zone without NS records, got %v", r)
	}

	zone(2, "www 60 IN A 127.0.0.42\nwww 60 IN A 127.0.0.41\nftp 60 IN A 127.0.0.41\n")
	write("services", "server ok 127.0.0.41\nserver dead 127.0.0.42\nservice www.svc.example.org answers 2\nservice ftp.svc.example.org\nservice new.svc.example.org ok\n")
	wait(t, 15*time.Second, "the new service in the file", answers("new", "127.0.0.41"))
	wait(t, 15*time.Second, "the new service in zone and file", answers("ftp", "127.0.0.41"))
	if r := query("api", dns.TypeA); r.Rcode != dns.RcodeNameError {
		t.Errorf("Expected NXDOMAIN for a removed service, got %v", r)
	}
	if r := query("www", dns.TypeMX); len(r.Answer) != 0 || len(r.Ns) != 1 {
		t.Errorf("Expected the MX record to be removed, got %v", r)
	}

	// A file with an error changes nothing.
	write("services", "server ok\n")
	s.waitFor("keeping the previous version", 15*time.Second)
	if !answers("new", "127.0.0.41")() {
		t.Error("Expected the previous services while the file has an error")
	}
}

// TestServicesFollowZoneWithSameSerial changes a zone that file reads again by the
// time of its file, without a larger serial.
func TestServicesFollowZoneWithSameSerial(t *testing.T) {
	dir, port, probed := t.TempDir(), freePort(t), freePort(t)
	zone := func(serial int, records ...string) {
		path := filepath.Join(dir, "zone")
		text := fmt.Sprintf("@ 60 IN SOA ns.example.org. hostmaster.example.org. %d 7200 1800 86400 60\n@ 60 IN NS ns.example.org.\n%s\n", serial, strings.Join(records, "\n"))
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	zone(7, "www 60 IN A 127.0.0.41", "www 60 IN A 127.0.0.42", "old 60 IN A 127.0.0.41")
	corefile := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(corefile, fmt.Appendf(nil, `svc.example.org:%s {
		bind 127.0.0.1
		file %s/zone {
			reload 1s
			reload_by_mtime
		}
		latencyprobe {
			rtt tcp %s
		}
		dnslb {
			service www.svc.example.org answers 16
			service old.svc.example.org answers 16
			service new.svc.example.org answers 16
		}
	}
	`, port, dir, probed), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "-conf", corefile)

	answers := func(name, want string) func() bool {
		return func() bool {
			m := new(dns.Msg).SetQuestion(name+".svc.example.org.", dns.TypeA)
			r, err := dns.Exchange(m, net.JoinHostPort("127.0.0.1", port))
			if err != nil {
				return false
			}
			got := []string{dns.RcodeToString[r.Rcode]}
			for _, rr := range r.Answer {
				got = append(got, rr.(*dns.A).A.String())
			}
			slices.Sort(got[1:])
			return strings.Join(got, " ") == want
		}
	}
	for _, step := range []struct {
		serial          int
		records         []string
		www, old, fresh string
	}{
		{7, nil, "NOERROR 127.0.0.41 127.0.0.42", "NOERROR 127.0.0.41", "NXDOMAIN"},
		{7, []string{"www 60 IN A 127.0.0.41", "www 60 IN A 127.0.0.43", "new 60 IN A 127.0.0.44"}, "NOERROR 127.0.0.41 127.0.0.43", "NXDOMAIN", "NOERROR 127.0.0.44"},
		{6, []string{"www 60 IN A 127.0.0.43", "old 60 IN A 127.0.0.44", "new 60 IN A 127.0.0.44"}, "NOERROR 127.0.0.43", "NOERROR 127.0.0.44", "NOERROR 127.0.0.44"},
	} {
		if step.records != nil {
			zone(step.serial, step.records...)
		}
		for name, want := range map[string]string{"www": step.www, "old": step.old, "new": step.fresh} {
			wait(t, 30*time.Second, fmt.Sprintf("%s to be %s", name, want), answers(name, want))
		}
	}
}

// TestReloadWithoutPrimaryKeepsZone reloads a DNS-LB while the primary of its
// zone is stopped: the DNS-LB answers from its zone as before, and takes the
// next zone when the primary is back. A DNS-LB that starts while the primary is
// stopped has no zone, and its log and _explain say so.
func TestReloadWithoutPrimaryKeepsZone(t *testing.T) {
	dir := t.TempDir()
	port, ready := freePort(t), freePort(t)
	write := writerIn(t, dir)
	zone := func(serial int) {
		write("zone", fmt.Sprintf("@ 60 IN SOA ns.example.org. hostmaster.example.org. %d 1 1 3600 60\n@ 60 IN NS ns.example.org.\nwww 60 IN A 127.0.0.42\nwww 60 IN A 127.0.0.41\nwww 60 IN TXT \"%[1]d\"\nalias 60 IN CNAME www\n", serial))
	}
	zone(1)
	dnsA := write("Corefile.dns-a", fmt.Sprintf("svc.example.org:%s {\nbind 127.0.0.1\nfile %s/zone\ntransfer {\nto *\n}\n}\n", port, dir))
	dnsLB := write("Corefile.dns-lb", fmt.Sprintf(`svc.example.org:%[1]s {
		bind 127.0.0.2
		secondary {
			transfer from 127.0.0.1:%[1]s
		}
		latencyprobe {
			rtt tcp %[1]s
			interval 1s
		}
		dnslb {
			node lb1 127.0.0.2
			explain 127.0.0.0/8
		}
		ready 127.0.0.2:%[2]s
	}
	`, port, ready))

	// text returns the RCODE, the AA bit and the records of an answer, and only
	// the serial of an SOA record.
	text := func(name string, qtype uint16) string {
		t.Helper()
		m := new(dns.Msg).SetQuestion(strings.TrimPrefix(name+".svc.example.org.", "@."), qtype)
		r, err := dns.Exchange(m, net.JoinHostPort("127.0.0.2", port))
		if err != nil {
			return err.Error()
		}
		out := []string{dns.RcodeToString[r.Rcode], fmt.Sprint(r.Authoritative)}
		for _, rr := range append(r.Answer, r.Ns...) {
			data := strings.TrimPrefix(rr.String(), rr.Header().String())
			if soa, ok := rr.(*dns.SOA); ok {
				data = fmt.Sprint(soa.Serial)
			}
			out = append(out, dns.Type(rr.Header().Rrtype).String()+" "+data)
		}
		return strings.Join(out, ", ")
	}
	isReady := func() bool {
		r, err := http.Get("http://" + net.JoinHostPort("127.0.0.2", ready) + "/ready")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	}
	expectZone := func(serial int) {
		t.Helper()
		for _, tc := range []struct {
			name  string
			qtype uint16
			want  string
		}{
			{"@", dns.TypeSOA, "NOERROR, true, SOA %d"},
			{"www", dns.TypeAAAA, "NOERROR, true, SOA %d"},
			{"www", dns.TypeTXT, "NOERROR, true, TXT \"%d\""},
			{"www", dns.TypeHTTPS, "NOERROR, true, SOA %d"},
			{"none", dns.TypeA, "NXDOMAIN, true, SOA %d"},
		} {
			if got, want := text(tc.name, tc.qtype), fmt.Sprintf(tc.want, serial); got != want {
				t.Errorf("%s %s: Expected %s, got %s", tc.name, dns.Type(tc.qtype), want, got)
			}
		}
		if got := text("alias", dns.TypeA); !strings.HasPrefix(got, "NOERROR, true, CNAME www.svc.example.org., A 127.0.0.4") {
			t.Errorf("Expected the alias with an address of the service, got %s", got)
		}
	}

	primary, s := start(t, "-conf", dnsA), start(t, "-conf", dnsLB)
	wait(t, 20*time.Second, "the DNS-LB to be ready", isReady)
	expectZone(1)
	primary.stop()
	for i := range 2 {
		reloaded := strings.Count(s.out.String(), "Reloading complete")
		if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		wait(t, 15*time.Second, fmt.Sprintf("reload %d", i+1), func() bool { return strings.Count(s.out.String(), "Reloading complete") > reloaded })
		expectZone(1)
	}
	s.waitFor(`Failed to transfer zone "svc.example.org." since the reload, keeping the previous version until `, 15*time.Second)
	expectZone(1)
	zone(2)
	primary = start(t, "-conf", dnsA)
	s.waitFor(`Loaded zone "svc.example.org.", serial 2:`, 30*time.Second)
	wait(t, 5*time.Second, "the zone with serial 2", func() bool { return text("@", dns.TypeSOA) == "NOERROR, true, SOA 2" })
	expectZone(2)

	primary.stop()
	s.stop()
	s = start(t, "-conf", dnsLB)
	s.waitFor(", server block not ready without it: no SOA", 20*time.Second)
	if !strings.Contains(s.out.String(), `Failed to load zone "svc.example.org." since `) {
		t.Errorf("Expected the log to name the zone, got %s", s.out.String())
	}
	if got := text("www", dns.TypeA); got != "SERVFAIL, false" || isReady() {
		t.Errorf("Expected SERVFAIL without the zone and the server not ready, got %s, ready %v", got, isReady())
	}
	if got := text("_explain", dns.TypeTXT); !strings.Contains(got, "missing zone: svc.example.org.") {
		t.Errorf("Expected _explain to name the zone, got %s", got)
	}
}
