package dnsb

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testcpu"
)

// BenchmarkOneOfManyNodes is an UPDATE of one of many nodes with 100 cuts each, until
// queries see it: one that refreshes the lease, one that changes addresses, and a
// withdrawal with the registration that follows. percent is what a round of all nodes within 10 seconds takes of a processor.
func BenchmarkOneOfManyNodes(b *testing.B) {
	const cuts = 100
	for _, nodes := range []int{10, 100, 1_000} {
		lines := ""
		for i := range nodes {
			lines += fmt.Sprintf("accept k1 n%d any\n", i)
		}
		d := started(b, lines, nil)
		message := func(i, turn int) *dns.Msg {
			r := nodeAt(fmt.Sprintf("n%d", i), fmt.Sprintf("198.51.%d.%d", 100+turn, 1+i%250))
			r.Cuts = nil
			for c := range cuts {
				r.Cuts = append(r.Cuts, fmt.Sprintf("c%02d.%s", c, testZone))
			}
			m, err := r.Message()
			if err != nil {
				b.Fatal(err)
			}
			return m
		}
		serial := uint64(time.Now().UnixMilli()) // #nosec G115 -- positive since 1970
		register := func(m *dns.Msg) {
			reg, err := registration.Parse(m)
			if err != nil {
				b.Fatal(err)
			}
			serial++
			reg.Serial = serial
			if err := d.permission("k1.", reg); err != nil {
				b.Fatal(err)
			}
			if _, _, err := d.apply(d.snapshot.Load(), m, reg, signedNow("k1.")); err != nil {
				b.Fatal(err)
			}
		}
		messages := make([]*dns.Msg, 2*nodes) // each node twice, at two addresses
		for i := range messages {
			messages[i] = message(i%nodes, i/nodes)
			register(messages[i])
		}
		withdrawal := nodeAt("n0", "198.51.100.1").Withdrawal()
		for _, kind := range []string{"refresh", "change", "join"} {
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, kind), func(b *testing.B) {
				b.ReportAllocs()
				before, i := testcpu.Time(b), 0
				for ; b.Loop(); i++ {
					switch kind {
					case "refresh":
						register(messages[len(messages)-1])
					case "change":
						register(messages[i%len(messages)])
					case "join":
						register(withdrawal)
						register(messages[0])
					}
				}
				each := (testcpu.Time(b) - before) / time.Duration(i)
				b.ReportMetric(float64(each.Microseconds()), "cpu-µs/op")
				b.ReportMetric(each.Seconds()*float64(nodes)/10*100, "percent")
			})
		}
	}
}
