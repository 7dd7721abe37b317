package latencyprobe

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, dead := newFake(20*time.Millisecond), newFake(0)
		dead.set(0, context.DeadlineExceeded)
		l := withProber(f)
		if text, err := json.Marshal(l.Report().Targets); err != nil || string(text) != "[]" {
			t.Errorf("Expected an empty list, got %s, %v", text, err)
		}
		l.probes["dead"] = &settings{name: "dead", rtt: dead, interval: defaultInterval, timeout: defaultTimeout}
		w, again := l.Watch(), l.Watch()
		a := at("192.0.2.1")
		b := at("192.0.2.2")
		b.Probe = "dead"
		w.Set([]Target{b, a})
		again.Set([]Target{a})
		time.Sleep(time.Minute)

		text, err := json.Marshal(l.Report())
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			At      time.Time
			Targets []map[string]any
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Targets) != 2 || !got.At.Equal(time.Now()) {
			t.Fatalf("Expected each target once, got %s", text)
		}
		up, down := got.Targets[0], got.Targets[1]
		if up["name"] != "192.0.2.1" || up["state"] != "up" || up["median_ms"] != 20.0 || up["estimate_ms"] != 20.0 || up["loss"] != 0.0 || up["reason"] != nil {
			t.Errorf("Unexpected %v", up)
		}
		if down["probe"] != "dead" || down["state"] != "down" || down["loss"] != 1.0 || down["median_ms"] != nil || down["reason"] == nil || down["since"] == nil {
			t.Errorf("Unexpected %v", down)
		}
		l.closeWatches()
	})
}
