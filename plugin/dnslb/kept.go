package dnslb

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/keep"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// kept is what outlives a reload of the Corefile: the rankings and the
// registration of one server block. It ends, and the node withdraws, when no
// instance has that block any more.
type kept struct {
	mu        sync.Mutex // guards what follows, and the standings in all tables, since two instances overlap
	tables    []inUse    // of the instances, the youngest last
	registrar *registrar.Registrar
	from      uint64 // generation of the instance that configured the registrar
	sharing   *sharing
}

// inUse is the table that an instance uses.
type inUse struct {
	by    *DNSLB
	table *table
}

var keeper = keep.Keeper[string, *kept]{Close: func(_ string, k *kept) {
	var wg sync.WaitGroup
	wg.Go(k.sharing.close)
	wg.Go(k.registrar.Close)
	wg.Wait()
}}

// keptKey tells blocks apart. A node that registers stays the same one when its
// zones or listeners change; otherwise several blocks may rank the same zone, and
// one stays the same while its first zone does.
func keptKey(conf config, cfg *dnsserver.Config) string {
	if len(conf.dnsbs) > 0 {
		return "node " + conf.Node
	}
	return fmt.Sprintf("%s %s %s %s %s", conf.Zones[0], cfg.Transport, cfg.ListenHosts, cfg.Port, cfg.ViewName)
}

func newKept() *kept {
	r := registrar.New()
	k := &kept{registrar: r}
	k.sharing = newSharing(func(ctx context.Context, node string) (peer, error) {
		n, err := r.Lookup(ctx, node)
		return peer{n.Addresses, n.Prefixes}, err
	}, k.targets)
	return k
}

// targets returns what is measured here.
func (k *kept) targets() []latencyprobe.Target {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.current(); t != nil {
		return t.targets
	}
	return nil
}

// adopt makes t the table of an instance. It gives the pools of t what is known
// of them from the table before, or that of the instance before: the standing of
// a pool is that of the one which its services had.
func (k *kept) adopt(t *table, by *DNSLB) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.current()
	if i := slices.IndexFunc(k.tables, func(u inUse) bool { return u.by == by }); i >= 0 {
		before, k.tables[i].table = k.tables[i].table, t
	} else {
		k.tables = append(k.tables, inUse{by, t})
	}
	if before == nil {
		return
	}
	for _, p := range t.pools {
		old := p.predecessor(before)
		if old == nil {
			continue
		}
		p.state.adopt(p, old, &old.state)
		p.principalStates = make([]*rankState, len(old.principalStates))
		for place, s := range old.principalStates {
			if s != nil {
				p.principalStates[place] = newPrincipalRankState(p)
				p.principalStates[place].adopt(p, old, s)
			}
		}
	}
}

// leave forgets the table of an instance that has ended.
func (k *kept) leave(by *DNSLB) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tables = slices.DeleteFunc(k.tables, func(u inUse) bool { return u.by == by })
}

// current returns the table of the youngest instance, nil if there is none. The
// lock must be held.
func (k *kept) current() *table {
	if len(k.tables) == 0 {
		return nil
	}
	return k.tables[len(k.tables)-1].table
}

// before returns the instance before, to one that starts, and its table; nil if
// there is none.
func (k *kept) before() inUse {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.tables) == 0 {
		return inUse{}
	}
	return k.tables[len(k.tables)-1]
}

// register makes conf the registration of the node at every DNS-B. A block
// that registers nowhere withdraws what an earlier one registered.
func (k *kept) register(conf config, generation uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation < k.from {
		return
	}
	k.from = generation
	k.registrar.Configure(registrarSettings(conf))
}
