package dnsb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

const fileLines = `node st1 127.0.0.7
node st2 127.0.0.8
cut files st1 st2
`

// expectFilesReferral checks to which node resolvers of the cut files are referred.
func expectFilesReferral(t *testing.T, step, want string, port int) {
	t.Helper()
	// CoreDNS does not stop servers that have not begun to serve, as those of an
	// instance that is restarted at once.
	time.Sleep(50 * time.Millisecond)
	for _, rr := range query(t, port, "udp", "www.files.gslb.example.org.", dns.TypeA).Ns {
		if ns, ok := rr.(*dns.NS); ok {
			if got, _, _ := strings.Cut(ns.Ns, "."); got != want {
				t.Errorf("%s: Expected %s, got %s", step, want, got)
			}
			return
		}
	}
	t.Errorf("%s: Expected a referral", step)
}

func TestReloadKeepsPreviousVersionOfBadMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	lines := fileLines + "map " + path + "\n"
	writeMap(t, path, "127.0.0.0/8 st2\n10.0.0.0/8 st1\n10.1.0.0/16 st1\n10.2.0.0/16 st1\n10.4.0.0/16 st1\n10.5.0.0/16 st1\n")
	s, port := serve(t, lines+"prefix 10.3.0.0/16 st1\n")
	expectFilesReferral(t, "start", "st2", port)
	log := logtest.Capture(t)
	for name, spoil := range map[string]func(){
		"wrong":          func() { writeMap(t, path, "127.0.0.0/8 st1\n10.0.0.0/8 nobody\n") },
		"less than half": func() { writeMap(t, path, "127.0.0.0/8 st1\n") },
		"missing":        func() { _ = os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			log.Lines()
			if err := s.restart(lines + "prefix 127.0.0.0/16 st1\nttl 77s\n"); err != nil {
				t.Fatalf("Expected a good Corefile to be loaded, got %v", err)
			}
			if got := strings.Join(log.Lines(), "\n"); strings.Count(got, "Failed to reload the map, keeping the previous version: ") != 1 {
				t.Errorf("Expected one line in the log, got %s", got)
			}
			expectFilesReferral(t, "the new line of the Corefile", "st1", port)
			if err := s.restart(lines); err != nil {
				t.Fatal(err)
			}
			expectFilesReferral(t, "the previous map without the old lines of the Corefile", "st2", port)
			d := running("gslb.example.org.")
			if n := d.resolvers.prefixes.Operators(); n != 6 {
				t.Errorf("Expected the six prefixes of the file, got %d", n)
			}
			if err := s.restart(lines + "prefix 127.0.0.0/8 nobody"); err == nil {
				t.Error("Expected an error of the Corefile to count")
			}
			if err := s.restart(lines + "map " + path + ".other\n"); err == nil || !strings.Contains(err.Error(), "Corefile:") {
				t.Errorf("Expected a file that was never read to fail the reload, with its line, got %v", err)
			}
		})
	}
	writeMap(t, path, "127.0.0.0/8 st1\n10.0.0.0/8 st1\n10.1.0.0/16 st1\n")
	if err := s.restart(lines); err != nil {
		t.Fatal(err)
	}
	expectFilesReferral(t, "the corrected map", "st1", port)
}

func TestFirstStartNeedsGoodMap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	writeMap(t, path, "127.0.0.0/8 st2\n10.0.0.0/8 nobody\n")
	_, err := caddy.Start(corefileInput(testport.Free(t), fileLines+"map "+path))
	if err == nil || !strings.Contains(err.Error(), path+":2 - unknown node 'nobody'") {
		t.Errorf("Expected an error with file and line, got %v", err)
	}
}

func TestAdminFilePreventsNeitherStartNorReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	lines := fileLines + "prefix 127.0.0.0/8 st1 st2\nadmin " + path + "\n"
	const drain, end = "drain st1", " until 2100-01-31T18:00:00Z reason x\n"
	log := logtest.Capture(t)
	writeMap(t, path, drain+end+"drian st2"+end)
	s, port := serve(t, lines)
	if got := strings.Join(log.Lines(), "\n"); strings.Count(got, path+":2 - unknown verb 'drian'") != 1 {
		t.Errorf("Expected the error in the log once, got %s", got)
	}
	expectFilesReferral(t, "no overrides after a start", "st1", port)

	writeMap(t, path, drain+end)
	if err := s.restart(lines); err != nil {
		t.Fatal(err)
	}
	expectFilesReferral(t, "corrected", "st2", port)
	for step, text := range map[string]string{"unknown node": "drain nobody" + end, "typo": "oops\n", "no text": "\x00\xff\n"} {
		writeMap(t, path, text)
		for range 2 {
			if err := s.restart(lines + "ttl 77s\n"); err != nil {
				t.Fatalf("%s: Expected a reload, got %v", step, err)
			}
			if got := strings.Join(log.Lines(), "\n"); strings.Count(got, path+":1 - ") != 1 || strings.Contains(got, "Override ended") {
				t.Errorf("%s: Expected the error in the log once, got %s", step, got)
			}
			expectFilesReferral(t, step, "st2", port)
		}
	}
	writeMap(t, path, "")
	if err := s.restart(lines); err != nil {
		t.Fatal(err)
	}
	expectFilesReferral(t, "emptied", "st1", port)
}
