//go:build unix

package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A start ends in one of these ways.
const (
	starts           = "starts"
	startsWithErrors = "starts and logs an error" // such as a damaged file that was set aside
	failsToStart     = "fails to start"
)

// TestValidateAgreesWithStart checks that -validate finds all and only what the
// start finds, and leaves all files as they are.
func TestValidateAgreesWithStart(t *testing.T) {
	const (
		tsig   = "tsig {\n secret k1. c2VjcmV0LWV4YW1wbGUtb25seS1tYWtlLXlvdXItb3du\n}\n"
		dnsb   = "gslb.example.org:PORT {\n bind 127.0.0.1\n root DIR\n " + tsig
		simple = dnsb + "dnsb {\n ns b1 127.0.0.1\n accept k1 par1 any\n "
		dnslb  = "svc.example.org:PORT {\n bind 127.0.0.1\n root DIR\n "
		zone   = "@ 60 IN SOA ns root 1 60 60 60 60\n@ 60 IN NS ns.example.net.\nwww 60 IN A 192.0.2.1\nwww 60 IN A 192.0.2.2\n"
	)
	key, damage := "key \"k1\" { algorithm hmac-sha256; secret \"c2VjcmV0LWV4YW1wbGUtb25seS1tYWtlLXlvdXItb3du\"; };\n", strings.Repeat("x", 4096)
	for _, tc := range []struct {
		name     string
		files    map[string]string
		corefile string
		want     string
	}{
		{"all kinds of files", map[string]string{"map": "10.0.0.0/8 par1\n", "admin": ""}, dnsb + "latencyprobe {\n rtt tcp 53\n state state\n record trace\n}\n" +
			"dnsb {\n ns b1 127.0.0.1\n accept k1 par1 any\n map map\n admin admin\n export export\n store db store\n}\n}\n", starts},
		{"cut of a node that has not registered", nil, dnsb + "latencyprobe\ndnsb {\n ns b1 127.0.0.1\n accept k1 par1 any\n cut svc par1\n default par1\n explain 127.0.0.0/8\n}\n}\n", starts},
		{"bad map", map[string]string{"map": "10.0.0.0/8 par2\n"}, simple + "map map\n}\n}\n", failsToStart},
		{"no map", nil, simple + "map map\n}\n}\n", failsToStart},
		{"bad admin file", map[string]string{"admin": "oops\n"}, simple + "admin admin\n}\n}\n", startsWithErrors},
		{"unknown key", nil, dnsb + "dnsb {\n ns b1 127.0.0.1\n accept k2 par1 any\n}\n}\n", failsToStart},
		{"empty store", map[string]string{"store": ""}, simple + "store db store\n}\n}\n", starts},
		{"damaged store", map[string]string{"store": damage}, simple + "store db store\n}\n}\n", startsWithErrors},
		{"store in no directory", nil, simple + "store db none/store\n}\n}\n", failsToStart},
		{"store of two zones", nil, simple + "store db store\n}\n}\nother.example.org:PORT {\n bind 127.0.0.1\n" + tsig + " dnsb {\n ns b1 127.0.0.1\n accept k1 par1 any\n store db DIR/store\n}\n}\n", failsToStart},
		{"store of two blocks of a zone", nil, simple + "store db store\n}\n}\n" + strings.Replace(simple, ":PORT", ":OTHER", 1) + "store db store\n}\n}\n", starts},
		{"etcd that does not answer", nil, simple + "store etcd http://127.0.0.1:1\n}\n}\n", starts},
		{"damaged state file", map[string]string{"state": "oops"}, dnsb + "latencyprobe {\n rtt tcp 53\n state state\n}\n}\n", startsWithErrors},
		{"state file of two blocks", nil, dnsb + "latencyprobe {\n rtt tcp 53\n state state\n}\n}\n" + dnslb + "latencyprobe {\n rtt tcp 53\n state state\n}\n}\n", starts},
		{"no trace", map[string]string{"trace": "oops\n"}, dnsb + "latencyprobe {\n rtt tcp 53\n record trace\n}\n}\n", failsToStart},
		{"trace that is a directory", map[string]string{"trace/file": ""}, dnsb + "latencyprobe {\n rtt tcp 53\n record trace\n}\n}\n", failsToStart},
		{"services", map[string]string{"services": "server fra 192.0.2.1\nservice www.svc.example.org fra\n"}, dnslb + "latencyprobe {\n rtt tcp 53\n}\ndnslb {\n services services\n}\n}\n", starts},
		{"bad services", map[string]string{"services": "server fra oops\n"}, dnslb + "latencyprobe {\n rtt tcp 53\n}\ndnslb {\n services services\n}\n}\n", failsToStart},
		{"zone of file", map[string]string{"zone": zone}, dnslb + "latencyprobe {\n rtt tcp 53\n}\ndnslb\nfile zone\n}\n", starts},
		{"zone of dynupdate", map[string]string{"zone": zone}, dnslb + tsig + "latencyprobe {\n rtt tcp 53\n}\ndnslb\ndynupdate svc.example.org {\n file zone\n database DIR/dynupdate\n allow k1. * *\n}\n}\n", starts},
		{"static nodes that differ in client subnets", nil, dnsb + "dnsb {\n ns b1 127.0.0.1\n node par1 127.0.0.1 client-subnets\n node lon1 127.0.0.2\n cut svc par1 lon1\n}\n}\n", startsWithErrors},
		{"static nodes with client subnets", nil, dnsb + "dnsb {\n ns b1 127.0.0.1\n node par1 127.0.0.1 client-subnets\n node lon1 127.0.0.2 deputy par1 client-subnets\n cut svc par1 lon1\n}\n}\n", starts},
		{"signed zone", map[string]string{"zone": zone + "@ 60 IN DNSKEY 257 3 13 aaaa\n@ 60 IN RRSIG SOA 13 3 60 20300101000000 20200101000000 1 svc.example.org. aaaa\n"},
			dnslb + "latencyprobe {\n rtt tcp 53\n}\ndnslb\nfile zone\n}\n", failsToStart},
		{"bad key", map[string]string{"key": "oops"}, dnslb + "latencyprobe {\n rtt tcp 53\n}\ndnslb {\n server fra 192.0.2.1\n service www fra\n node par1 127.0.0.1\n register 127.0.0.1:1\n key key\n}\n}\n", failsToStart},
		{"node", map[string]string{"key": key, "near": "192.0.2.0/24\n"},
			dnslb + "latencyprobe {\n rtt tcp 53\n}\ndnslb {\n server fra 192.0.2.1\n service www.svc.example.org fra\n node par1 127.0.0.1\n near near\n register 127.0.0.1:1\n key key\n}\n}\n", starts},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tc.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			corefile := filepath.Join(t.TempDir(), "Corefile")
			text := strings.NewReplacer(":PORT", ":"+freePort(t), ":OTHER", ":"+freePort(t), "DIR", dir).Replace(tc.corefile)
			if err := os.WriteFile(corefile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			before := listing(t, dir)
			out, status := run(t, "-validate", "-conf", corefile)
			if after := listing(t, dir); after != before {
				t.Errorf("Expected -validate to change no file, got\n%s instead of\n%s", after, before)
			}
			if (status == 0) != (tc.want == starts) || strings.Contains(out, "panic") {
				t.Errorf("Expected -validate to agree with a server that %s, got status %d: %s", tc.want, status, out)
			}
			if got, log := startOf(t, corefile); got != tc.want {
				t.Errorf("Expected a server that %s, got one that %s: %s", tc.want, got, log)
			}
		})
	}
}

// TestValidateListsErrorsOfAllLines checks that each wrong line of blocks and files is
// an error of its own.
func TestValidateListsErrorsOfAllLines(t *testing.T) {
	dir := t.TempDir()
	corefile := filepath.Join(dir, "Corefile")
	for path, text := range map[string]string{
		corefile: `svc.example.org:1053 {
	root ` + dir + `
	latencyprobe {
		rtt oops 443
		interval 5
	}
	dnslb {
		services services
		ttl 20
		lease 1s
		near-by 192.0.2.0/24
	}
}
gslb.example.org:1053 {
	root ` + dir + `
	tsig {
		secret k1. not-base64!
	}
	dnsb {
		ns b1 127.0.0.1
		accept k1 par1 any
		map map
		prefix 192.0.2.0/24 par3
	}
}
`,
		filepath.Join(dir, "services"): "server fra oops\nserver iad 192.0.2.1\nservices www\n",
		filepath.Join(dir, "map"):      "10.0.0.0/8 par1\n10.1.0.0/8 par1\n10.2.0.0/16 par2\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wants := []string{
		"Corefile:4 ", "Corefile:5 ", "Corefile:9 ", "Corefile:10 ", "Corefile:11 ", "services:1 ", "services:3 ",
		"Corefile:23 - Error during parsing: unknown node 'par3'", "the secret of key 'k1.', in the tsig of this server block, is not base64", "map:2 ", "map:3 ",
	}
	out, status := run(t, "-validate", "-conf", corefile)
	if status == 0 || !strings.Contains(out, fmt.Sprintf("problems found: %d", len(wants))) {
		t.Errorf("Expected %d problems, got status %d: %s", len(wants), status, out)
	}
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("Expected a line with %q, got %s", want, out)
		}
	}
}

// errorLine matches what a server logs of a file, or of its Corefile, before it
// serves.
var errorLine = regexp.MustCompile(`\[(ERROR|WARNING)\] plugin/(dnsb|dnslb|latencyprobe): (Failed to (load|read)|Set aside|Found nodes)`)

// startOf starts and ends a server, and returns how the start ended.
func startOf(t *testing.T, corefile string) (end, log string) {
	t.Helper()
	s := launch(t, "-conf", corefile)
	failed := false
	wait(t, 20*time.Second, "the server to start or to end", func() bool {
		select {
		case <-s.done:
			failed = true
			return true
		default:
			return strings.Contains(s.out.String(), "CoreDNS-")
		}
	})
	log, _, _ = strings.Cut(s.out.String(), "CoreDNS-")
	s.stop()
	switch {
	case failed:
		return failsToStart, log
	case errorLine.MatchString(log):
		return startsWithErrors, log
	}
	return starts, log
}

// listing returns the files of a directory, with their sizes and times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err == nil {
			fmt.Fprintf(&list, "%s %d %s %s\n", path, info.Size(), info.Mode(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// TestValidateBesideServer checks that a Corefile can be validated while a server
// has its store open and writes to it.
func TestValidateBesideServer(t *testing.T) {
	dir, corefile, _ := files(t)
	s := start(t, "-conf", corefile)
	s.waitFor("Registered node", 20*time.Second)
	if out, status := run(t, "-validate", "-conf", corefile); status != 0 {
		t.Errorf("Expected -validate to succeed beside a server, got status %d: %s", status, out)
	}
	// The store has the node now, which a Corefile with another accept line ignores.
	text, err := os.ReadFile(corefile)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte(strings.Replace(string(text), "accept k1 par1 any", "accept k1 nyc1 any", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, status := run(t, "-validate", "-conf", other); status != 0 {
		t.Errorf("Expected a stored node that may no longer register to be no error, got status %d: %s", status, out)
	}
	s.stop()
	if strings.Contains(s.out.String(), "damaged") {
		t.Error("Expected the store of the server to be left as it is")
	}
}
