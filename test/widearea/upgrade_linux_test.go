package widearea

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestUpgradeLosesNoAnswer starts DNS-B and the nodes with the program of the
// commit that UPGRADE_FROM names, and replaces it at one machine after the other, in
// several orders. Nodes get client subnets with the new program. Meanwhile clients
// use public resolvers, and must get the address of a server all the time.
func TestUpgradeLosesNoAnswer(t *testing.T) {
	commit := os.Getenv("UPGRADE_FROM")
	if commit == "" {
		t.Skip("This test needs an earlier version: set UPGRADE_FROM to a commit of this repository")
	}
	needNetwork(t, append([]string{"go", "git", "tar"}, programs...)...)
	m := cities(t)
	before, program := buildCommit(t, commit), build(t)
	for _, order := range [][]string{
		{dnsB, "NewYork", "Paris", "Osaka"},
		{"Paris", "Osaka", "NewYork", dnsB},
		{"Osaka", dnsB, "Paris", "NewYork"},
	} {
		t.Run(strings.Join(order, ","), func(t *testing.T) { upgrade(t, m, before, program, order) })
	}
}

const dnsB = "DNS-B"

// settled is the longest time until clients get their best servers after an
// upgrade. Each restart of a node changes the map twice; nodes fetch four versions at
// once and then one a minute, and look for one every 30 s.
const settled = 2 * time.Minute

func upgrade(t *testing.T, m *Matrix, before, program string, order []string) {
	t.Helper()
	cuts := threeCuts()
	for i := range cuts {
		cuts[i].Subnets = false
	}
	s := &subnetTest{matrix: m, tailor: make(map[string]bool), start: time.Now()}
	s.subnetLab = newSubnetLab(t, m, before, cuts)
	t.Cleanup(func() { publish(t, s.table.String()) })
	s.awaitNodes(t, s.want, time.Now().Add(readyWithin))
	s.awaitResolvers(t, time.Now().Add(readyWithin))
	s.once(t, "Upgrade in the order "+strings.Join(order, ", "))

	stop := sync.OnceFunc(s.askOn(t))
	defer stop()
	for _, machine := range order {
		if machine == dnsB {
			s.dnsB.end()
			s.dnsB.program = program
			s.restart(t, s.dnsB)
			continue
		}
		d := s.programs[machine]
		for i := range s.blocks[machine] {
			b := s.blocks[machine][i]
			b.Cut.Subnets = b.Cut.Name != without
		}
		text := strings.ReplaceAll(s.corefile(t, subnetCorefile, s.blocks[machine]), "DIR", d.dir)
		d.end()
		if err := os.WriteFile(filepath.Join(d.dir, "Corefile"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.program = program
		s.restart(t, d)
	}
	s.tailor[with], s.tailor[withSigs] = true, true
	s.await(t, "All machines are upgraded", settled)
}

// restart starts a program again, and waits until resolvers can be referred to all
// nodes.
func (s *subnetTest) restart(t *testing.T, d *daemon) {
	t.Helper()
	if err := d.start(t); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * registered); ; time.Sleep(100 * time.Millisecond) {
		missing := ""
		for city, blocks := range s.blocks {
			for i, b := range blocks {
				reply, _, err := ask(s.public[0].Host, s.dnsBs[0].Addr(), b.Label+".lb.gslb.example.org.", dns.TypeA, false, time.Second)
				if err != nil || len(reply.Answer) == 0 {
					missing = b.Label + " at DNS-B"
				} else if a := s.lookUp(s.public[0].Host, s.nodes[city].Addrs[2*i], b.Cut.Name, dns.TypeA, false); !a.ok {
					missing = b.Label
				}
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("Expected %s to work again in time, got no answer of %s", d.name, missing)
		}
	}
}

// askOn has the clients ask until stop is called. A reply without the address of a
// server is an error, and so is none to three questions in a row.
func (s *subnetTest) askOn(t *testing.T) (stop func()) {
	t.Helper()
	ended := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		asked, unanswered := 0, 0
		silent := make(map[lookup]int)
		for {
			for q, a := range s.round() {
				asked++
				if silent[q]++; a.city != noReply {
					delete(silent, q)
				} else {
					unanswered++
				}
				if silent[q] == 3 || a.city != noReply && !slices.Contains(serverCities, a.city) {
					t.Errorf("Expected a server for the %s by %s for %s, got %s", q.client.Name, q.public.name, q.cut, a.city)
				}
			}
			select {
			case <-ended:
				fmt.Fprintf(&s.table, "\n%d of %d queries without a reply within %v\n", unanswered, asked, patience)
				return
			case <-time.After(time.Second):
			}
		}
	})
	return func() { close(ended); asking.Wait() }
}

// buildCommit compiles the program of a commit.
func buildCommit(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "coredns-dnslb-"+commit)
	extract := exec.Command("sh", "-ec", `git archive "$0" | tar -x -C "$1"; cd "$1"; go build -o "$2" .`, commit, dir, name) // #nosec G204 -- a test
	extract.Dir = repository
	if out, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("Expected to build the program of %s, got error: %v: %s", commit, err, out)
	}
	return name
}
