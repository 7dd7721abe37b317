package widearea

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
)

// Settings of the system under test, as its Corefiles have them.
const (
	interval  = time.Second
	timeout   = time.Second
	answerTTL = 5 * time.Second // upper end
)

// What the reactions are made of.
const (
	// confirm is the time between a failed probe and the next one; the fifth in a row that nothing answers means down.
	confirm = 500 * time.Millisecond
	// down is how long it takes to find that a target is dead: the next probe comes at the latest after an interval and its jitter of a tenth, it and four more fail.
	down = interval*11/10 + timeout + 4*(confirm+timeout)
	// up is how long it takes to find that it is back: a probe that left too early fails, the two after that succeed.
	up = timeout + 2*interval*11/10
	// moved is how long it takes to rank by a path that has changed: the round in which it does still counts for the old one, five more turn a median of nine and pay
	// for the greatest regret, and the ranking is made once a round.
	moved = ranking.Round + 5*ranking.Round + ranking.Round
	// regained is how long it takes a server that is up again to win back its place: three rounds, the first of which has begun, pay for the greatest regret, and the ranking
	// is made once a round.
	regained = 3*ranking.Round + ranking.Round
	// shared is how much later the deputy ranks as its first node does: the view is published at the end of a round, and pulled at once.
	shared = ranking.Round + ways
	// registered is how long it takes from the start of the programs until a DNS-LB is known at DNS-B: it measures at most 10 s before, waits a random time of up to
	// 3 s, and asks.
	registered = 10*time.Second + 3*time.Second + ways
	// ways are for all that goes between here and there: the resolver's queries to DNS-B and a DNS-LB one after the other, once again if one is lost, the
	// client's next query, and a machine that is busy.
	ways = 3 * time.Second
)

// Labels of nodes and servers in the Corefiles.
var labels = map[string]string{
	"Paris": "par1", "NewYork": "nyc1", "Osaka": "kix1",
	"Frankfurt": "fra", "Washington": "iad", "Tokyo": "nrt", "SaoPaulo": "gru",
}

// methods are how the DNS-LBs measure: one method each, as an address is probed once a second and shared between methods.
var methods = map[string]string{"Paris": "icmp", "NewYork": "tcp 80", "Osaka": "http://www.example.org/"}

// covering is the node that DNS-B refers to when another one dies that has no live deputy: it registers a prefix that holds those of all ISPs.
const covering = "NewYork"

// deputies are the nodes that answer in the place of another one, with its measurements.
var deputies = map[string]string{"Paris": "Osaka", "NewYork": "Paris", "Osaka": "NewYork"}

// banded is up to what round-trip time Unbound takes a name server for as good as any other: its first estimate of a time-out, about four times that, must be within
// 400 ms of the best one's. It asks others only before it knows them.
const banded = 100 * time.Millisecond

// TestWideArea asks each client's own resolver for the address of the services while paths change and machines die, and wants the fastest server from the client's city
// in the time that the settings allow.
func TestWideArea(t *testing.T) {
	needNetwork(t, append([]string{"go"}, programs...)...)
	// A DNS-LB that loses one probe in 50 must find its server the nearest all the same.
	normal := cities(t).WithLoss("Osaka", "Tokyo", 0.01)
	slow := slowed(normal)
	program := build(t)
	l := newLab(t, normal)
	l.startSystem(t, program, normal)

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
	const dying = "Washington"
	steps := []struct {
		name    string
		do      func()
		want    func(city string) string // the server's city
		allowed time.Duration
		strict  bool // not one answer may be another one, nor SERVFAIL
	}{
		{
			"the system starts", nil,
			best(normal, ""), registered + shared + ways, false,
		}, {
			"ways to Frankfurt and Tokyo grow", func() { l.SetMatrix(slow) },
			best(slow, ""), moved + shared + answerTTL + ways, false,
		}, {
			dying + " dies", func() { l.servers[dying].Cut(true) },
			best(slow, dying), down + answerTTL + ways, false,
		}, {
			dying + " is back", func() { l.servers[dying].Cut(false) },
			best(slow, ""), up + regained + shared + answerTTL + ways, false,
		}, {
			"the ways are as before", func() { l.SetMatrix(normal) },
			best(normal, ""), moved + shared + answerTTL + ways, false,
		}, {
			// Its deputy answers the resolvers near Paris as if it stood there; so it does those that DNS-B refers anew, to that deputy and not to the covering node.
			"the DNS-LB in Paris dies", func() {
				// Up to now Unbound has asked a deputy that is near enough as often as the node, and no client could tell.
				for _, i := range l.isps {
					share := l.asked(i).deputised(asked{})
					if near := normal.RTT(i.city, deputies[i.node]) < banded; near && i.kind.name == unbound.name && (share < 25 || share > 75) {
						t.Errorf("Expected Unbound in %s to ask the deputy as often as the node, got %.0f %%", i.city, share)
					}
				}
				if l.metric(t, "Osaka", `coredns_dnslb_queries_total{node="kix1",place="deputy"`) == 0 {
					t.Error("Expected the deputy in Osaka to tell queries of other nodes' resolvers")
				}
				l.nodes["Paris"].Cut(true)
			},
			best(normal, ""), 0, true,
		}, {
			"the DNS-LB in Paris is back", func() { l.nodes["Paris"].Cut(false) },
			best(normal, ""), 0, true,
		},
	}
	for _, step := range steps {
		at := time.Now()
		if step.do == nil {
			at = started
		} else {
			step.do()
		}
		w.await(t, table, step.name, at, step.want, step.allowed, step.strict)
		if t.Failed() {
			return // what follows would fail for the same cause
		}
	}
}

// repository is where the sources are.
const repository = "../.."

// build compiles the binary, with the race detector if this test has it.
func build(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "coredns-dnslb")
	args := []string{"build", "-o", name}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	// The result of this test is not to be taken from the cache when the binary would be another one: looking at the sources makes them inputs.
	if err := filepath.WalkDir(repository, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".git") {
			return filepath.SkipDir
		}
		return err
	}); err != nil {
		t.Fatalf("Expected to see the sources, got %v", err)
	}
	compile := exec.Command("go", append(args, ".")...)
	compile.Dir = repository
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("Expected to build the binary, got %v: %s", err, out)
	}
	return name
}

const dnsBCorefile = `gslb.example.org {
	bind {{range .DNSB.Addrs}} {{.}}{{end}}
	tsig {
{{- range .Nodes}}
		secret {{.Key}} {{.Secret}}
{{- end}}
	}
	latencyprobe {
		interval {{.Interval}}
		timeout  {{.Timeout}}
	}
	dnsb {
		ns b1 {{range .DNSB.Addrs}} {{.}}{{end}}
{{- range .Nodes}}
		accept {{.Key}} {{.Label}} {{.Near}} for svc.gslb.example.org
{{- end}}
	}
	errors
}
`

const dnsLBCorefile = `svc.gslb.example.org {
	bind {{range .Node.Addrs}} {{.}}{{end}}
	latencyprobe {
		rtt      {{.Node.Method}}
		interval {{.Interval}}
		timeout  {{.Timeout}}
		source   {{range .Node.Addrs}} {{.}}{{end}}
	}
	dnslb {
{{- range .Servers}}
		server   {{.Label}} {{range .Addrs}} {{.}}{{end}}
{{- end}}
{{- range $name := .Names}}
		service  {{$name}}.svc.gslb.example.org {{range $.Servers}} {{.Label}}{{end}}
{{- end}}
		ttl      2s {{.TTL}}

		node     {{.Node.Label}} {{range .Node.Addrs}} {{.}}{{end}}
		near     {{.Node.Near}}
		deputy   {{.Node.Deputy}}
		view-key views.key.example.org {{.ViewSecret}}
		register {{.DNSB.Addr}}
		key      {{.Node.Key}} {{.Node.Secret}}
	}
	prometheus {{index .Node.Addrs 0}}:9153
	errors
}
`

// place is a node or a server as a Corefile names it.
type place struct {
	Label       string
	Addrs       []netip.Addr
	Near        string // prefixes of the ISPs that a node is near
	Method      string // how a node measures
	Deputy      string // who answers in the place of a node
	Key, Secret string
}

// startSystem starts DNS-B and the DNS-LBs. Each of these registers the prefixes of the ISPs that it is nearest to, and one of them all.
func (l *lab) startSystem(t *testing.T, program string, m *Matrix) {
	t.Helper()
	values := map[string]any{"DNSB": l.dnsB, "Interval": interval, "Timeout": timeout, "TTL": answerTTL, "Names": names, "ViewSecret": newSecret()}
	var nodes, servers []place
	for _, i := range l.isps {
		i.node, _ = m.Nearest(i.city, nodeCities)
	}
	for _, city := range nodeCities {
		var near []string
		if city == covering {
			near = append(near, both(isps)...)
		}
		for _, i := range l.isps {
			if i.node == city {
				near = append(near, both(i.prefix)...)
			}
		}
		nodes = append(nodes, place{
			Label: labels[city], Addrs: l.nodes[city].Addrs, Near: strings.Join(near, " "), Method: methods[city],
			Deputy: labels[deputies[city]], Key: labels[city] + ".key.example.org", Secret: newSecret(),
		})
	}
	for _, city := range serverCities {
		servers = append(servers, place{Label: labels[city], Addrs: l.servers[city].Addrs})
	}
	values["Nodes"], values["Servers"] = nodes, servers

	run(t, l.dnsB, map[string]string{"Corefile": fill(t, dnsBCorefile, values)}, program, "-conf", "DIR/Corefile")
	for i, city := range nodeCities {
		values["Node"] = nodes[i]
		run(t, l.nodes[city], map[string]string{"Corefile": fill(t, dnsLBCorefile, values)}, program, "-conf", "DIR/Corefile")
	}
}

// metric returns the first sample of a DNS-LB that begins so.
func (l *lab) metric(t *testing.T, city, sample string) float64 {
	t.Helper()
	h := l.nodes[city]
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.Dial(ctx, network, netip.AddrPortFrom(h.Addr(), 9153))
	}}}
	reply, err := client.Get("http://metrics.example.org/metrics")
	if err != nil {
		t.Fatalf("Expected the metrics of %s, got %v", h.Name, err)
	}
	defer reply.Body.Close()
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), sample); ok {
			value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
			if err != nil {
				t.Fatalf("Expected a number, got %v", err)
			}
			return value
		}
	}
	t.Fatalf("Expected %s to have a metric %s", h.Name, sample)
	return 0
}

// newSecret returns the secret of a TSIG key.
func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return base64.StdEncoding.EncodeToString(secret)
}

// awaitReferrals waits until DNS-B refers each resolver to the node that is nearest to it. Clients begin to ask after that: a resolver that met a DNS-B without nodes
// would remember its failure for up to a minute.
func (l *lab) awaitReferrals(t *testing.T, deadline time.Time) {
	t.Helper()
	for _, i := range l.isps {
		for {
			node, err := l.referral(i)
			if first, _, _ := strings.Cut(node, " "); err == nil && first == labels[i.node] {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("Expected DNS-B to refer the resolver in %s to %s by now, got '%s', %v", i.city, labels[i.node], node, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// referral returns the node that DNS-B refers the resolver of an ISP to, whichever address it uses.
func (l *lab) referral(i *isp) (string, error) {
	var nodes []string
	for _, addr := range l.dnsB.Addrs {
		node, err := l.referralFrom(i, addr)
		if err != nil {
			return "", err
		}
		nodes = append(nodes, node)
	}
	return strings.Join(slices.Compact(nodes), " or "), nil
}

func (l *lab) referralFrom(i *isp, addr netip.Addr) (string, error) {
	reply, _, err := ask(i.resolver, addr, "www.svc.gslb.example.org.", dns.TypeA, false, 2*time.Second)
	if err != nil {
		return "", err
	}
	var found []string
	for _, rr := range reply.Ns {
		if ns, ok := rr.(*dns.NS); ok && !reply.Authoritative {
			label, _, _ := strings.Cut(ns.Ns, ".")
			found = append(found, label)
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no referral, but %s", dns.RcodeToString[reply.Rcode])
	}
	return strings.Join(found, " "), nil
}

// watcher asks the resolver of one client one question, again and again.
type watcher struct {
	isp      *isp
	question question

	mu     sync.Mutex
	answer string    // city of the server, or what goes wrong for some time
	since  time.Time // when it came first
	misses int       // queries without an address, in a row

	// Since the last event:
	at      time.Time
	before  string // the answer
	want    string
	settled time.Time // when the answer wanted came to stay, or zero
	left    string    // another answer after that
	failed  int       // queries without an address
	strayed string    // the first answer, or failure but silence, that is not the one wanted

	deadline time.Time // until when the answer may come to stay
}

type question struct {
	name  string
	qtype uint16
}

// questions are what each client asks. The first one's answer is shown.
var questions = []question{{"www", dns.TypeA}, {"www", dns.TypeAAAA}, {"shop", dns.TypeA}}

func (q question) String() string { return q.name + " " + dns.TypeToString[q.qtype] }

// silent is what a client says that got no answer.
const silent = "no answer"

const (
	// every is how often a client asks.
	every = 250 * time.Millisecond
	// patience is how long a client waits for an answer: as long as the resolvers of operating systems do before they ask again.
	patience = 5 * time.Second
	// steady is how many failures in a row count.
	steady = 3
	// stays is for how long an answer must be the same to count as settled: some resolvers ask a node and its deputy in turn, and both must have come to it.
	stays = 12 * time.Second
	// strictly is for how long not one answer may be wrong when nothing may change: until a dead node is found and long after.
	strictly = 90 * time.Second
)

type watchers struct {
	*lab
	all []*watcher
}

// watch lets all clients ask until the test ends.
func (l *lab) watch(t *testing.T) *watchers {
	ws := &watchers{lab: l}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, i := range l.isps {
		for _, q := range questions {
			w := &watcher{isp: i, question: q}
			ws.all = append(ws.all, w)
			running.Go(func() {
				tick := time.NewTicker(every)
				defer tick.Stop()
				for {
					w.note(l.lookup(i, q))
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
				}
			})
		}
	}
	return ws
}

// lookup returns the city of the server that a client is sent to.
func (l *lab) lookup(i *isp, q question) (city string, ok bool) {
	reply, _, err := ask(i.client, i.resolver.Addr(), q.name+".example.org.", q.qtype, true, patience)
	if err != nil {
		return silent, false
	}
	addrs := addresses(reply)
	if len(addrs) != 1 {
		return fmt.Sprintf("%s with %d addresses", dns.RcodeToString[reply.Rcode], len(addrs)), false
	}
	for city, h := range l.servers {
		if slices.Contains(h.Addrs, addrs[0]) && addrs[0].Is4() == (q.qtype == dns.TypeA) {
			return city, true
		}
	}
	return addrs[0].String(), false
}

func (w *watcher) note(answer string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.misses++
	if answer != w.want && answer != silent && w.strayed == "" {
		w.strayed = fmt.Sprintf("%s after %.1f s", answer, time.Since(w.at).Seconds())
	}
	if ok {
		w.misses = 0
	} else if w.failed++; w.misses < steady {
		return // one that gets lost is no change of the answer
	}
	if answer != w.answer {
		w.answer, w.since = answer, time.Now()
		switch {
		case w.settled.IsZero():
		case w.since.Before(w.deadline):
			w.settled = time.Time{} // a node and its deputy rank anew one after the other: what counts is when both have
		case w.left == "":
			w.left = answer
		}
	}
	if w.settled.IsZero() && w.answer == w.want && time.Since(w.since) >= stays {
		w.settled = w.since
	}
}

// expect says what is right since something happened.
func (w *watcher) expect(want string, at, deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.before, w.want, w.settled, w.left, w.failed, w.strayed, w.deadline = at, w.answer, want, time.Time{}, "", 0, "", deadline
	if w.answer == want {
		w.settled = at
	}
}

// outcome is what became of that.
type outcome struct {
	before, answer, left, strayed string
	settled                       time.Time
	failed                        int
}

func (w *watcher) outcome() outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	return outcome{w.before, w.answer, w.left, w.strayed, w.settled, w.failed}
}

// pending reports whether the answer wanted has not come to stay, and still may: one that came in time must get its chance to be steady.
func (w *watcher) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.settled.IsZero() && time.Now().Before(w.deadline.Add(stays+every+patience))
}

// await waits until all clients get what they should after something happened, fails the test for those that do not in the time allowed, and adds a row for each
// city to the table.
func (ws *watchers) await(t *testing.T, table *table, event string, at time.Time, want func(city string) string, allowed time.Duration, strict bool) {
	t.Helper()
	before := make(map[*isp]asked)
	for _, i := range ws.isps {
		before[i] = ws.asked(i)
	}
	for _, w := range ws.all {
		w.expect(want(w.isp.city), at, at.Add(allowed))
	}
	if strict {
		time.Sleep(strictly)
	}
	for slices.ContainsFunc(ws.all, (*watcher).pending) {
		time.Sleep(every / 5)
	}
	for _, i := range ws.isps {
		r := &row{event: event, city: i.city, resolver: i.kind.name, deputised: ws.asked(i).deputised(before[i]), allowed: allowed}
		table.rows = append(table.rows, r)
		for _, w := range ws.all {
			if w.isp != i {
				continue
			}
			o := w.outcome()
			r.failed += o.failed
			if r.answer == "" || o.answer != want(i.city) {
				r.answer = o.answer
			}
			switch {
			case strict && o.strayed != "":
				r.wrong = true
				t.Errorf("%s: expected the client in %s to get nothing but %s for %s, got %s", event, i.city, want(i.city), w.question, o.strayed)
			case o.settled.IsZero():
				r.wrong = true
				t.Errorf("%s: expected the client in %s to be sent from '%s' to %s for %s within %v, got '%s'", event, i.city, o.before, want(i.city), w.question, r.allowed, o.answer)
			case o.settled.Sub(at) > r.allowed:
				t.Errorf("%s: expected the client in %s to be sent from '%s' to %s for %s within %v, not after %v", event, i.city, o.before, want(i.city), w.question, r.allowed, o.settled.Sub(at))
			case o.left != "":
				t.Errorf("%s: expected the client in %s to keep %s for %s, got '%s' for some time", event, i.city, want(i.city), w.question, o.left)
			}
			r.reacted = max(r.reacted, o.settled.Sub(at))
		}
		ws.look(t, r, i)
	}
}

// look adds to a row what else can be seen from a city.
func (ws *watchers) look(t *testing.T, r *row, i *isp) {
	t.Helper()
	var err error
	if r.node, err = ws.referral(i); err != nil {
		t.Errorf("%s: expected a referral for %s, got %v", r.event, i.city, err)
	}
	var live []string
	for city, h := range ws.servers {
		if !h.port.cut.Load() {
			live = append(live, city)
		}
	}
	fastest, _ := ws.Matrix().Nearest(i.city, live)
	r.best = ws.Matrix().RTT(i.city, fastest)
	h, ok := ws.servers[r.answer]
	if !ok {
		return
	}
	far := ws.Matrix().RTT(i.city, r.answer)
	r.rtt, err = connect(i.client, h.Addr(), far+slack)
	if err != nil || r.rtt < far || r.rtt > far+slack {
		t.Errorf("%s: expected %s to be %v from %s and at most %v more, got %v, %v", r.event, r.answer, far, i.city, slack, r.rtt, err)
	}
}

// connect returns the shortest of some TCP handshakes: on a busy machine of more than on one where the first is quick enough.
func connect(from *Host, to netip.Addr, enough time.Duration) (shortest time.Duration, err error) {
	for range attempts {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		began := time.Now()
		conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to, 80))
		took := time.Since(began)
		cancel()
		if err != nil {
			return 0, err
		}
		_ = conn.Close()
		if shortest == 0 || took < shortest {
			shortest = took
		}
		if shortest <= enough {
			break
		}
	}
	return shortest, nil
}

// table is what the test prints: how each city fared at each event.
type table struct {
	start time.Time
	rows  []*row
}

type row struct {
	event, city, resolver, node string
	deputised                   float64 // of the resolver's packets to node and deputy, in percent
	answer                      string
	wrong                       bool
	rtt, best                   time.Duration
	reacted, allowed            time.Duration
	failed                      int
}

func (tb *table) print(t *testing.T) {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	event := ""
	for _, r := range tb.rows {
		if r.event != event {
			event = r.event
			_ = w.Flush()
			fmt.Fprintf(w, "\n%s:\n", event)
			fmt.Fprintln(w, "  city\tresolver\tnode\tto deputy %\tanswer\tRTT ms\tbest ms\treacted s\tallowed s\tfailed")
		}
		answer, reacted := r.answer, fmt.Sprintf("%.1f", r.reacted.Seconds())
		switch {
		case r.wrong:
			answer, reacted = answer+" WRONG", "never"
		case r.reacted == 0:
			reacted = "kept"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%.0f\t%s\t%.1f\t%.1f\t%s\t%.1f\t%d\n", r.city, r.resolver, r.node, r.deputised, answer,
			r.rtt.Seconds()*1000, r.best.Seconds()*1000, reacted, r.allowed.Seconds(), r.failed)
	}
	_ = w.Flush()
	fmt.Fprintf(&out, "\nAll in %v.\n", time.Since(tb.start).Round(time.Second))
	t.Log(out.String())
	if !testing.Verbose() && !t.Failed() {
		fmt.Fprint(os.Stdout, out.String())
	}
	// go test shows nothing of a package that passes, unless -v is given.
	if path := os.Getenv("WIDEAREA_TABLE"); path != "" {
		if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}
