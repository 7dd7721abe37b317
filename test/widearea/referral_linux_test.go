package widearea

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Settings of DNS-B and of the nodes in this test.
const (
	nsTTL          = 10 * time.Second
	shortAnswerTTL = 5 * time.Second // no resolver here caches an answer for a shorter time
	// observed is how long a resolver must not return to the first node.
	observed = 5 * nsTTL
)

const pinningCorefile = `gslb.example.org {
	bind {{range .DNSB.Addrs}} {{.}}{{end}}
	dnsb {
		ns b0 {{range .DNSB.Addrs}} {{.}}{{end}}
{{- range .Nodes}}
		node {{.Label}} {{range .Addrs}} {{.}}{{end}}
{{- end}}
		cut svc.gslb.example.org {{range .Nodes}} {{.Label}}{{end}}
		default {{range .Nodes}} {{.Label}}{{end}}
		ttl {{.TTL}}
		admin {{.Admin}}
	}
	errors
}
`

// The address in the answer is that of the node that was asked.
const selfAnsweringCorefile = `svc.gslb.example.org {
	bind {{range .Node.Addrs}} {{.}}{{end}}
	latencyprobe {
		rtt tcp 53
	}
	dnslb {
		server  self {{range .Node.Addrs}} {{.}}{{end}}
		service node.svc.gslb.example.org self
		ttl     2s {{.TTL}}
		node    {{.Node.Label}} {{range .Node.Addrs}} {{.}}{{end}}
	}
	errors
}
`

// TestResolversFollowNewReferral asks the resolvers for a name four times a
// second while DNS-B changes its referral from one node to another. Each must
// use the new node when the TTLs of the NS record and of the answer have
// passed, and not return to the first node in five times the TTL of the NS
// record.
func TestResolversFollowNewReferral(t *testing.T) {
	needNetwork(t, append([]string{"go"}, programs...)...)
	l := newLab(t, cities(t), oneDNSB)
	program := build(t)

	var machines []machine
	byAddr := make(map[netip.Addr]string)
	for _, city := range nodeCities {
		machines = append(machines, machine{Label: labels[city], Addrs: l.nodes[city].Addrs})
		for _, addr := range l.nodes[city].Addrs {
			byAddr[addr] = labels[city]
		}
	}
	overrides := filepath.Join(t.TempDir(), "overrides")
	pin := func(node string) {
		t.Helper()
		var text string
		for _, prefix := range bothFamilies(isps) {
			text += fmt.Sprintf("pin %s %s until %s reason test\n", prefix, node, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}
		if err := os.WriteFile(overrides+".new", []byte(text), 0o600); err != nil {
			t.Fatalf("Expected to write overrides, got %v", err)
		}
		if err := os.Rename(overrides+".new", overrides); err != nil {
			t.Fatalf("Expected to write overrides, got %v", err)
		}
	}
	first, second := labels["Paris"], labels["Osaka"]
	pin(first)
	run(t, l.dnsBs[0], map[string]string{"Corefile": fill(t, pinningCorefile, map[string]any{
		"DNSB": l.dnsBs[0], "Nodes": machines, "TTL": nsTTL, "Admin": overrides,
	})}, program, "-conf", "DIR/Corefile")
	for i, city := range nodeCities {
		run(t, l.nodes[city], map[string]string{"Corefile": fill(t, selfAnsweringCorefile, map[string]any{"Node": machines[i], "TTL": shortAnswerTTL})},
			program, "-conf", "DIR/Corefile")
	}

	byKind := make(map[string]*isp)
	for _, i := range l.isps {
		byKind[i.kind.name] = i
	}
	awaitReferralsTo := func(node string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			all := true
			for _, i := range byKind {
				got, err := l.referral(i)
				all = all && err == nil && got == node
			}
			if all {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("Expected DNS-B to refer all resolvers to %s", node)
			}
		}
	}
	awaitReferralsTo(first)

	// answers are the nodes that answered each kind of resolver, in order of
	// time.
	type answer struct {
		at   time.Time
		node string
	}
	var mu sync.Mutex
	answers := make(map[string][]answer)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for kind, i := range byKind {
		asking.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				node := "none"
				reply, _, err := ask(i.client, i.resolver.Addr(), "node.svc.gslb.example.org.", dns.TypeA, true, patience)
				if err == nil {
					if addrs := addresses(reply); len(addrs) == 1 {
						node = byAddr[addrs[0]]
					}
				}
				mu.Lock()
				answers[kind] = append(answers[kind], answer{time.Now(), node})
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	time.Sleep(2 * nsTTL) // each resolver has renewed its referral
	pin(second)
	awaitReferralsTo(second)
	changed := time.Now()
	time.Sleep(observed)
	close(stop)
	asking.Wait()

	allowed := nsTTL + shortAnswerTTL + overhead
	for kind, list := range answers {
		index := slices.IndexFunc(list, func(a answer) bool { return a.node == second })
		if index < 0 {
			t.Errorf("Expected %s to use the second node, got %s until the end", kind, list[len(list)-1].node)
			continue
		}
		if index == 0 || list[index-1].node != first {
			t.Errorf("Expected %s to use the first node before, got %v", kind, list[:index])
		}
		took := list[index].at.Sub(changed)
		t.Logf("%s used the second node after %.1f s", kind, took.Seconds())
		if took > allowed {
			t.Errorf("Expected %s to use the second node within %v, got %v", kind, allowed, took)
		}
		for _, a := range list[index:] {
			if a.node != second {
				t.Errorf("Expected %s to stay with the second node, got %s after %v", kind, a.node, a.at.Sub(changed))
				break
			}
		}
	}
}
