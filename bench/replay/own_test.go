package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestOwnListsSwitchesWithCauses replays a trace in which the first server
// fails, recovers, and becomes slow.
func TestOwnListsSwitchesWithCauses(t *testing.T) {
	var b strings.Builder
	b.WriteString("time,server,rtt_ms\n")
	for s := 0; s < 1000; s += 5 {
		par := "10"
		switch {
		case s >= 300 && s < 400:
			par = "" // down after 5 losses, in the round of 320
		case s >= 700:
			par = "90.5"
		}
		fmt.Fprintf(&b, "%d.25,par1,%s\n%d.5,lon1,20,and more\n", 1700000000+s, par, 1700000000+s)
		if s == 500 {
			b.WriteString("time,server,rtt_ms\n") // joined files
		}
	}
	var stdout, stderr bytes.Buffer
	if err := run([]string{"-own", write(t, b.String(), true), "-rule", "margin"}, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	at := func(s int64) string { return time.Unix(1700000000+s, 0).UTC().Format(time.RFC3339) }
	want := []string{
		at(5) + "  -     ->  par1  first",
		at(325) + "  par1  ->  lon1  down",
		at(410) + "  lon1  ->  par1  lower",
		at(715) + "  par1  ->  lon1  lower",
	}
	_, list, _ := strings.Cut(stdout.String(), "switches by rule margin:\n\n")
	list, _, _ = strings.Cut(list, "\n\n")
	if list != strings.Join(want, "\n") {
		t.Errorf("Expected\n%s\ngot\n%s", strings.Join(want, "\n"), list)
	}
	if !strings.Contains(stdout.String(), "result policy=evidence default=true set=own truth_optimal=") {
		t.Errorf("Expected result lines, got\n%s", stdout.String())
	}
}

func FuzzReadSamples(f *testing.F) {
	f.Add([]byte("time,server,rtt_ms\n1700000000.25,par1,10.5\n1700000001,lon1,\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSamples(bytes.NewReader(b))
		if err != nil {
			return
		}
		for i := range s {
			if i > 0 && s[i].at.Before(s[i-1].at) || s[i].server == "" || s[i].rtt < 0 {
				t.Errorf("Expected samples in order of time, got %v", s)
			}
		}
	})
}
