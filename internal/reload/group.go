package reload

import (
	"sync"

	"github.com/coredns/caddy"
)

// Group stops what Corefile instances have started: when an instance shuts
// down, and when the reload that it is part of fails, be it in another plugin.
// The zero value is ready.
type Group struct {
	once  sync.Once
	owner Owner[*task, *task, struct{}]
}

type task struct{ stop func() }

// Member is one Corefile instance in a Group.
type Member struct {
	group  *Group
	holder *Holder
}

// Attach returns the member that stands for the instance of c. It is to be
// called in a setup function.
func (g *Group) Attach(c *caddy.Controller) *Member {
	g.once.Do(func() {
		g.owner.New = func(t *task) *task { return t }
		g.owner.Close = func(t, _ *task) { t.stop() }
	})
	return &Member{g, g.owner.Attach(c)}
}

// OnStop has stop called once, when the instance ends. The functions of an
// instance run in parallel, and its shutdown waits for all of them. It is to be
// called at startup or later.
func (m *Member) OnStop(stop func()) {
	t := &task{stop}
	_, _ = m.group.owner.Hold(m.holder, t, struct{}{}) // cannot fail: there is nothing to configure
}
