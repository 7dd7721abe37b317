package widearea

import (
	"slices"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// Settings in the Corefiles of the system.
const (
	interval  = time.Second
	timeout   = time.Second
	answerTTL = 5 * time.Second // upper bound
	// referralTTL is the default of *dnsb*.
	referralTTL = 300 * time.Second
)

// Times that a reaction consists of.
const (
	// confirm is the time from a failed probe to the next one; five probes in a
	// row without a reply mean down.
	confirm = 500 * time.Millisecond
	// down is the time until a dead target is down: the next probe comes after
	// an interval and its jitter of a tenth at most, then it and four more time
	// out.
	down = interval*11/10 + timeout + 4*(confirm+timeout)
	// up is the time until a recovered target is up: a probe that was sent too
	// early times out, and the next two succeed.
	up = timeout + 2*interval*11/10
	// moved is the time until a changed path is ranked: the current round still
	// counts for the old path, five more change a median of nine and make up
	// the largest regret budget, and a decision is made once a round.
	moved = ranking.Round + 5*ranking.Round + ranking.Round
	// regained is the time until a server that is up again wins its place:
	// three rounds, of which the first has begun, make up the largest regret
	// budget, and a decision is made once a round.
	regained = 3*ranking.Round + ranking.Round
	// shared is the time until a deputy follows its principal: the view is
	// published at the end of a round and fetched immediately.
	shared = ranking.Round + overhead
	// registered is the time from the start of a DNS-LB to its registration: it
	// measures for at most 10 s, waits a random time of up to 3 s, and sends.
	registered = 10*time.Second + 3*time.Second + overhead
	// overhead is the time of messages: queries of the resolver to DNS-B and to
	// a DNS-LB, once more if one is lost, the next query of the client, and the
	// load of this machine.
	overhead = 3 * time.Second
)

// unboundBand is the round-trip time up to which Unbound chooses a name server
// as often as the fastest one: its first estimate of a timeout, about four
// times the round-trip time, must be within 400 ms of the lowest. Unbound asks
// a slower server only until it has measured it.
const unboundBand = 100 * time.Millisecond

// TestClientsGetFastestServer has each client ask its resolver for the address
// of the services while paths change and machines fail. The client must get the
// server that is fastest from its city, in the time that the settings allow.
func TestClientsGetFastestServer(t *testing.T) {
	clientsGetFastestServer(t, "", 7)
}

// TestClientsGetFastestServerByChain is the same, without the fast path, up to the
// failure of a server.
func TestClientsGetFastestServerByChain(t *testing.T) {
	clientsGetFastestServer(t, "fast-path off", 3)
}

func clientsGetFastestServer(t *testing.T, fastPath string, events int) {
	t.Helper()
	needNetwork(t, append([]string{"go"}, programs...)...)
	// The DNS-LB in Osaka must prefer Tokyo although it loses one probe in 50.
	normal := cities(t).WithLoss("Osaka", "Tokyo", 0.01)
	slow := slowed(normal)
	program := build(t)
	l := newLab(t, normal, oneDNSB)
	l.fastPath = fastPath
	l.startSystem(t, program, normal, referralTTL)

	started := time.Now()
	table := &table{start: started}
	t.Cleanup(func() { table.print(t) })

	l.awaitReferrals(t, started.Add(registered))
	w := l.watch(t)

	best := func(m *Matrix, dead string) func(string) string {
		live := slices.DeleteFunc(slices.Clone(serverCities), func(s string) bool { return s == dead })
		return func(city string) string {
			server, _ := m.Nearest(city, live)
			return server
		}
	}
	const failing = "Washington"
	steps := []struct {
		name    string
		do      func()
		want    func(city string) string // city of the server for a client
		allowed time.Duration
		strict  bool // no other answer or SERVFAIL at any time
	}{
		{
			"the system starts", nil,
			best(normal, ""), registered + shared + overhead, false,
		}, {
			"paths to Frankfurt and Tokyo get longer", func() { l.SetMatrix(slow) },
			best(slow, ""), moved + shared + answerTTL + overhead, false,
		}, {
			failing + " fails", func() { l.servers[failing].Cut(true) },
			best(slow, failing), down + answerTTL + overhead, false,
		}, {
			failing + " recovers", func() { l.servers[failing].Cut(false) },
			best(slow, ""), up + regained + shared + answerTTL + overhead, false,
		}, {
			"paths get short again", func() { l.SetMatrix(normal) },
			best(normal, ""), moved + shared + answerTTL + overhead, false,
		}, {
			// The deputy answers the resolvers near Paris by the measurements
			// of Paris, also those with a new referral: DNS-B refers to the
			// deputy, not to the covering node.
			"the DNS-LB in Paris fails", func() {
				// Unbound has asked a deputy within its band as often as the
				// node, and no client got another answer.
				for _, i := range l.isps {
					share := l.packetCounts(i).deputyShare(packetCounts{})
					if inBand := normal.RTT(i.city, deputies[i.node]) < unboundBand; inBand && i.kind.name == unbound.name && (share < 25 || share > 75) {
						t.Errorf("Expected Unbound in %s to ask the deputy as often as the node, got %.0f %%", i.city, share)
					}
				}
				if l.metric(t, "Osaka", `coredns_dnslb_queries_total{node="kix1",place="deputy"`) == 0 {
					t.Error("Expected the deputy in Osaka to count queries of resolvers of Paris, got 0")
				}
				l.nodes["Paris"].Cut(true)
			},
			best(normal, ""), 0, true,
		}, {
			"the DNS-LB in Paris recovers", func() { l.nodes["Paris"].Cut(false) },
			best(normal, ""), 0, true,
		},
	}
	for _, step := range steps[:events] {
		at := time.Now()
		if step.do == nil {
			at = started
		} else {
			step.do()
		}
		w.await(t, table, step.name, at, step.want, step.allowed, step.strict)
		if t.Failed() {
			return // later steps would fail for the same reason
		}
	}
	for _, city := range nodeCities {
		if on := l.answersByFastPath(t, city); on != (fastPath == "") {
			t.Errorf("Expected the DNS-LB in %s to answer by the fast path: %v, got %v", city, fastPath == "", on)
		}
	}
}
