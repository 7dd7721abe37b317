package registry

import (
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
		if _, err := r.Apply(reg, time.Hour); err != nil {
			t.Fatal(err)
		}
		reg.Serial = now() + 1
		if _, err := r.Apply(reg, time.Hour); err == nil || !strings.Contains(err.Error(), "4m0s ahead of the clock of this server, wait so long or use 'forget'") {
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
		if _, err := r.Apply(reg, time.Hour); err != nil {
			t.Errorf("Expected the node to register, got: %v", err)
		}

		w := withdrawal("a", now()+200_000)
		if _, err := r.Apply(w, 0); err != nil {
			t.Fatal(err)
		}
		if reset, err := r.ResetSerial("a"); !reset || err != nil || len(r.State().Records) != 0 {
			t.Errorf("Expected the serial of a withdrawn node to be reset, and nothing else, got %v, %v, %v", reset, err, r.State().Records)
		}
		time.Sleep(time.Millisecond)
		reg.Serial = now()
		if _, err := r.Apply(reg, time.Hour); err != nil {
			t.Errorf("Expected the node to register, got: %v", err)
		}
	})
}
