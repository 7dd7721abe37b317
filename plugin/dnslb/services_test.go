package dnslb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
)

func TestServicesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	corefile := func() *config {
		c := &config{
			Zones: []string{testZone}, probes: []string{""},
			inventory: inventory{map[string]serverConfig{"fra": machine("192.0.2.1")}, []serviceConfig{{name: "own." + testZone, servers: labelsOf("fra", "iad"), options: options{answers: 1}}}},
		}
		c.file = newServicesFile(path, c, false)
		return c
	}
	const good = "# servers\nserver iad 192.0.2.2 weight 2\nservice www.svc.gslb.example.org fra iad answers 2\n"
	tests := []struct{ name, text, want, err string }{
		{"good", good, "own fra=192.0.2.1 iad=192.0.2.2*2; www fra=192.0.2.1 iad=192.0.2.2*2", ""},
		{"unknown line", good + "sever x 192.0.2.3\n", "", ":4 - Error during parsing: unknown property 'sever', expected one of: server, service"},
		{"server of the Corefile", good + "server fra 192.0.2.3\n", "", ":4 - Error during parsing: server 'fra' is in the Corefile, too"},
		{"service of the Corefile", good + "service own.svc.gslb.example.org iad\n", "", ":4 - Error during parsing: service 'own.svc.gslb.example.org' is given twice"},
		{"unknown server", good + "\nservice ftp.svc.gslb.example.org nrt\n", "", ":5 - Error during parsing: service 'ftp.svc.gslb.example.org': there is no line 'server nrt"},
		{"server that the Corefile needs", "service www.svc.gslb.example.org fra\n", "", "there is no line 'server iad"},
		{"beside without register", good + "server par 192.0.2.3 beside par1\n", "", ":4 - Error during parsing: 'beside' needs 'register': what nodes measure comes with the map of DNS-B"},
		{"bad address", "server iad 192.0.2.300\n", "", ":1 - Error during parsing: invalid address '192.0.2.300'"},
		{"outside", good + "service www.example.org fra\n", "", "outside of the zone"},
		{"no line", "# all gone\n", "", "no 'server' and no 'service' line in "},
		{"no server", good + "service ftp.svc.gslb.example.org\n", "", ":4 - Error during parsing: service 'ftp.svc.gslb.example.org' names no server, and no backend plugin"},
		{"escaped", strings.Replace(good, "service www", `service \119\WW`, 1), "own fra=192.0.2.1 iad=192.0.2.2*2; www fra=192.0.2.1 iad=192.0.2.2*2", ""},
		{"not ASCII", good + "service bücher.svc.gslb.example.org fra\n", "", ":4 - Error during parsing: invalid name 'bücher.svc.gslb.example.org': names in the DNS are ASCII, write 'xn--bcher-kva.svc.gslb.example.org'"},
		{"server that is not ASCII", good + "server bücher 192.0.2.3\n", "", ":4 - Error during parsing: invalid server name 'bücher': names in the DNS are ASCII, write 'xn--bcher-kva'"},
		{"reserved", good + "service _explain.svc.gslb.example.org fra\n", "", "reserved"},
	}
	for _, tc := range tests {
		write(tc.text)
		c := corefile()
		s := newSources(c)
		err := c.file.Load()
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: Expected an error with %q, got %v", tc.name, tc.err, err)
		case tc.err == "" && err != nil:
			t.Errorf("%s: Expected no error, got %v", tc.name, err)
		case tc.err == "":
			if got := shown(s.snapshot()); got != tc.want {
				t.Errorf("%s: Expected %s, got %s", tc.name, tc.want, got)
			}
		}
	}

	fresh := func() *config {
		t.Helper()
		c := corefile()
		if err := c.file.Load(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	// A file with an error changes nothing.
	write(good)
	s := newSources(fresh())
	previous := shown(s.snapshot())
	changed := func() bool { return pollTwice(s) }
	for _, text := range []string{"nonsense\n", ""} {
		write(text)
		if changed() {
			t.Errorf("Expected no change by %q", text)
		}
		if got := shown(s.build()); got != previous {
			t.Errorf("Expected the previous services, got %s", got)
		}
	}
	if err := os.Remove(path); err != nil || changed() {
		t.Errorf("Expected no change by a missing file, %v", err)
	}
	write(strings.ReplaceAll(good, "answers 2", "") + "service ftp.svc.gslb.example.org iad\n")
	if !changed() {
		t.Error("Expected the file to be read again")
	}
	if got := shown(s.build()); !strings.Contains(got, "ftp iad") {
		t.Errorf("Expected another service, got %s", got)
	}

	// Only a reload takes a large file that lost most of its services.
	text := good
	for i := range large {
		text += fmt.Sprintf("service s%d.svc.gslb.example.org iad\n", i)
	}
	write(text)
	if !changed() {
		t.Fatal("Expected more services")
	}
	previous = shown(s.build())
	write(good)
	if changed() || shown(s.build()) != previous {
		t.Errorf("Expected the previous services, got %s", shown(s.build()))
	}
	if snap := newSources(fresh()).snapshot(); snap.services != 2 {
		t.Errorf("Expected a reload to read it, got %s", shown(snap))
	}
}

// pollTwice polls until a file that has changed has settled.
func pollTwice(s *sources) bool {
	first := s.poll()
	return s.poll() || first
}

func FuzzServices(f *testing.F) {
	f.Add("server fra 192.0.2.1 2001:db8::1 weight 2 bias 10ms tier 2 drain\nservice www.svc.gslb.example.org fra answers 2 within 5ms probe \"\"\n")
	f.Add("service *.svc.gslb.example.org {\n}\n")
	f.Add("server \"a\nb\" 192.0.2.1\nimport x\n")
	path := filepath.Join(f.TempDir(), "services")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &config{Zones: []string{testZone}, probes: []string{""}}
		c.file = newServicesFile(path, c, false)
		if err := c.file.Load(); err != nil {
			return
		}
		for _, p := range newSources(c).snapshot().pools {
			if len(p.answer.Load().addrs) == 0 {
				t.Errorf("Expected each pool to have an answer, got none for %v of %q", p.services, text)
			}
		}
	})
}

// TestFileSettlesWhileZoneIsMissing checks that a missing zone, which is polled
// often, does not make a file that is still being written be read.
func TestFileSettlesWhileZoneIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("service www.svc.gslb.example.org\n")
	conf := &config{Zones: []string{testZone}, probes: []string{""}}
	conf.file = newServicesFile(path, conf, false)
	if err := conf.file.Load(); err != nil {
		t.Fatal(err)
	}
	s := newSources(conf)
	s.setBackends([]transfer.Transferer{&fakeZone{err: errors.New("no SOA")}}, false)
	if s.poll(); s.wait() >= filewatch.SettleTime {
		t.Errorf("Expected a missing zone to be polled soon, got %s", s.wait())
	}
	write("service www.svc.gslb.example.org\nservice ftp.svc.gslb.example.org\n")
	if s.poll(); s.wait() != filewatch.SettleTime {
		t.Errorf("Expected to wait until the file settles, got %s", s.wait())
	}
}

func TestReloadKeepsPreviousVersionOfBadServicesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(lines string) (config, error) {
		return parse(block(t, head+"dnslb {\nservices "+path+"\n"+lines+"}\n}\n"))
	}
	const good = "server iad 192.0.2.2\nservice www.svc.gslb.example.org iad\n"
	write("server iad\n")
	if _, err := load(""); err == nil || !strings.Contains(err.Error(), path+":1 - ") {
		t.Fatalf("Expected the first start to fail with file and line, got %v", err)
	}
	write(good)
	running, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	h := new(reload.Holder)
	b, err := blocks.Hold(h, t.Name(), blockSettings{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blocks.Release(h) }()
	b.setSnapshot(&snapshot{}, &DNSLB{config: running})

	log := logtest.Capture(t)
	for name, spoil := range map[string]func(){
		"wrong":   func() { write("server iad\n") },
		"empty":   func() { write("") },
		"missing": func() { _ = os.Remove(path) },
	} {
		spoil()
		conf, err := load("server fra 192.0.2.1\nservice own.svc.gslb.example.org fra iad\n")
		if err != nil {
			t.Errorf("%s: Expected a good Corefile to be loaded, got %v", name, err)
			continue
		}
		log.Expect(t, "Failed to reload services file \""+path+"\", keeping the previous version: ")
		if i := conf.file.Value(); len(i.services) != 2 || len(i.servers) != 2 {
			t.Errorf("%s: Expected the previous file with the new lines of the Corefile, got %+v", name, i)
		}
		if _, err := load("server iad 192.0.2.9\n"); err == nil || !strings.Contains(err.Error(), "server 'iad' is in the Corefile, too") {
			t.Errorf("%s: Expected an error if the previous file does not fit the Corefile, got %v", name, err)
		}
	}
	write(good)
	if conf, err := load(""); err != nil || len(conf.file.Value().services) != 1 {
		t.Errorf("Expected the corrected file, got %v", err)
	}
	log.Expect(t)
}
