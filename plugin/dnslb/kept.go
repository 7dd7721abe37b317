package dnslb

import (
	"fmt"
	"sync"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// kept is what outlives a reload of the Corefile: the rankings and the
// registration of one server block. It ends, and the node withdraws, when no
// instance has that block any more.
type kept struct {
	mu        sync.Mutex // guards rankers and what they hold, since two instances overlap
	rankers   map[string]*ranking.Ranker
	registrar *registrar
}

var keeper = keep.Keeper[string, *kept]{Close: func(_ string, k *kept) { k.registrar.close() }}

// keptKey tells blocks apart. A node that registers stays the same one when its
// zones or listeners change; otherwise several blocks may rank the same zone.
func keptKey(conf config, hosts []string, port string) string {
	if len(conf.dnsbs) > 0 {
		return "node " + conf.Node
	}
	return fmt.Sprint(conf.Zones, hosts, port)
}

func newKept() *kept {
	return &kept{rankers: make(map[string]*ranking.Ranker), registrar: newRegistrar()}
}

// ranker returns a new ranker for a pool, in the state of the last one that had
// the same key. The keys of the servers tell which state is whose.
func (k *kept) ranker(poolKey string, servers []string) *ranking.Ranker {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, err := ranking.NewRanker("", servers)
	if err != nil {
		panic(err) // the default rule exists
	}
	if old, ok := k.rankers[poolKey]; ok {
		r.Adopt(old)
	}
	k.rankers[poolKey] = r
	return r
}

func (k *kept) decide(r *ranking.Ranker, estimates []ranking.Estimate, eligible []bool) ([]int, ranking.Cause) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return r.Decide(estimates, eligible)
}

// register makes conf the registration of the node at every DNS-B. A block
// that registers nowhere withdraws what an earlier one registered.
func (k *kept) register(conf config, generation uint64) { k.registrar.set(conf, generation) }

func (k *kept) registered() bool { return k.registrar.started() }

// nodeName returns the node's full name, as far as a DNS-B told its zone.
func (k *kept) nodeName() string { return k.registrar.nodeName() }
