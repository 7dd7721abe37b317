package dnslb

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/nodemap/nodemaptest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/peerview"
)

// exampleNodes are the nodes of the tests.
var exampleNodes = []string{"par1", "lon1", "nyc1", "fra1", "kix1"}

// TestNameserversAreThoseOfReferral checks which nodes the NS records of a node
// name. DNS-B refers the resolvers of a node to it and its first live deputy, and
// those of a node that is not live to its first two live deputies. It names no node
// without client subnets beside one with them.
func TestNameserversAreThoseOfReferral(t *testing.T) {
	const own, ofPrincipal, outside = "198.51.100.1", "203.0.113.1", "192.0.2.1"
	tests := []struct {
		name     string
		deputies []string // of this node, lon1
		from     string
		of       []string      // deputies of par1, whose deputy lon1 is; none: par1 shares nothing
		old      time.Duration // of the view of par1
		want     []string
		subnets  []string // nodes with client subnets
	}{
		{"no deputy", nil, own, nil, 0, []string{"lon1"}, nil},
		{"its own resolver", []string{"nyc1", "kix1"}, own, []string{"lon1"}, 0, []string{"lon1", "nyc1"}, nil},
		{"a resolver of nobody", []string{"nyc1"}, outside, []string{"lon1"}, 0, []string{"lon1", "nyc1"}, nil},
		{"a resolver of its principal", []string{"nyc1"}, ofPrincipal, []string{"lon1", "fra1"}, trustTime / 2, []string{"par1", "lon1"}, nil},
		{"as second deputy", nil, ofPrincipal, []string{"fra1", "lon1"}, 0, []string{"par1", "lon1"}, nil},
		{"principal not live, one deputy", []string{"nyc1"}, ofPrincipal, []string{"lon1"}, trustTime, []string{"lon1"}, nil},
		{"principal not live, three deputies", nil, ofPrincipal, []string{"lon1", "fra1", "kix1"}, trustTime, []string{"lon1", "fra1"}, nil},
		{"principal not live, as second deputy", nil, ofPrincipal, []string{"fra1", "lon1"}, trustTime, []string{"lon1", "fra1"}, nil},
		{"a resolver of another node", []string{"nyc1"}, ofPrincipal, []string{"fra1", "kix1"}, 0, []string{"par1", "fra1"}, exampleNodes},
		{"a resolver of another node without deputies", []string{"nyc1"}, ofPrincipal, []string{}, 0, []string{"par1", "lon1"}, exampleNodes},
		{"another node not live", []string{"nyc1"}, ofPrincipal, []string{"fra1", "kix1"}, trustTime, []string{"fra1", "kix1"}, exampleNodes},
		{"its former principal", []string{"nyc1"}, ofPrincipal, nil, 0, []string{"lon1", "nyc1"}, nil},

		{"client subnets, like its deputy", []string{"nyc1", "kix1"}, own, nil, 0, []string{"lon1", "nyc1"}, exampleNodes},
		{"client subnets, unlike its first deputy", []string{"nyc1", "kix1"}, own, nil, 0, []string{"lon1", "kix1"}, []string{"lon1", "kix1"}},
		{"client subnets, unlike its deputies", []string{"nyc1", "kix1"}, own, nil, 0, []string{"lon1"}, []string{"lon1"}},
		{"no client subnets, unlike its deputy", []string{"nyc1"}, own, nil, 0, []string{"lon1", "nyc1"}, []string{"nyc1"}},
		{"principal with client subnets, unlike its deputy", nil, ofPrincipal, []string{"lon1", "fra1"}, 0, []string{"par1"}, []string{"par1"}},
		{"principal without client subnets, unlike its deputy", nil, ofPrincipal, []string{"lon1", "fra1"}, 0, []string{"par1", "lon1"}, []string{"lon1"}},
		{"principal with client subnets not live, its second deputy has them", nil, ofPrincipal, []string{"fra1", "lon1", "kix1"}, trustTime, []string{"lon1", "kix1"}, []string{"par1", "lon1", "kix1"}},
		{"principal with client subnets not live, none of its deputies has them", nil, ofPrincipal, []string{"lon1", "fra1"}, trustTime, []string{"lon1", "fra1"}, []string{"par1"}},
		{"another node with client subnets, as its second deputy", nil, ofPrincipal, []string{"fra1", "kix1"}, 0, []string{"par1", "kix1"}, []string{"par1", "lon1", "kix1"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			d := example("lon1", nil)
			d.deputies, d.clientSubnets = tc.deputies, slices.Contains(tc.subnets, "lon1")
			m := nodemaptest.Table(t, map[string]string{"198.51.100.0/24": "registration=lon1", "203.0.113.0/24": "registration=par1"})
			views := make([]*peerview.View, 2)
			if tc.of != nil {
				views[1] = &peerview.View{Node: "par1", Made: time.Now().Add(-tc.old), Deputies: tc.of, AllNodes: slices.Contains(tc.subnets, "par1")}
			}
			for _, node := range tc.subnets {
				if d.clientSubnets && node != "lon1" && node != "par1" { // lon1 follows them all
					views = append(views, &peerview.View{Node: node, Made: time.Now(), AllNodes: true})
				}
			}
			set := peerview.NewSet(views, peerview.NewSlots(m, func(node string) int { return map[string]int{"lon1": peerview.Own, "par1": 1}[node] }))
			d.state.views = func() *peerview.Set { return set }

			w := dnstest.NewRecorder(&test.ResponseWriter{RemoteIP: tc.from})
			if _, err := d.ServeDNS(context.Background(), w, new(dns.Msg).SetQuestion("SVC.gslb.example.org.", dns.TypeNS)); err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, rr := range w.Msg.Answer {
				got = append(got, rr.String())
			}
			for _, node := range tc.want {
				want = append(want, test.NS("SVC.gslb.example.org. 30 IN NS "+node+".lb.gslb.example.org.").String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("Expected %q, got %q", want, got)
			}
		})
	}
}
