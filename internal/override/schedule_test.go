package override

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

func TestSplit(t *testing.T) {
	now := time.Date(2026, 1, 31, 18, 0, 0, 0, time.UTC)
	all := []Override[string]{{Until: now.Add(2 * time.Hour)}, {Until: now}, {Until: now.Add(time.Hour)}, {Until: now.Add(-time.Hour)}}
	active, ended, nextEnd := split(all, now)
	if len(active) != 2 || len(ended) != 2 || !nextEnd.Equal(now.Add(time.Hour)) {
		t.Errorf("Expected two active, two ended and the next end in an hour, got %v, %v, %v", active, ended, nextEnd)
	}
	if active, _, nextEnd := split(all, now.Add(3*time.Hour)); len(active) != 0 || !nextEnd.IsZero() {
		t.Errorf("Expected all to have ended, got %v, %v", active, nextEnd)
	}
}

func TestSchedule(t *testing.T) {
	log := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		line := func(verb string, in time.Duration) Override[string] {
			o, err := grammar.Parse(strings.Fields(verb + " until " + time.Now().Add(in).UTC().Format(time.RFC3339) + " reason test"))
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		short, long, over := line("drain par1", time.Minute), line("drain nyc1", time.Hour), line("drain lon1", -time.Hour)
		s := Schedule[string]{Log: clog.NewWithPlugin("test"), Prefix: "par1: "}
		if s.Update(nil, false) || len(s.Active()) > 0 || !s.NextEnd().IsZero() {
			t.Error("Expected no change without overrides")
		}
		if !s.Update([]Override[string]{short, long, over}, true) || len(s.Active()) != 2 || !s.NextEnd().Equal(short.Until) {
			t.Errorf("Expected two active overrides, got %v", s.Active())
		}
		log.Expect(t, "par1: Override has no effect, it has ended already: drain lon1")
		moved := long
		moved.Line = 7
		if !s.Update([]Override[string]{short, over, moved}, true) {
			t.Error("Expected a change when the file is loaded")
		}
		log.Expect(t)
		time.Sleep(time.Minute)
		if !s.Update([]Override[string]{short, over, moved}, false) || len(s.Active()) != 1 || s.Update([]Override[string]{short, over, moved}, false) {
			t.Errorf("Expected one override to end, once, got %v", s.Active())
		}
		log.Expect(t, "par1: Override ended: drain par1")
		s.Update(nil, true)
		log.Expect(t, "par1: Override ended: drain nyc1")
		s.Resume([]Override[string]{long})
		s.Update([]Override[string]{long}, true)
		log.Expect(t)
	})
}
