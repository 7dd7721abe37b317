package registry

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

const testZone = registrationtest.Zone

func withdrawal(node string, serial uint64) *registration.Registration {
	return &registration.Registration{Zone: testZone, Node: node, Serial: serial}
}

func TestSerialsOrderRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(testZone)
		defer r.Close()
		now := uint64(time.Now().UnixMilli())
		apply := func(step string, reg *registration.Registration, want Outcome, text string) {
			t.Helper()
			got, _, err := r.Apply(reg, time.Hour)
			if got != want || (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: Expected %s, %q, got %s, %v", step, want, text, got, err)
			}
		}
		at := func(serial uint64, prefixes ...string) *registration.Registration {
			reg := registrationtest.Node("par1", "192.0.2.1", prefixes...)
			reg.Serial = serial
			return reg
		}
		apply("ahead", at(now+300_001), WrongSerial, "ahead of the clock")
		apply("first", at(now, "10.0.0.0/8"), Added, "")
		apply("sent again", at(now, "10.0.0.0/8"), Refreshed, "")
		apply("same serial, other content", at(now, "11.0.0.0/8"), WrongSerial, "other content")
		apply("refresh", at(now+5, "10.0.0.0/8"), Refreshed, "")
		apply("older", at(now+4, "11.0.0.0/8"), WrongSerial, "older than")
		apply("change", at(now+6, "11.0.0.0/8"), Changed, "")
		apply("older withdrawal", withdrawal("par1", now+5), WrongSerial, "older than")
		if rec := r.State().Records["par1"]; rec == nil || rec.Prefixes[0].String() != "11.0.0.0/8" {
			t.Fatalf("Expected the registration to stay, got %+v", rec)
		}
		apply("withdrawal", withdrawal("par1", now+7), Withdrawn, "")
		apply("withdrawal again", withdrawal("par1", now+7), Withdrawn, "")
		apply("replay after withdrawal", at(now+6, "11.0.0.0/8"), WrongSerial, "older than")
		if st := r.State(); len(st.Records) != 0 {
			t.Fatalf("Expected nothing, got %+v", st.Records)
		}
		apply("back", at(now+300_000), Added, "")
		apply("without serial", at(0, "12.0.0.0/8"), Changed, "")
		apply("older than without serial", at(now+299_999), WrongSerial, "older than")
		apply("withdrawal without serial", withdrawal("par1", 0), Withdrawn, "")
		time.Sleep(time.Hour)
		apply("back by clock", at(uint64(time.Now().UnixMilli())), Added, "")
	})
}

func TestSerialOfZoneGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(testZone)
		defer r.Close()
		last := r.Serial()
		grown := func(step string) {
			t.Helper()
			now := r.Serial()
			if now <= last {
				t.Fatalf("%s: Expected a serial after %d, got %d", step, last, now)
			}
			last = now
		}
		for range 100 {
			if _, _, err := r.Apply(registrationtest.Node("a", "192.0.2.1"), time.Hour); err != nil {
				t.Fatal(err)
			}
			grown("registration")
		}
		r.AdvanceSerial()
		grown("change of the zone")
		time.Sleep(time.Hour)
		again := New(testZone)
		defer again.Close()
		if now := again.Serial(); now <= last {
			t.Errorf("Expected a later process to go on from %d, got %d", last, now)
		}
	})
}

func TestForgetSparesNodeThatRegisteredAgain(t *testing.T) {
	r := New(testZone)
	defer r.Close()
	register := func(serial uint64) *Record {
		t.Helper()
		reg := registrationtest.Node("a", "192.0.2.1")
		reg.Serial = serial
		if _, _, err := r.Apply(reg, time.Hour); err != nil {
			t.Fatal(err)
		}
		return r.State().Records["a"]
	}
	old := register(7)
	now := register(8)
	for _, step := range []struct {
		name string
		rec  *Record
		want bool
	}{{"registered again", old, false}, {"current", now, true}, {"forgotten already", now, false}} {
		if got, err := r.Forget(step.rec); got != step.want || err != nil {
			t.Errorf("%s: Expected %v, got %v, %v", step.name, step.want, got, err)
		}
	}
	reg := registrationtest.Node("a", "192.0.2.1")
	reg.Serial = 7
	if got, _, _ := r.Apply(reg, time.Hour); got != WrongSerial {
		t.Errorf("Expected the last serial of a forgotten node to be known, got %s", got)
	}
}

func TestLeaseEndMakesNodeStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(testZone)
		defer r.Close()
		changed, unsubscribe := r.Subscribe()
		defer unsubscribe()
		for node, lease := range map[string]time.Duration{"a": time.Minute, "b": time.Hour} {
			if _, _, err := r.Apply(registrationtest.Node(node, "192.0.2.1"), lease); err != nil {
				t.Fatal(err)
			}
		}
		<-changed
		time.Sleep(time.Minute - time.Second)
		if r.State().Records["a"].Stale {
			t.Error("Expected the node to be there until its lease ends")
		}
		<-changed
		if st := r.State(); !st.Records["a"].Stale || st.Records["b"].Stale || st.Records["a"].Registration == nil {
			t.Errorf("Expected one stale node, got %v", st.Records)
		}
	})
}
