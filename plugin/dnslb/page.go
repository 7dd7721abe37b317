package dnslb

import (
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plot"
	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
)

//go:embed page.html page.css
var pageFiles embed.FS

// look is how the server block looks in the status page.
var look = status.NewLook(pageFiles, template.FuncMap{
	"ms": func(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) + " ms" },
})

const (
	// maxShownServers is up to how many addresses of servers the main page shows each
	// service with its servers, beyond that it has a list of services.
	maxShownServers = 24
	// maxRows is how many services a page of the list has.
	maxRows = 25
)

// view is what a page of the block shows.
type view struct {
	Summary
	Files     []status.File
	Overrides []OverrideState
	Shown     []serviceView // services with their servers
	List      *serviceList  // nil: all services that the page is about are in Shown
}

// view returns what the main page shows, or for a query a page of the block: a service
// by its name, or a list of services.
func (d *DNSLB) view(query url.Values) (any, error) {
	v := view{Summary: d.Summary(), Files: status.Files(d.fileStatus())}
	t := d.snapshot.Load()
	v.Overrides = t.overrideStates()
	if query.Has("service") {
		name := dns.CanonicalName(query.Get("service"))
		n, exists := t.lookup(name)
		if !exists || n.service == nil {
			return nil, fmt.Errorf("%s is no service", name)
		}
		v.Shown = []serviceView{d.serviceView(n.service.name)}
		return v, nil
	}
	if query == nil && t.addresses() <= maxShownServers {
		for _, name := range d.serviceNames(maxShownServers) {
			v.Shown = append(v.Shown, d.serviceView(name))
		}
		return v, nil
	}
	page, _ := strconv.Atoi(query.Get("page"))
	v.List = d.list(t, query.Get("search"), page)
	return v, nil
}

// addresses returns how many servers all services have, each counted for each service.
func (s *snapshot) addresses() (n int) {
	for _, p := range s.pools {
		n += len(p.members) * len(p.services)
	}
	return n
}

// serviceView is a service in both address families.
type serviceView struct {
	Name     string
	Families []familyView
	Failed   string // why there is none
}

// familyView is a service in one address family.
type familyView struct {
	Explanation

	Rows     []serverRow
	Day      template.HTML
	Switches []Switch
	Counted  time.Time // since when the answers of servers are counted; zero: they are not
}

// serverRow is a server of a service.
type serverRow struct {
	Server

	Hour    template.HTML
	Answers uint64
	Share   float64 // of answers
}

func (d *DNSLB) serviceView(name string) serviceView {
	v := serviceView{Name: name}
	explanations, err := d.rankings(name)
	if err != nil {
		v.Failed = err.Error()
		return v
	}
	histories, _ := d.HistoryOf(name)
	for _, e := range explanations {
		f := familyView{Explanation: e}
		i := slices.IndexFunc(histories, func(h History) bool { return h.Type == e.Type })
		if i < 0 { // it has just gone
			continue
		}
		f.add(histories[i])
		v.Families = append(v.Families, f)
	}
	return v
}

// add adds the past of the service.
func (f *familyView) add(h History) {
	var sum uint64
	for _, s := range h.Servers {
		sum += s.Answers
	}
	if h.Counted > 0 {
		f.Counted = f.At.Add(-time.Duration(h.Counted * float64(time.Second)))
	}
	for _, s := range f.Servers {
		row := serverRow{Server: s}
		if i := slices.IndexFunc(h.Servers, func(other ServerHistory) bool { return other.Address == s.Address }); i >= 0 {
			row.Answers = h.Servers[i].Answers
			row.Share = float64(row.Answers) / float64(max(sum, 1))
			row.Hour = h.hourPlot(h.Servers[i], f.At)
		}
		f.Rows = append(f.Rows, row)
	}
	f.Day, f.Switches = h.dayPlot(f.At, 0), h.Switches
}

// hourPlot returns the plot of a server. The times in which it was first are marked, and
// when it became or ceased to be that.
func (h *History) hourPlot(s ServerHistory, now time.Time) template.HTML {
	p := plot.Plot{Of: s.Server + " " + s.Address.String(), Past: s.Hour, Now: now, Span: time.Hour, Lost: "probes were lost", Axis: true}
	first, end := h.first, now
	for _, e := range slices.Backward(h.switches) {
		if first == s.Address {
			p.Periods = append(p.Periods, plot.Period{From: e.at, To: end})
		}
		first, end = e.from.addr, e.at
		at := e.at.UTC().Format("15:04:05") + " "
		switch {
		case e.cause == AllDown:
			p.Marks = append(p.Marks, plot.Mark{At: e.at, Class: "down", Text: at + "all servers down"})
		case e.to.addr == s.Address:
			p.Marks = append(p.Marks, plot.Mark{At: e.at, Class: "in", Text: at + "became first: " + string(e.cause)})
		case e.from.addr == s.Address:
			p.Marks = append(p.Marks, plot.Mark{At: e.at, Class: "out", Text: at + "no longer first: " + string(e.cause)})
		}
	}
	if first == s.Address && len(h.switches) < maxSwitches { // else what was before is forgotten
		p.Periods = append(p.Periods, plot.Period{From: s.Hour.From, To: end})
	}
	return p.HTML()
}

// dayPlot returns the plot of the service, in all columns or only so many.
func (h *History) dayPlot(now time.Time, columns int) template.HTML {
	p := plot.Plot{
		Of: h.Service + " " + h.Type, Past: h.Day, Now: now, Span: 24 * time.Hour, Columns: columns,
		Lost: "rounds had no server that was up", Axis: columns == 0,
	}
	for _, e := range h.switches {
		text := e.at.UTC().Format("15:04:05") + " "
		class := "switch"
		if e.cause == AllDown {
			class = "down"
			text += "all servers down"
		} else {
			text += e.from.server + " → " + e.to.server + ": " + string(e.cause)
		}
		p.Marks = append(p.Marks, plot.Mark{At: e.at, Class: class, Text: text})
	}
	return p.HTML()
}

// serviceList is one page of the services that a text is searched for in, those with
// servers that are down first.
type serviceList struct {
	Search     string
	Rows       []serviceRow
	From, To   int // of these, from 1
	Total      int
	Page       int // from 0
	Prev, Next int // pages; -1: none
}

// serviceRow is a service in the list.
type serviceRow struct {
	Name      string
	Servers   int // addresses, of both families
	Down      int // of these
	New       int // of these, not measured yet
	AllDown   bool
	Overrides bool
	First     string  // server, of IPv4 if there is one
	Latency   float64 // of this, in milliseconds; 0: not measured
	Day       template.HTML
}

// bad is by how much a service comes earlier in the list.
func (r *serviceRow) bad() int {
	switch {
	case r.AllDown:
		return 3
	case r.Down > 0:
		return 2
	case r.Overrides:
		return 1
	}
	return 0
}

// list returns a page of the list. It looks at all services, and for no query is
// anything computed.
func (d *DNSLB) list(t *snapshot, search string, page int) *serviceList {
	l := &serviceList{Search: strings.ToLower(strings.TrimSpace(search)), Rows: []serviceRow{}, Prev: -1, Next: -1}
	for name, n := range t.names {
		if n.service != nil && n.service.matches(name, l.Search) {
			l.Rows = append(l.Rows, d.row(t, name, n.service))
		}
	}
	slices.SortFunc(l.Rows, func(a, b serviceRow) int {
		return cmp.Or(b.bad()-a.bad(), strings.Compare(a.Name, b.Name))
	})
	l.Total = len(l.Rows)
	last := max(l.Total-1, 0) / maxRows
	l.Page = min(max(page, 0), last)
	first := l.Page * maxRows
	l.Rows = l.Rows[first:min(first+maxRows, l.Total)]
	l.From, l.To = min(first+1, l.Total), first+len(l.Rows)
	if l.Page > 0 {
		l.Prev = l.Page - 1
	}
	if l.Page < last {
		l.Next = l.Page + 1
	}
	for i := range l.Rows {
		r := &l.Rows[i]
		if h, err := d.HistoryOf(r.Name); err == nil && len(h) > 0 {
			r.Day = h[0].dayPlot(h[0].at, 96)
		}
	}
	return l
}

// pools returns those that a service has.
func (s *service) pools() (all []*pool) {
	for _, p := range []*pool{s.a, s.aaaa} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// matches reports whether a text is in the name of a service, or in that of a server or
// its address.
func (s *service) matches(name, text string) bool {
	if strings.Contains(name, text) {
		return true
	}
	return slices.ContainsFunc(s.pools(), func(p *pool) bool {
		return slices.ContainsFunc(p.members, func(m *member) bool {
			return strings.Contains(strings.ToLower(m.label), text) || strings.Contains(m.addr.String(), text)
		})
	})
}

func (d *DNSLB) row(t *snapshot, name string, s *service) serviceRow {
	r := serviceRow{Name: name}
	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	for _, p := range s.pools() {
		r.Servers += len(p.members)
		for _, m := range p.members {
			if m.down(&t.observed) {
				r.Down++
			} else if !t.observed.status[m.target].Probed {
				r.New++
			}
			r.Overrides = r.Overrides || m.override != (memberOverride{})
		}
		r.AllDown = r.AllDown || p.state.allDown
		if m := p.members[p.state.first()]; r.First == "" {
			r.First, r.Latency = m.label, m.biased(t.observed.status[m.target].Estimate).Value
		}
	}
	return r
}
