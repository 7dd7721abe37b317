package registry

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

func TestCollectParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(testZone)
		defer r.Close()
		now := uint64(time.Now().UnixMilli())
		part := func(serial uint64, part, parts int, prefixes ...string) *registration.Registration {
			reg := registrationtest.Node("par1", "192.0.2.1", prefixes...)
			if part > 0 {
				reg.Addresses, reg.Cuts = nil, nil
			}
			reg.Serial, reg.Part, reg.Parts = serial, part, parts
			return reg
		}
		pending := func() int {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.incomplete)
		}
		// send does what an UPDATE does; it returns what became of it.
		send := func(reg *registration.Registration) string {
			if reg.Parts > 0 {
				whole, err := r.Collect(reg, "k1.")
				if err != nil {
					return err.Error()
				}
				if whole == nil {
					return "part"
				}
				reg = whole
			}
			result, _, err := r.Apply(reg, time.Hour)
			if err != nil {
				return err.Error()
			}
			return string(result)
		}
		for _, step := range []struct {
			name       string
			reg        *registration.Registration
			want       string
			registered string // prefixes of the node
		}{
			{"part 1 first", part(now, 1, 3, "10.1.0.0/16"), "part", "none"},
			{"part 2", part(now, 2, 3, "10.2.0.0/16"), "part", "none"},
			{"part 2 again", part(now, 2, 3, "10.2.0.0/16"), "part", "none"},
			{"part 2 with other content", part(now, 2, 3, "10.3.0.0/16"), "other content", "none"},
			{"other number of parts", part(now, 0, 4, "10.0.0.0/16"), "has 3 parts, not 4", "none"},
			{"last part", part(now, 0, 3, "10.0.0.0/16"), "new", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"part again after the last one", part(now, 1, 3, "10.1.0.0/16"), "part", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"part 0 again after the last one", part(now, 0, 3, "10.0.0.0/16"), "part", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"other part after the last one", part(now, 1, 3, "10.9.0.0/16"), "other content", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"older part", part(now-1, 1, 2, "10.9.0.0/16"), "is older than", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"part ahead of the clock", part(now+300_001, 1, 2, "10.9.0.0/16"), "ahead of the clock", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"incomplete", part(now+5, 0, 2, "11.0.0.0/16"), "part", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"older than the incomplete one", part(now+4, 1, 2, "11.1.0.0/16"), "of which parts have arrived", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"newer than the incomplete one", part(now+6, 1, 2, "12.1.0.0/16"), "part", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"too late for the previous one", part(now+5, 1, 2, "11.1.0.0/16"), "of which parts have arrived", "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"},
			{"whole between parts, older", part(now+5, 0, 0, "13.0.0.0/8"), "change", "13.0.0.0/8"},
			{"rest of the newer", part(now+6, 0, 2, "12.0.0.0/16"), "change", "12.0.0.0/16 12.1.0.0/16"},
			{"incomplete again", part(now+7, 0, 2, "14.0.0.0/16"), "part", "12.0.0.0/16 12.1.0.0/16"},
			{"whole, newer", part(now+8, 0, 0, "15.0.0.0/8"), "change", "15.0.0.0/8"},
			{"rest of the older", part(now+7, 1, 2, "14.1.0.0/16"), "is older than", "15.0.0.0/8"},
			{"both ways 0", part(now+9, 0, 2, "16.0.0.0/8"), "part", "15.0.0.0/8"},
			{"both ways 1", part(now+9, 1, 2, "!16.0.0.0/8"), "16.0.0.0/8 and !16.0.0.0/8", "15.0.0.0/8"},
			{"incomplete before a withdrawal", part(now+10, 0, 2, "17.0.0.0/8"), "part", "15.0.0.0/8"},
			{"withdrawal", withdrawal("par1", now+11), "withdrawal", "none"},
			{"rest after a withdrawal", part(now+10, 1, 2, "18.0.0.0/8"), "is older than", "none"},
			{"part of a withdrawn serial", part(now+11, 1, 2, "18.0.0.0/8"), "other content", "none"},
			{"refresh in parts 0", part(now+12, 0, 2, "17.0.0.0/8"), "part", "none"},
			{"refresh in parts 1", part(now+12, 1, 2, "18.0.0.0/8"), "new", "17.0.0.0/8 18.0.0.0/8"},
			{"refresh in parts 0", part(now+13, 0, 2, "17.0.0.0/8"), "part", "17.0.0.0/8 18.0.0.0/8"},
			{"refresh in parts 1", part(now+13, 1, 2, "18.0.0.0/8"), "refresh", "17.0.0.0/8 18.0.0.0/8"},
			{"same serial in parts 0", part(now+13, 0, 2, "17.0.0.0/8"), "part", "17.0.0.0/8 18.0.0.0/8"},
			{"same serial in parts 1", part(now+13, 1, 2, "18.0.0.0/8"), "refresh", "17.0.0.0/8 18.0.0.0/8"},
			{"same serial in parts with other content", part(now+13, 1, 2, "19.0.0.0/8"), "other content", "17.0.0.0/8 18.0.0.0/8"},
		} {
			if got := send(step.reg); !strings.Contains(got, step.want) {
				t.Errorf("%s: Expected %q, got %q", step.name, step.want, got)
			}
			registered := "none"
			if rec := r.State().Records["par1"]; rec != nil {
				registered = strings.Trim(fmt.Sprint(rec.Prefixes), "[]")
			}
			if registered != step.registered {
				t.Errorf("%s: Expected the node to have %s, got %s", step.name, step.registered, registered)
			}
		}
		if n := pending(); n != 0 {
			t.Errorf("Expected nothing incomplete, got %d", n)
		}

		send(part(now+20, 0, 2, "20.0.0.0/8"))
		time.Sleep(partsTime - time.Second)
		send(part(now+21, 0, 2, "21.0.0.0/8"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := pending(); n != 1 {
			t.Errorf("Expected the newer parts to have their own time, got %d", n)
		}
		time.Sleep(partsTime)
		synctest.Wait()
		if n := pending(); n != 0 {
			t.Errorf("Expected incomplete parts to be dropped after %s, got %d", partsTime, n)
		}
		if got := send(part(now+21, 1, 2, "22.0.0.0/8")); got != "part" || len(r.State().Records["par1"].Prefixes) != 2 {
			t.Errorf("Expected a late part to complete nothing, got %s", got)
		}
	})
}
