package dnsb

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
)

func TestOverlapsAreCountedAndLogged(t *testing.T) {
	l := logtest.Capture(t)
	synctest.Test(t, func(t *testing.T) {
		const lines = "accept k1 a any\naccept k1 b any\naccept k1 c any\nnode st1 192.0.2.9\nprefix 10.0.0.0/8 st1\nprefix 20.0.0.0/8 st1"
		d := started(t, lines, nil)
		l.Lines()
		expect := func(step, want, line string) {
			t.Helper()
			time.Sleep(overlapEvery)
			synctest.Wait()
			list, total := d.Overlaps()
			if got := fmt.Sprint(list); got != want || total != len(list) {
				t.Errorf("%s: Expected %s, got %s, %d in all", step, want, got, total)
			}
			if n := gaugeValues(overlapCount, d.zone)[""]; n != float64(len(list)) {
				t.Errorf("%s: Expected the metric to be %d, got %v", step, len(list), n)
			}
			if lines := strings.Join(l.Lines(), "\n"); (lines == "") != (line == "") || !strings.Contains(lines, line) {
				t.Errorf("%s: Expected %q in the log, got %q", step, line, lines)
			}
		}
		registers(t, d, nodeAt("a", "192.0.2.1", "10.0.0.0/8", "!10.9.0.0/16", "2001:db8::/32"))
		registers(t, d, nodeAt("b", "192.0.2.2", "11.0.0.0/8", "20.0.0.0/8"))
		expect("apart", "[]", "")
		registers(t, d, nodeAt("c", "192.0.2.3", "10.0.0.0/8", "11.1.0.0/16", "11.1.1.0/24", "2001:db8:1::/48", "!11.2.0.0/16"))
		expect("overlaps", "[{10.0.0.0/8 [a c]} {11.1.0.0/16 [b c]} {11.1.1.0/24 [b c]} {2001:db8:1::/48 [a c]}]", "Found 4 prefixes registered by several nodes, or inside a prefix of another node, such as 10.0.0.0/8 of a, c")
		if got := strings.Join(d.overlapLines(), "\n"); !strings.HasPrefix(got, "overlaps with other nodes: 4 registered prefixes\n") || !strings.Contains(got, "\n11.1.1.0/24 b c\n") {
			t.Errorf("Expected the overlaps in lines, got %q", got)
		}
		registers(t, d, nodeAt("a", "192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "12.0.0.0/8"))
		expect("as many", "[{10.0.0.0/8 [a c]} {11.1.0.0/16 [b c]} {11.1.1.0/24 [b c]} {2001:db8:1::/48 [a c]}]", "")
		d.close()
		d = startedWith(t, d.zone, lines, nil)
		if _, total := d.Overlaps(); total != 4 {
			t.Errorf("Expected 4 overlaps right after a reload, got %d", total)
		}
		expect("a reload", "[{10.0.0.0/8 [a c]} {11.1.0.0/16 [b c]} {11.1.1.0/24 [b c]} {2001:db8:1::/48 [a c]}]", "")
		registers(t, d, nodeAt("c", "192.0.2.3"))
		expect("gone", "[]", "Recovered: registered prefixes do not overlap")
	})
}
