package widearea

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var (
	// dnsBCities have a DNS-B each, which share their registrations in etcd.
	dnsBCities = []string{"London", "NewYork"}
	// brands are the resolvers of the ISPs, two of each brand.
	brands = map[string]resolver{
		"Paris": unbound, "London": powerDNS, "Madrid": bind, "Stockholm": knot,
		"NewYork": bind, "Montreal": knot, "Osaka": powerDNS, "Seoul": unbound,
	}
)

const (
	etcdCity = "London"
	// chaosReferralTTL is short, so that resolvers meet DNS-B while things
	// fail.
	chaosReferralTTL = 30 * time.Second
	// chaosTime is the time of the faults in CI, which are always the same ones.
	chaosTime = 3 * time.Minute
	chaosSeed = 1
	// settling is how long the run goes on after the last fault.
	settling = 15 * time.Second
	// readyWithin is how long a program that was started again may take until
	// it answers, if nothing that it needs is missing.
	readyWithin = 2 * time.Minute
)

// chaos is a chaos run.
type chaos struct {
	*lab
	*system
	*world
	*journal
	t *testing.T

	machines map[string]*sync.Mutex // one fault at a time, by thing

	mu    sync.Mutex
	paths map[int]func(*Matrix) *Matrix // changes in force, by number of the fault
	base  *Matrix
}

// TestChaos lets machines, paths, files and clocks fail at random while clients
// ask all resolvers. No answer may break a promise of docs/failures.md that
// applies at that time, as the oracle decides. Before that, the oracle must
// notice two promises that are broken on purpose.
func TestChaos(t *testing.T) {
	needNetwork(t, append([]string{"go", "etcd"}, programs...)...)
	length, seed := chaosTime, uint64(chaosSeed)
	if set := os.Getenv("CHAOS_TIME"); set != "" {
		var err error
		if length, err = time.ParseDuration(set); err != nil {
			t.Fatalf("Expected a duration in CHAOS_TIME, got error: %v", err)
		}
		seed = uint64(time.Now().UnixNano())
	}
	if set := os.Getenv("CHAOS_SEED"); set != "" {
		var err error
		if seed, err = strconv.ParseUint(set, 10, 64); err != nil {
			t.Fatalf("Expected a number in CHAOS_SEED, got error: %v", err)
		}
	}
	t.Logf("Repeat with CHAOS_SEED=%d CHAOS_TIME=%v", seed, length)

	m := roundedMatrix(t)
	program := build(t)
	l := newLab(t, m, labPlan{dnsBCities: dnsBCities, etcdCity: etcdCity, resolverOf: func(city string) resolver { return brands[city] }})
	c := &chaos{
		lab: l, system: l.startSystem(t, program, m, chaosReferralTTL), world: newWorld(), journal: &journal{starved: make(map[string]*starvation)}, t: t,
		machines: make(map[string]*sync.Mutex), paths: make(map[int]func(*Matrix) *Matrix), base: m,
	}
	l.awaitReferrals(t, time.Now().Add(readyWithin))
	c.mark("", "All resolvers are referred to their nearest node. Repeat with CHAOS_SEED=%d CHAOS_TIME=%v", seed, length)
	stop := c.watch()
	c.lie()

	begin := time.Now()
	var faults sync.WaitGroup
	for number, f := range plan(seed, length) {
		faults.Go(func() {
			time.Sleep(time.Until(begin.Add(f.after)))
			c.do(number, f)
		})
	}
	faults.Wait()
	c.mark("", "All faults are over")
	time.Sleep(settling)
	stop()

	v := c.between(begin, time.Now(), c.world, chaosReferralTTL).judge()
	publish(t, c.report(v, c.world))
	if len(v.broken) > 0 {
		t.Errorf("Expected no broken promise, got %d, the first one: %s", len(v.broken), v.broken[0])
	}
	for brand, counted := range v.brands {
		if counted.answers == 0 {
			t.Errorf("Expected answers through %s, got none", brand)
		}
	}
}

// watch starts the clients, the questions to DNS-Bs and the watch on starved
// processes. They end with stop.
func (c *chaos) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	repeat := func(pause time.Duration, f func()) {
		running.Go(func() {
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for ctx.Err() == nil {
				f()
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	things := map[string]func() int{harness: os.Getpid}
	watchDaemon := func(thing string, d *daemon) {
		things[thing] = func() int { return d.process().cmd.Process.Pid }
	}
	for _, i := range c.isps {
		watchDaemon(resolverIn(i.city), i.recursor)
		for _, q := range questions {
			repeat(every, func() { c.client(i, q) })
		}
		for n, h := range c.lab.dnsBs {
			for _, addr := range h.Addrs {
				repeat(time.Second, func() { c.sight(i, dnsBCities[n], addr) })
			}
		}
	}
	for n, d := range c.system.dnsBs {
		watchDaemon(dnsBIn(dnsBCities[n]), d)
	}
	for city, d := range c.system.nodes {
		watchDaemon(nodeIn(city), d)
	}
	running.Go(func() {
		c.watchStarvation(ctx, c.starvation, things)
	})
	return func() { cancel(); running.Wait() }
}

// client asks a resolver.
func (c *chaos) client(i *isp, q question) {
	start := time.Now()
	reply, _, err := ask(i.client, i.resolver.Addr(), q.name+".example.org.", q.qtype, true, patience)
	c.result(c.outcome(i, q, start, reply, err))
}

// sight asks an address of a DNS-B from that of a resolver in its family.
func (c *chaos) sight(i *isp, city string, dnsB netip.Addr) {
	at := time.Now()
	reply, _, err := ask(i.resolver, dnsB, "www.svc.gslb.example.org.", dns.TypeA, false, 2*time.Second)
	if err != nil {
		return
	}
	s := sighting{resolver: i.city, dnsB: city, to: dnsB, at: at, rcode: reply.Rcode}
	for _, rr := range reply.Ns {
		if ns, ok := rr.(*dns.NS); ok && !reply.Authoritative {
			label, _, _ := strings.Cut(ns.Ns, ".")
			for _, node := range nodeCities {
				if labels[node] == label {
					s.nodes = append(s.nodes, node)
				}
			}
		}
	}
	c.sighting(s)
}

// lie breaks two promises, which the oracle must notice:
// nodes are ordered to answer with a dead server, and clients ask for a name
// whose name servers do not serve it.
func (c *chaos) lie() {
	const server = "Frankfurt"
	begin := time.Now()
	for _, d := range c.system.nodes {
		c.replace(d, "admin", "up "+labels[server]+" until "+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+" reason the probe is wrong\n")
	}
	time.Sleep(8 * time.Second) // admin files are read
	c.mark("", "Lie: %s is dead, and nodes are ordered to answer with it; a name is lame", server)
	c.servers[server].Cut(true)
	end := c.begin(serverIn(server), gone, time.Now())
	for _, i := range c.isps {
		c.client(i, question{"www.lame", dns.TypeA})
	}
	time.Sleep(time.Until(begin.Add(8*time.Second + down + answerTTL + overhead + 2*time.Second)))
	c.servers[server].Cut(false)
	end(time.Now())
	for _, d := range c.system.nodes {
		c.replace(d, "admin", "")
	}
	stale, broken := 0, 0
	for _, counted := range c.between(begin, time.Now(), c.world, chaosReferralTTL).judge().brands {
		stale, broken = stale+counted.stale, broken+counted.broken
	}
	c.mark("", "Truth: all servers live. The oracle noticed %d answers with the dead server and %d failures", stale, broken)
	starved := len(c.of(time.Now(), harness)) > 0
	if (stale == 0 || broken == 0) && !starved {
		c.t.Errorf("Expected the oracle to notice both lies, got %d answers with a dead server and %d failures", stale, broken)
	}
}

// do lets a fault happen, and ends it.
func (c *chaos) do(number int, f fault) {
	switch f.kind {
	case "kill DNS-LB", "restart DNS-LB", "stop DNS-LB":
		c.interrupt(f, nodeIn(f.target), c.system.nodes[f.target], c.lab.nodes[f.target])
	case "kill DNS-B", "restart DNS-B", "stop DNS-B":
		d, h := c.dnsBOf(f.target)
		c.interrupt(f, dnsBIn(f.target), d, h)
	case "kill etcd", "stop etcd":
		c.interrupt(f, "etcd", c.system.etcd, c.lab.etcd)
	case "cut DNS-LB off":
		c.cutOff(f, nodeIn(f.target), c.lab.nodes[f.target])
	case "cut DNS-B off":
		_, h := c.dnsBOf(f.target)
		c.cutOff(f, dnsBIn(f.target), h)
	case "server dies":
		c.cutOff(f, serverIn(f.target), c.servers[f.target])
	case "cut path":
		c.changePath(number, f, true, gone, func(m *Matrix) *Matrix { return m.WithLoss(f.target, f.other, 1) })
	case "lose 20 % on path":
		c.changePath(number, f, true, lossy, func(m *Matrix) *Matrix { return m.WithLoss(f.target, f.other, 0.2) })
	case "slow path":
		slower := time.Duration(50+2*f.variant) * time.Millisecond
		c.changePath(number, f, false, 0, func(m *Matrix) *Matrix { return m.With(f.target, f.other, m.RTT(f.target, f.other)+slower) })
	case "reload":
		d, thing := c.program(f.target)
		defer c.lock(thing)()
		c.mark(f.kind, "%s", f)
		d.signal(syscall.SIGUSR1)
	case "clock off":
		c.clockOff(f)
	default:
		c.changeFile(f)
	}
}

// lock lets one fault at a time happen to a machine.
func (c *chaos) lock(thing string) (unlock func()) {
	c.mu.Lock()
	m := c.machines[thing]
	if m == nil {
		m = new(sync.Mutex)
		c.machines[thing] = m
	}
	c.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// dnsBOf returns the DNS-B in a city.
func (c *chaos) dnsBOf(city string) (*daemon, *Host) {
	for i, other := range dnsBCities {
		if other == city {
			return c.system.dnsBs[i], c.lab.dnsBs[i]
		}
	}
	panic("no DNS-B in " + city)
}

// program returns a program of this project in a city, and its thing. Where
// there are two, it is the DNS-LB.
func (c *chaos) program(city string) (d *daemon, thing string) {
	if d, ok := c.system.nodes[city]; ok {
		return d, nodeIn(city)
	}
	d, _ = c.dnsBOf(city)
	return d, dnsBIn(city)
}

// interrupt kills, ends or stops a program, and lets it run again.
func (c *chaos) interrupt(f fault, thing string, d *daemon, h *Host) {
	defer c.lock(thing)()
	c.mark(f.kind, "%s", f)
	end := c.begin(thing, gone, time.Now())
	defer func() {
		c.mark(f.kind, "%s: over", f)
		end(time.Now())
	}()
	if strings.HasPrefix(f.kind, "stop") {
		d.signal(syscall.SIGSTOP)
		time.Sleep(f.lasts)
		d.signal(syscall.SIGCONT)
		return
	}
	if strings.HasPrefix(f.kind, "restart") {
		d.end()
	} else {
		d.kill()
	}
	time.Sleep(f.lasts)
	if err := d.start(c.t); err != nil {
		c.t.Errorf("Expected to start %s again, got %v", d.name, err)
		return
	}
	node := ""
	if d == c.system.nodes[f.target] {
		node = f.target
	}
	c.awaitAnswer(d, h, node)
}

// awaitAnswer waits until a program that was started again answers: a DNS-B by
// a referral, for which it must have read etcd. A node must be registered again:
// one that withdrew is unknown until then.
func (c *chaos) awaitAnswer(d *daemon, h *Host, node string) {
	answers := func() bool {
		if d == c.system.etcd {
			client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return h.Dial(ctx, network, netip.AddrPortFrom(h.Addr(), 2379))
			}}}
			reply, err := client.Get("http://etcd.example.org/health")
			if err != nil {
				return false
			}
			_ = reply.Body.Close()
			return reply.StatusCode == http.StatusOK
		}
		reply, _, err := ask(h, h.Addr(), "www.svc.gslb.example.org.", dns.TypeA, false, time.Second)
		return err == nil && reply.Rcode == dns.RcodeSuccess && (node == "" || c.registered(node))
	}
	for deadline := time.Now().Add(readyWithin); !answers(); time.Sleep(every / 5) {
		if time.Now().After(deadline) {
			c.t.Errorf("Expected %s to answer again, got nothing within %v", d.name, readyWithin)
			return
		}
	}
}

// registered reports whether a DNS-B knows the node in a city.
func (c *chaos) registered(city string) bool {
	return slices.ContainsFunc(c.lab.dnsBs, func(h *Host) bool {
		reply, _, err := ask(h, h.Addr(), labels[city]+".lb.gslb.example.org.", dns.TypeA, false, time.Second)
		return err == nil && len(reply.Answer) > 0
	})
}

func (c *chaos) cutOff(f fault, thing string, h *Host) {
	defer c.lock(thing)()
	c.mark(f.kind, "%s", f)
	end := c.begin(thing, gone, time.Now())
	h.Cut(true)
	time.Sleep(f.lasts)
	h.Cut(false)
	end(time.Now())
	c.mark(f.kind, "%s: over", f)
}

// changePath changes the path of a fault; out says whether it works no more.
func (c *chaos) changePath(number int, f fault, out bool, why cause, change func(*Matrix) *Matrix) {
	c.mark(f.kind, "%s", f)
	end := func(time.Time) {}
	if out {
		end = c.begin(pathOf(f.target, f.other), why, time.Now())
	}
	c.setPath(number, change)
	time.Sleep(f.lasts)
	c.setPath(number, nil)
	end(time.Now())
	c.mark(f.kind, "%s: over", f)
}

// setPath puts a change of the matrix in force, or ends it.
func (c *chaos) setPath(number int, change func(*Matrix) *Matrix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if change == nil {
		delete(c.paths, number)
	} else {
		c.paths[number] = change
	}
	m := c.base
	for _, change := range c.paths {
		m = change(m)
	}
	c.SetMatrix(m)
}

// clockOff sets the clock of a program off by 6 to 30 minutes, forward or back.
func (c *chaos) clockOff(f fault) {
	if !canSetClock {
		return
	}
	d, thing := c.program(f.target)
	defer c.lock(thing)()
	off := time.Duration(6+f.variant/4) * time.Minute
	if f.variant%2 == 0 {
		off = -off
	}
	set := func(off time.Duration) {
		if err := setClock(d, off); err != nil {
			c.t.Errorf("Expected to set the clock of %s, got %v", d.name, err)
		}
	}
	c.mark(f.kind, "%s by %v", f, off)
	set(off)
	time.Sleep(f.lasts)
	set(0)
	c.mark(f.kind, "%s: over", f)
}

// changeFile damages a file or replaces it, has it read, and puts it right.
func (c *chaos) changeFile(f fault) {
	var d *daemon
	var thing string
	switch f.kind {
	case "admin file of DNS-B", "map file":
		d, _ = c.dnsBOf(f.target)
		thing = dnsBIn(f.target)
	default:
		d, thing = c.system.nodes[f.target], nodeIn(f.target)
	}
	defer c.lock(thing)()
	random := rand.New(rand.NewPCG(uint64(f.variant), 0))
	hour := " until " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + " reason chaos\n"
	name, whole := "admin", ""
	switch f.kind {
	case "services file":
		name, whole = "services", "# another version\n"
	case "near file":
		name, whole = "near", "# another version\n"
	case "map file":
		name = "map"
		i := c.isps[random.IntN(len(c.isps))]
		for _, prefix := range bothFamilies(i.prefix) {
			whole += prefix + " " + labels[nodeCities[random.IntN(len(nodeCities))]] + "\n"
		}
	case "admin file of DNS-B":
		whole = "drain " + labels[nodeCities[random.IntN(len(nodeCities))]] + hour
	case "admin file of DNS-LB":
		whole = "drain " + labels[serverCities[random.IntN(len(serverCities))]] + hour
	}
	path := filepath.Join(d.dir, name)
	right, err := os.ReadFile(path)
	if err != nil && name != "admin" {
		c.t.Errorf("Expected to read %s, got %v", path, err)
		return
	}
	whole += string(right)
	reload := name == "near" || f.variant%3 == 0
	what := []string{"replaced", "half-written", "empty", "garbage"}[f.variant%4]
	c.mark(f.kind, "%s: %s", f, what)
	switch what {
	case "replaced":
		c.replace(d, name, whole)
	case "half-written":
		c.write(path, whole[:len(strings.TrimSpace(whole))-2]) // amid the last word
	case "empty":
		c.write(path, "")
	case "garbage":
		c.write(path, "\x00\xff no such line\n"+whole)
	}
	if reload {
		d.signal(syscall.SIGUSR1)
	}
	time.Sleep(f.lasts)
	c.replace(d, name, string(right))
	if reload {
		d.signal(syscall.SIGUSR1)
	}
	// The file is read after this; until then the program must not start anew.
	time.Sleep(time.Second)
	c.mark(f.kind, "%s: over", f)
}

// replace replaces a file of a program as a whole.
func (c *chaos) replace(d *daemon, name, text string) {
	path := filepath.Join(d.dir, name)
	c.write(path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		c.t.Errorf("Expected to replace %s, got %v", path, err)
	}
}

func (c *chaos) write(path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Errorf("Expected to write %s, got %v", path, err)
	}
}
