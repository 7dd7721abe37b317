package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStatus reads the state of the example as JSON, before and after a reload.
func TestStatus(t *testing.T) {
	e := newExample(t)
	e.addNear()
	port := freePort(t)
	e.replace("        status  8053 ", "        status  "+port+" ")
	s := start(t, "-conf", e.path)
	s.waitFor(`Registered node "par1" by key`, 30*time.Second)
	s.waitFor(`Registered node "nyc1" by key`, 30*time.Second)
	get := func(path string, into any) (code int) {
		t.Helper()
		client := http.Client{Timeout: 5 * time.Second}
		r, err := client.Get("http://127.0.0.1:" + port + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if err := json.NewDecoder(r.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
		return r.StatusCode
	}
	type state struct {
		Version int
		Blocks  []struct {
			Plugin, Zone string
			State        struct {
				Node      string
				MapSerial uint32 `json:"map_serial"`
				Nodes     []struct {
					Node, State string
					Map         *struct{ Serial uint32 }
				}
				Rankings      []struct{ Service, Type string }
				Registrations []struct{ Up bool }
			}
		}
	}
	look := func() string {
		t.Helper()
		var got state
		if code := get("/status.json", &got); code != http.StatusOK || got.Version != 1 {
			t.Errorf("Expected version 1, got %d, %+v", code, got)
		}
		var blocks []string
		for _, b := range got.Blocks {
			text := b.Plugin + " " + b.Zone + " " + b.State.Node
			for _, n := range b.State.Nodes {
				text += n.Node + "=" + n.State
				if n.Map != nil && n.Map.Serial == b.State.MapSerial {
					text += "+map"
				}
				text += " "
			}
			for _, r := range b.State.Rankings {
				text += fmt.Sprintf(" %s %s %v", r.Service, r.Type, b.State.Registrations[0].Up)
			}
			blocks = append(blocks, strings.TrimSpace(text))
		}
		return strings.Join(blocks, "; ")
	}
	const want = "dnsb gslb.example.org. nyc1=live+map par1=live+map; dnslb svc.gslb.example.org. par1 www.svc.gslb.example.org. A true; dnslb svc.gslb.example.org. nyc1 www.svc.gslb.example.org. A true"
	wait(t, 30*time.Second, "the state "+want, func() bool { return look() == want })

	var explained struct {
		Explanations []struct {
			Plugin      string
			Explanation struct {
				Layer    string
				Referral []struct{ Node string }
			}
		}
	}
	if code := get("/explain.json?name=www.svc.gslb.example.org&address=127.0.1.10", &explained); code != http.StatusOK || len(explained.Explanations) != 3 ||
		explained.Explanations[0].Explanation.Referral[0].Node != "par1" || explained.Explanations[0].Explanation.Layer != "registration" {
		t.Errorf("Expected the explanations of three blocks, got %d, %+v", code, explained)
	}
	var failed struct{ Errors []string }
	if code := get("/explain.json?name=www.example.net&address=127.0.1.10", &failed); code != http.StatusNotFound || len(failed.Errors) == 0 {
		t.Errorf("Expected the reasons, got %d, %q", code, failed.Errors)
	}

	// probes returns how many probes the history of each node has.
	probes := func() (counts []int) {
		t.Helper()
		var got struct {
			Histories []struct {
				History struct {
					Servers []struct {
						Hour struct{ Slots []struct{ All int } }
					}
				}
			}
		}
		if code := get("/history.json?name=www.svc.gslb.example.org", &got); code != http.StatusOK || len(got.Histories) != 2 {
			t.Errorf("Expected the histories of two nodes, got %d, %+v", code, got)
		}
		for _, h := range got.Histories {
			n := 0
			for _, server := range h.History.Servers {
				for _, slot := range server.Hour.Slots {
					n += slot.All
				}
			}
			counts = append(counts, n)
		}
		return counts
	}
	before := probes()

	e.replace("        default nyc1  ", "        default par1  ")
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	wait(t, 30*time.Second, "the reload", func() bool {
		return get("/explain.json?name=www.svc.gslb.example.org&address=127.0.9.9", &explained) == http.StatusOK && explained.Explanations[0].Explanation.Referral[0].Node == "par1"
	})
	// The nodes fetch the map that has changed a moment later.
	wait(t, 30*time.Second, "the same state after the reload, "+want, func() bool { return look() == want })
	for i, n := range probes() {
		if n < before[i] || before[i] < 3 {
			t.Errorf("Expected the history to go on, got %d probes before the reload and %d after it", before[i], n)
		}
	}

	e.replace("        node     par1 127.0.0.3\n", "        node     par1 127.0.0.3\n        status   [::1]:"+port+"\n")
	if out, status := run(t, "-validate", "-conf", e.path); status == 0 || !strings.Contains(out, "'status' has the address") {
		t.Errorf("Expected a second address to be an error, got %d: %s", status, out)
	}
}
