package registry

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

// A node whose clock was ahead registers again after its serial was reset, and
// keeps what it had registered.
func TestResetSerialOfClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(testZone)
		defer r.Close()
		now := func() uint64 { return uint64(time.Now().UnixMilli()) } // #nosec G115 -- positive since 1970
		reg := registrationtest.Node("a", "192.0.2.1")
		reg.Serial = now() + 240_000
		if _, _, err := r.Apply(reg, time.Hour); err != nil {
			t.Fatal(err)
		}
		reg.Serial = now() + 1
		if _, _, err := r.Apply(reg, time.Hour); err == nil || !strings.Contains(err.Error(), "4m0s ahead of the clock of this server, wait so long or use 'forget'") {
			t.Errorf("Expected to be told how long to wait, got: %v", err)
		}
		end := r.State().Records["a"].LeaseEnd
		if reset, err := r.ResetSerial("a"); !reset || err != nil {
			t.Errorf("Expected a reset, got %v, %v", reset, err)
		}
		if rec := r.State().Records["a"]; rec == nil || rec.Serial != now() || !rec.LeaseEnd.Equal(end) || rec.Stale {
			t.Errorf("Expected the registration to stay, got %+v", rec)
		}
		if reset, err := r.ResetSerial("a"); reset || err != nil {
			t.Errorf("Expected nothing to reset, got %v, %v", reset, err)
		}
		if _, _, err := r.Apply(reg, time.Hour); err != nil {
			t.Errorf("Expected the node to register, got: %v", err)
		}

		w := withdrawal("a", now()+200_000)
		if _, _, err := r.Apply(w, 0); err != nil {
			t.Fatal(err)
		}
		if reset, err := r.ResetSerial("a"); !reset || err != nil || len(r.State().Records) != 0 {
			t.Errorf("Expected the serial of a withdrawn node to be reset, and nothing else, got %v, %v, %v", reset, err, r.State().Records)
		}
		time.Sleep(time.Millisecond)
		reg.Serial = now()
		if _, _, err := r.Apply(reg, time.Hour); err != nil {
			t.Errorf("Expected the node to register, got: %v", err)
		}
	})
}

// What was registered after a reset is newer than what was before, whatever the
// serials and the clock say, also for a server that learns of it later.
func TestResetIsNewerThanSerials(t *testing.T) {
	r := New(testZone)
	defer r.Close()
	at := replica{r}
	at.Merge([]Entry{{Node: "a", Serial: 2000, Registration: registrationtest.Node("a", "192.0.2.1"), Lease: time.Hour}})
	for _, step := range []struct {
		name   string
		next   Entry
		serial uint64 // from then on
		addr   string
	}{
		{"older", Entry{Serial: 1999}, 2000, "192.0.2.1"},
		{"after a reset", Entry{Serial: 1000, Resets: 1, Registration: registrationtest.Node("a", "192.0.2.2")}, 1000, "192.0.2.2"},
		{"before the reset", Entry{Serial: 3000, Registration: registrationtest.Node("a", "192.0.2.3")}, 1000, "192.0.2.2"},
		{"next", Entry{Serial: 1001, Resets: 1, Registration: registrationtest.Node("a", "192.0.2.4")}, 1001, "192.0.2.4"},
	} {
		step.next.Node, step.next.Lease = "a", time.Hour
		at.Merge([]Entry{step.next})
		if rec := r.State().Records["a"]; rec == nil || rec.Addresses[0].String() != step.addr || r.LastSerial("a") != step.serial {
			t.Errorf("%s: Expected %s and the serial %d, got %+v and %d", step.name, step.addr, step.serial, rec, r.LastSerial("a"))
		}
	}
	for want, stored := range map[string]Entry{"[]": {Serial: 1001, Resets: 1}, "[a]": {Serial: 3000}} {
		stored.Node = "a"
		if got := fmt.Sprint(at.NewerThan([]Entry{stored})); got != want {
			t.Errorf("Expected %s to be newer than %+v, got %s", want, stored, got)
		}
	}
}
