package main

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Each message is what its attack says: it unpacks, and has as many records or
// names as a message can have.
func TestMessages(t *testing.T) {
	for _, tc := range []struct {
		name       string
		m          []byte
		updates    int
		additional int
		atLeast    int // bytes
		names      int // in the last record
	}{
		{"compressed", compressed(zone, 1500), 1500, 0, 50_000, 0},
		{"signed with an unknown key", unknownKey(compressed(zone, 1500)), 1500, 1, 50_000, 0},
		{"names", rendezvous(zone, dns.OpcodeUpdate), 0, 1, 64_000, 32_000},
		{"strings", textStrings(), 0, 1, 65_000, 0},
		{"signed strings", signedStrings(), 1, 1, 64_000, 0},
		{"prerequisites", prerequisites(32), 0, 1, 300, 0},
		{"cuts", registers(manyCuts(1)), 1004, 2, 10_000, 0},
	} {
		m := new(dns.Msg)
		if err := m.Unpack(tc.m); err != nil {
			t.Errorf("%s: Expected a message, got %v", tc.name, err)
			continue
		}
		if len(m.Ns) != tc.updates || len(m.Extra) != tc.additional || len(tc.m) < tc.atLeast || len(tc.m) > dns.MaxMsgSize {
			t.Errorf("%s: Expected %d updates, %d additional records and %d bytes or more, got %d, %d and %d",
				tc.name, tc.updates, tc.additional, tc.atLeast, len(m.Ns), len(m.Extra), len(tc.m))
		}
		if tc.names > 0 && len(m.Extra[0].(*dns.HIP).RendezvousServers) != tc.names {
			t.Errorf("%s: Expected %d names, got %v", tc.name, tc.names, m.Extra[0])
		}
	}
	if len(compressed(zone, 1800)) < 64_000 || len(largest(1).Prefixes) != 160_000 {
		t.Error("Expected the longest message and registration")
	}
	if messages, err := largest(1).Messages(); err != nil || len(messages) < 10 {
		t.Errorf("Expected a registration in many parts, got %d, %v", len(messages), err)
	}
}

func TestUnknownAttack(t *testing.T) {
	for _, args := range [][]string{{"-attack", "none"}, {"apl"}} {
		if err := run(args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), args[len(args)-1]) {
			t.Errorf("%v: Expected an error that names it, got %v", args, err)
		}
	}
}

// Resolvers and nodes are served without an attack, and the attack is sent.
func TestFloodMeasures(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out bytes.Buffer
	if err := run([]string{"-program", program, "-attack", "header-100,prerequisites-32,node-explain", "-for", "500ms"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^(header-100|prerequisites-32|node-explain) +(off|on) +\d+\.\d\d +[1-9]\d* +[1-9]\d* +\d+\.\d% +\d+\.\d\d +\d+\.\d\d +\d+ +\d+% +\d+\.\d +\d+ +([1-9]\d* +[1-9]\d* +\d+\.\d\d)?$`)
	rows := row.FindAllStringSubmatch(out.String(), -1)
	if len(rows) != 6 {
		t.Fatalf("Expected six rows, got\n%s", &out)
	}
	for _, r := range rows {
		if (r[2] == "on") != (r[3] != "") {
			t.Errorf("Expected messages of the attack only while it is on, got\n%s", r[0])
		}
	}
}
