package dnsb

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// TestUpdateLog checks what is remembered for how long.
func TestUpdateLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u updateLog
		refusal := updateKind{node: "par1", key: "k1.", outcome: outOfScope}
		for i := range 3 {
			u.count(outOfScope)
			u.note(refusal, fmt.Sprintf("text %d\n%s", i, strings.Repeat("x", 1000)))
			time.Sleep(time.Minute)
		}
		u.count(registry.Added)
		u.note(updateKind{node: "nyc1", key: "k2.", outcome: registry.Added}, "")
		got := u.lastHour()
		if len(got.Events) != 2 || got.Events[0].Node != "nyc1" || got.Events[1].Count != 3 || !strings.HasPrefix(got.Events[1].Text, "text 2?x") || len(got.Events[1].Text) > maxText+len("…") {
			t.Errorf("Expected both kinds, the latest first, got %+v", got.Events)
		}
		if len(got.Outcomes) != 2 || got.Outcomes[0] != (UpdateCount{"new", 1}) || got.Outcomes[1] != (UpdateCount{"scope", 3}) {
			t.Errorf("Expected the counts of both results, got %+v", got.Outcomes)
		}
		time.Sleep(updateHour - 4*time.Minute - time.Second)
		u.note(refusal, "")
		if got := u.lastHour(); len(got.Events) == 0 || got.Events[0].Count > 4 {
			t.Errorf("Expected no event to be counted for more than an hour, got %+v", got)
		}
		time.Sleep(updateHour + updateSlot)
		if got := u.lastHour(); len(got.Events)+len(got.Outcomes) != 0 {
			t.Errorf("Expected nothing of an hour ago, got %+v", got)
		}
	})
}

// TestUpdateLogIsBounded checks that the oldest events make room.
func TestUpdateLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u updateLog
		u.note(updateKind{node: "forgotten", key: "k1.", outcome: outOfScope}, "")
		time.Sleep(2 * updateHour)
		for i := range 3 * maxUpdateEvents {
			u.note(updateKind{node: fmt.Sprint("n", i), key: "k1.", outcome: outOfScope}, "")
			time.Sleep(time.Millisecond)
		}
		got := u.lastHour()
		if len(got.Events) != maxUpdateEvents || len(u.events) != maxUpdateEvents {
			t.Fatalf("Expected %d events, got %d", maxUpdateEvents, len(got.Events))
		}
		if first, last := got.Events[0].Node, got.Events[maxUpdateEvents-1].Node; first != fmt.Sprint("n", 3*maxUpdateEvents-1) || last != fmt.Sprint("n", 2*maxUpdateEvents) {
			t.Errorf("Expected the latest events, got %s to %s", first, last)
		}
	})
}
