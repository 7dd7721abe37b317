package dnsb

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

func TestAdminFile(t *testing.T) {
	log := logtest.Capture(t)
	path := filepath.Join(t.TempDir(), "admin")
	for content, want := range map[string]string{
		"# nothing\n": "",
		"drain par1 until 2026-01-31T18:00:00Z reason until then\npin 10.0.0.0/8 par1 nyc1 until 2026-01-31T18:00:00+01:00 reason a reason\n": "",
		"forget nyc1 until 2026-01-31T18:00:00Z reason gone\n":                                                                                "",
		"\ndrain par1\n": "admin:2 - 'drain par1' has no reason: add 'reason TEXT...'",
		"drain par1 until 2026-01-31T18:00:00Z\n":                   "has no reason",
		"drain par1 until 2026-01-31T18:00:00Z reason # why\n":      "has no reason",
		"drain par1 reason new disk\n":                              "has no end: add 'until TIME'",
		"drain until 2026-01-31T18:00:00Z reason x\n":               "expected 'drain NODE until TIME reason TEXT...'",
		"drain par1 nyc1 until 2026-01-31T18:00:00Z reason x\n":     "expected 'drain NODE until TIME reason TEXT...'",
		"drain lon1 until 2026-01-31T18:00:00Z reason x\n":          "unknown node 'lon1'",
		"drain par1 until tomorrow reason x\n":                      "invalid time 'tomorrow': expected date, time and zone, such as 2026-01-31T18:00:00Z",
		"drain par1 until 2026-01-31 reason x\n":                    "invalid time '2026-01-31': expected date, time and zone",
		"drain par1 until 2026-01-31 18:00 reason x\n":              "expected 'until TIME reason TEXT...'",
		"drain par1 until reason x\n":                               "expected 'until TIME reason TEXT...'",
		"pin 10.0.0.0/8 until 2026-01-31T18:00:00Z reason x\n":      "expected 'pin PREFIX NODE... until TIME reason TEXT...'",
		"pin 10.0.0.1/8 par1 until 2026-01-31T18:00:00Z reason x\n": "did you mean 10.0.0.0/8?",
		"# first\nstop par1 until 2026-01-31T18:00:00Z reason x\n":  "admin:2 - unknown verb 'stop', expected one of: drain, forget, pin",
	} {
		writeMap(t, path, content)
		if _, err := parse(controller(fmt.Sprintf("dnsb {\nns b1 192.0.2.1\nnode par1 192.0.2.53\naccept k1 nyc1 any\nadmin %s\n}", path))); err != nil {
			t.Errorf("%q: Expected a start, got: %v", content, err)
		}
		switch got := strings.Join(log.Lines(), "\n"); {
		case want == "" && got != "":
			t.Errorf("%q: Expected no error, got: %v", content, got)
		case want != "" && !strings.Contains(got, want):
			t.Errorf("%q: Expected an error with %q, got: %v", content, want, got)
		}
	}
}

func TestOverrides(t *testing.T) {
	const noticed = filewatch.Interval + filewatch.SettleTime
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "admin") // does not exist yet
		p := newFakeProber()
		d := started(t, fourNodes+"default sin1\nadmin "+path, func() prober { return p })
		registers(t, d, nodeAt("par1", "192.0.2.1", "10.0.0.0/8"))
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "10.0.0.0/8", "!10.9.0.0/16"))
		registers(t, d, nodeAt("sin1", "192.0.2.3"))
		expect := func(step string, want map[string]string) {
			t.Helper()
			for from, node := range want {
				if got := referredTo(t, d, from); got != node {
					t.Errorf("%s: Expected %s to be referred to %s, got %s", step, from, node, got)
				}
			}
		}
		wait := func(duration time.Duration) {
			time.Sleep(duration)
			synctest.Wait()
		}
		expect("no file", map[string]string{"10.0.0.1": "nyc1", "10.9.0.1": "par1"})

		later := " until " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + " reason so\n"
		until := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
		writeMap(t, path, "drain nyc1 until "+until+" reason new disk\npin 10.9.0.0/16 nyc1 sin1"+later+"pin 10.9.9.0/24 st1"+later)
		wait(noticed)
		expect("overrides", map[string]string{"10.0.0.1": "par1", "10.9.0.1": "sin1", "10.9.9.1": "st1"})
		for verb, want := range map[string]float64{"drain": 1, "forget": 0, "pin": 2} {
			if got := gaugeValues(overrideCount, d.zone)[verb]; got != want {
				t.Errorf("Expected %v overrides with verb %s, got %v", want, verb, got)
			}
		}
		p.say("192.0.2.4", silent)
		d.refresh()
		expect("the pinned node is dead", map[string]string{"10.9.9.1": "sin1"})
		for _, addr := range []string{"192.0.2.1", "192.0.2.3"} {
			p.say(addr, silent)
		}
		d.refresh()
		expect("only the drained node is left", map[string]string{"10.0.0.1": "nyc1", "10.9.0.1": "nyc1", "11.0.0.1": "nyc1"})
		for _, addr := range []string{"192.0.2.1", "192.0.2.3", "192.0.2.4"} {
			p.say(addr, answering)
		}
		d.refresh()

		writeMap(t, path, "drain nyc\n")
		wait(noticed)
		expect("an error changes nothing", map[string]string{"10.0.0.1": "par1", "10.9.0.1": "sin1"})
		wait(time.Minute)
		if got := gaugeValues(overrideCount, d.zone)["drain"]; got != 0 {
			t.Errorf("Expected the drain to have ended, got %v in force", got)
		}
		if lines := strings.Join(log.Lines(), "\n"); strings.Count(lines, "Override ended: drain nyc1") != 1 || strings.Count(lines, "Override ended") != 1 {
			t.Errorf("Expected the end of the first override to be logged, and of no other, got %s", lines)
		}
		expect("an override ended", map[string]string{"10.0.0.1": "nyc1", "10.9.0.1": "nyc1"})
		writeMap(t, path, "forget nyc1"+later+"forget st1"+later)
		wait(noticed)
		expect("a live node is not forgotten", map[string]string{"10.0.0.1": "nyc1"})
		p.say("192.0.2.2", silent)
		d.refresh()
		synctest.Wait()
		if m := ask(t, d, "10.0.0.1", "nyc1.lb."+testZone, dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("Expected a dead node to be forgotten, got %v", m)
		}
		p.say("192.0.2.2", answering)
		registers(t, d, nodeAt("nyc1", "192.0.2.2", "10.0.0.0/8", "!10.9.0.0/16"))
		expect("back again", map[string]string{"10.0.0.1": "nyc1"})
		writeMap(t, path, "")
		wait(noticed)
		expect("no overrides", map[string]string{"10.0.0.1": "nyc1", "10.9.0.1": "par1"})
	})
}
