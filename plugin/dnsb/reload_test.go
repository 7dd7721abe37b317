package dnsb

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb/geodbtest"
)

const fileLines = `node st1 127.0.0.7
node st2 127.0.0.8
cut files st1 st2
`

// expectFilesReferral checks to which node resolvers of the cut files are referred.
func expectFilesReferral(t *testing.T, step, want string, port int) {
	t.Helper()
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
			d := runningZone("gslb.example.org.").youngest.Load()
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

// TestReloadAppliesGeoRulesBesideBadFiles checks that the geo rules of a Corefile take
// effect while a map file or a database has an error, as do lines of map files that
// refer to them.
func TestReloadAppliesGeoRulesBesideBadFiles(t *testing.T) {
	dir := t.TempDir()
	path, database := filepath.Join(dir, "map"), filepath.Join(dir, "asn.mmdb")
	const good = "10.0.0.0/8 st1\nasn AS64501 st1\n"
	records := map[string]mmdbtype.Map{
		"127.0.0.0/16": geodbtest.AS(64500), "10.0.0.0/8": geodbtest.AS(64501),
		"11.0.0.0/8": geodbtest.AS(64503), "12.0.0.0/8": geodbtest.AS(64504), "13.0.0.0/8": geodbtest.AS(64505),
	}
	files := fileLines + "default st1\nmap " + path + "\nmmdb " + database + "\n"
	for _, tc := range []struct {
		name  string
		spoil func()
		isMap bool
	}{
		{"bad map", func() { writeMap(t, path, "10.0.0.0/8 nobody\n") }, true},
		{"map of less than half", func() { writeMap(t, path, "asn AS64501 st1\n") }, true},
		{"bad database", func() { writeMap(t, database, "none") }, false},
		{"database of less than half", func() {
			writeDatabase(t, database, "GeoLite2-ASN", map[string]mmdbtype.Map{"192.0.2.0/24": geodbtest.AS(64502)})
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := logtest.Capture(t)
			content := good
			if tc.isMap {
				content += "127.0.0.1/32 AS64509\n"
			}
			writeMap(t, path, content)
			writeDatabase(t, database, "GeoLite2-ASN", records)
			s, port := serve(t, files+"asn AS64500 st1\n")
			expectFilesReferral(t, "start", "st1", port)
			tc.spoil()
			for _, step := range []struct{ lines, want string }{
				{"asn AS64500 st2 st1\n", "st2"}, {"asn AS64500 st1\n", "st1"}, {"asn AS64500 st2\nasn AS64502 st1\n", "st2"},
			} {
				log.Lines()
				if err := s.restart(files + step.lines); err != nil {
					t.Fatalf("Expected the reload to succeed, got %v", err)
				}
				if got := strings.Join(log.Lines(), "\n"); strings.Count(got, "Failed to reload the map, keeping the previous version: ") != 1 {
					t.Errorf("Expected one line in the log, got %s", got)
				}
				expectFilesReferral(t, step.lines, step.want, port)
			}
			if !tc.isMap {
				return
			}
			if err := s.restart(files + "asn AS64500 st1\nasn AS64509 st2\n"); err != nil {
				t.Fatal(err)
			}
			expectFilesReferral(t, "the AS of a line of the map", "st2", port)
		})
	}
}

// TestBlocksOfOneZoneKeepTheirMaps checks that each of two server blocks keeps the
// map of its own files.
func TestBlocksOfOneZoneKeepTheirMaps(t *testing.T) {
	dir := t.TempDir()
	ports := []int{testport.Free(t), testport.Free(t)}
	corefile := func(more string) caddy.Input {
		var text strings.Builder
		for i, port := range ports {
			fmt.Fprintf(&text, serverBlock, port, fileLines+"default st1\nmap "+filepath.Join(dir, fmt.Sprint(i))+"\n"+more)
			text.WriteString("\n")
		}
		return caddy.CaddyfileInput{Contents: []byte(text.String()), Filepath: "Corefile", ServerTypeName: "dns"}
	}
	expect := func(step string) {
		t.Helper()
		expectFilesReferral(t, step, "st1", ports[0])
		expectFilesReferral(t, step, "st2", ports[1])
	}
	for i, node := range []string{"st1", "st2"} {
		writeMap(t, filepath.Join(dir, fmt.Sprint(i)), "127.0.0.0/8 "+node+"\n10.0.0.0/8 st1\n")
	}
	instance, err := caddy.Start(corefile(""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		instance.ShutdownCallbacks()
		_ = instance.Stop()
	}()
	for _, port := range ports {
		begun(t, port)
	}
	expect("start")
	for _, content := range []string{"127.0.0.0/8 nobody\n", ""} { // an error, and less than half
		for i := range ports {
			writeMap(t, filepath.Join(dir, fmt.Sprint(i)), content)
		}
		for _, more := range []string{"ttl 77s\n", "ttl 78s\n"} {
			if instance, err = instance.Restart(corefile(more)); err != nil {
				t.Fatal(err)
			}
			for _, port := range ports {
				begun(t, port)
			}
			expect(fmt.Sprintf("map %q, %s", content, more))
		}
	}
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
