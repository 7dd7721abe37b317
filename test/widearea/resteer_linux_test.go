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

// Settings of the re-steering test.
const (
	steerNSTTL     = 10 * time.Second
	steerAnswerTTL = 5 * time.Second // none of the four keeps an answer for less
	// watchedFor is how long a resolver must not turn back.
	watchedFor = 5 * steerNSTTL
)

const steeringCorefile = `gslb.example.org {
	bind {{range .DNSB.Addrs}} {{.}}{{end}}
	dnsb {
		ns b1 {{range .DNSB.Addrs}} {{.}}{{end}}
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

// A node that answers with its own address tells which one was asked.
const steeredCorefile = `svc.gslb.example.org {
	bind {{range .Node.Addrs}} {{.}}{{end}}
	latencyprobe {
		rtt tcp 53
	}
	dnslb {
		server  me {{range .Node.Addrs}} {{.}}{{end}}
		service who.svc.gslb.example.org me
		ttl     2s {{.TTL}}
		node    {{.Node.Label}} {{range .Node.Addrs}} {{.}}{{end}}
	}
	errors
}
`

// TestResteer asks the resolvers for a name four times a second while DNS-B refers them from one node to another: each must use the new node when the TTLs of the NS
// record and of the answer have passed, and not turn back in five times the NS TTL.
func TestResteer(t *testing.T) {
	needNetwork(t, append([]string{"go"}, programs...)...)
	l := newLab(t, cities(t))
	program := build(t)

	var places []place
	byAddr := make(map[netip.Addr]string)
	for _, city := range nodeCities {
		places = append(places, place{Label: labels[city], Addrs: l.nodes[city].Addrs})
		for _, addr := range l.nodes[city].Addrs {
			byAddr[addr] = labels[city]
		}
	}
	orders := filepath.Join(t.TempDir(), "orders")
	steer := func(node string) {
		t.Helper()
		var text string
		for _, prefix := range both(isps) {
			text += fmt.Sprintf("pin %s %s until %s reason test\n", prefix, node, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}
		if err := os.WriteFile(orders+".new", []byte(text), 0o600); err != nil {
			t.Fatalf("Expected to write orders, got %v", err)
		}
		if err := os.Rename(orders+".new", orders); err != nil {
			t.Fatalf("Expected to write orders, got %v", err)
		}
	}
	before, after := labels["Paris"], labels["Osaka"]
	steer(before)
	run(t, l.dnsB, map[string]string{"Corefile": fill(t, steeringCorefile, map[string]any{
		"DNSB": l.dnsB, "Nodes": places, "TTL": steerNSTTL, "Admin": orders,
	})}, program, "-conf", "DIR/Corefile")
	for i, city := range nodeCities {
		run(t, l.nodes[city], map[string]string{"Corefile": fill(t, steeredCorefile, map[string]any{"Node": places[i], "TTL": steerAnswerTTL})},
			program, "-conf", "DIR/Corefile")
	}

	kinds := make(map[string]*isp)
	for _, i := range l.isps {
		kinds[i.kind.name] = i
	}
	referred := func(node string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			all := true
			for _, i := range kinds {
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
	referred(before)

	// When each resolver used which node.
	type use struct {
		at   time.Time
		node string
	}
	var mu sync.Mutex
	uses := make(map[string][]use)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for kind, i := range kinds {
		asking.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				node := "none"
				reply, _, err := ask(i.client, i.resolver.Addr(), "who.svc.gslb.example.org.", dns.TypeA, true, patience)
				if err == nil {
					if addrs := addresses(reply); len(addrs) == 1 {
						node = byAddr[addrs[0]]
					}
				}
				mu.Lock()
				uses[kind] = append(uses[kind], use{time.Now(), node})
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	time.Sleep(2 * steerNSTTL) // each has its referral and has renewed it
	steer(after)
	referred(after)
	at := time.Now()
	time.Sleep(watchedFor)
	close(stop)
	asking.Wait()

	allowed := steerNSTTL + steerAnswerTTL + ways
	for kind, list := range uses {
		first := slices.IndexFunc(list, func(u use) bool { return u.node == after })
		if first < 0 {
			t.Errorf("Expected %s to use the new node, got %s to the end", kind, list[len(list)-1].node)
			continue
		}
		if first == 0 || list[first-1].node != before {
			t.Errorf("Expected %s to use the old node until then, got %v", kind, list[:first])
		}
		took := list[first].at.Sub(at)
		t.Logf("%s uses the new node after %.1f s", kind, took.Seconds())
		if took > allowed {
			t.Errorf("Expected %s to use the new node within %v, got it after %v", kind, allowed, took)
		}
		for _, u := range list[first:] {
			if u.node != after {
				t.Errorf("Expected %s to keep to the new node, got %s after %v", kind, u.node, u.at.Sub(at))
				break
			}
		}
	}
}
