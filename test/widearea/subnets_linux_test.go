package widearea

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"
)

// lookup is one question of a client to a public resolver.
type lookup struct {
	client *subnetClient
	public *publicResolver
	cut    string
}

// round has all clients ask all public resolvers for the service of each cut, at
// the same time.
func (l *subnetLab) round() map[lookup]answer {
	var mu sync.Mutex
	answers := make(map[lookup]answer)
	var asking sync.WaitGroup
	for _, c := range l.clients {
		for _, p := range l.public {
			for _, cut := range l.cuts {
				asking.Go(func() {
					a := l.lookUp(c.Host, c.addrFor(p.Host), cut.Name, c.qtype(), true, authenticate)
					mu.Lock()
					defer mu.Unlock()
					answers[lookup{c, p, cut.Name}] = a
				})
			}
		}
	}
	asking.Wait()
	return answers
}

// subnetTest is the state of the world, and the table.
type subnetTest struct {
	*subnetLab
	matrix *Matrix
	dead   string          // server
	tailor map[string]bool // cuts whose nodes have client subnets
	start  time.Time
	table  strings.Builder
	last   string // rows of the last situation
}

// want returns the city of the server for a client: by the node near to it, if the
// resolver sends client subnets and the nodes have them; else by the one near to
// the resolver.
func (s *subnetTest) want(c *subnetClient, subnets bool) string {
	node := c.near
	if !subnets {
		node, _ = s.matrix.Nearest(publicCity, nodeCities)
	}
	server, _ := s.matrix.Nearest(node, s.live())
	return server
}

func (s *subnetTest) wantOf(q lookup) string {
	return s.want(q.client, q.public.subnets && s.tailor[q.cut])
}

func (s *subnetTest) live() []string {
	return slices.DeleteFunc(slices.Clone(serverCities), func(city string) bool { return city == s.dead })
}

// problems describes what is not as expected in a round, sorted. The validating
// resolvers must say that the signed cut is secure.
func (s *subnetTest) problems(answers map[lookup]answer) []string {
	var all []string
	for q, a := range answers {
		switch want := s.wantOf(q); {
		case a.city != want:
			all = append(all, fmt.Sprintf("%s got %s from %s for %s, not %s", q.client.Name, a.city, q.public.name, q.cut, want))
		case q.cut == withSigs && !a.secure:
			all = append(all, fmt.Sprintf("%s got %s from %s for %s without the AD bit", q.client.Name, a.city, q.public.name, q.cut))
		}
	}
	slices.Sort(all)
	return all
}

// atLast is the longest time until clients get their best servers after a change.
// It is far longer than the settings allow, which other tests check: this one is
// about the answers.
const atLast = time.Minute

// await waits until three rounds in a row are as expected, and adds the last one to
// the table.
func (s *subnetTest) await(t *testing.T, event string, atLast time.Duration) {
	t.Helper()
	at := time.Now()
	var took time.Duration // to the first of the good rounds
	for good := 0; good < 3; time.Sleep(time.Second) {
		began := time.Now()
		answers := s.round()
		problems := s.problems(answers)
		switch {
		case len(problems) == 0 && good == 2:
			s.print(fmt.Sprintf("%s, after %.0f s", event, took.Seconds()), answers)
		case len(problems) > 0 && began.Sub(at) > atLast:
			s.print(event, answers)
			t.Fatalf("%s: Expected the best server for all clients within %v, got\n%s", event, atLast, strings.Join(problems, "\n"))
		case good == 0:
			took = began.Sub(at)
		}
		if good++; len(problems) > 0 {
			good = 0
		}
	}
}

// once expects the first reply to each question to be right.
func (s *subnetTest) once(t *testing.T, event string) {
	t.Helper()
	answers := s.round()
	for again := 0; again < 3 && silent(answers); again++ { // clients ask again
		for q, a := range s.round() {
			if answers[q].city == noReply {
				answers[q] = a
			}
		}
	}
	s.print(event, answers)
	if problems := s.problems(answers); len(problems) > 0 {
		t.Fatalf("%s: Expected the best server for all clients, got\n%s", event, strings.Join(problems, "\n"))
	}
}

// silent reports whether a client got no reply.
func silent(answers map[lookup]answer) bool {
	for _, a := range answers {
		if a.city == noReply {
			return true
		}
	}
	return false
}

// strictly asks for some time, and adds the last replies to the table. None may be
// wrong; a client without a reply asks again.
func (s *subnetTest) strictly(t *testing.T, event string, lasts time.Duration, wrong func(lookup, answer) bool) {
	t.Helper()
	asked, unanswered := 0, 0
	last := make(map[lookup]answer)
	for at := time.Now(); time.Since(at) < lasts; time.Sleep(time.Second) {
		for q, a := range s.round() {
			asked++
			if a.city == noReply {
				unanswered++
				continue
			}
			last[q] = a
			if wrong(q, a) {
				t.Errorf("%s: Expected %s for the %s by %s for %s, got %s", event, s.wantOf(q), q.client.Name, q.public.name, q.cut, a.city)
			}
		}
	}
	s.print(fmt.Sprintf("%s, %d of %d queries without a reply within %v", event, unanswered, asked, patience), last)
}

// print adds a round to the table: for each client and resolver, the answers in
// each cut, the round-trip time to these servers, and the lowest one there is.
func (s *subnetTest) print(event string, answers map[lookup]answer) {
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  client\tsubnet\tresolver\twithout\tRTT ms\twith\tRTT ms\twith, signed\tRTT ms\tbest ms")
	ms := func(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()*1000) }
	lost, replies := make(map[string]time.Duration), make(map[string]time.Duration)
	for _, p := range s.public {
		for _, c := range s.clients {
			fmt.Fprintf(w, "  %s\t%s\t%s", strings.TrimPrefix(c.Name, "client in "), c.prefix, p.name)
			fastest, _ := s.matrix.Nearest(c.City, s.live())
			best := s.matrix.RTT(c.City, fastest)
			for _, cut := range s.cuts {
				a := answers[lookup{c, p, cut.Name}]
				city, rtt := a.city, "-"
				if a.ok {
					d := s.matrix.RTT(c.City, city)
					rtt = ms(d)
					if p.subnets {
						lost[cut.Name] += d - best
						replies[cut.Name]++
					}
				}
				if a.city != s.wantOf(lookup{c, p, cut.Name}) {
					city += " (other)"
				}
				if a.secure {
					city += " AD"
				}
				fmt.Fprintf(w, "\t%s\t%s", city, rtt)
			}
			fmt.Fprintf(w, "\t%s\n", ms(best))
		}
	}
	_ = w.Flush()
	text := rows.String()
	if text == s.last {
		text = "  as before\n"
	} else {
		s.last = text
	}
	more := func(cut string) string { return ms(lost[cut] / max(replies[cut], 1)) }
	fmt.Fprintf(&s.table, "\n%s:\n%s  more than the best, on average, if the resolver sends client subnets: %s ms without, %s ms with, %s ms with, signed\n",
		event, text, more(without), more(with), more(withSigs))
}

// replaceMap writes the map file of DNS-B.
func (s *subnetTest) replaceMap(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(s.dnsB.dir, "map")
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// reconfigure gives the node of a cut in a city client subnets, by a reload, and
// waits until DNS-B knows that.
func (s *subnetTest) reconfigure(t *testing.T, city, cut string) {
	t.Helper()
	d, node := s.programs[city], ""
	for _, b := range s.blocks[city] {
		if b.Cut.Name == cut {
			b.Cut.Subnets, node = true, b.Label
		}
	}
	text := strings.ReplaceAll(s.corefile(t, subnetCorefile, s.blocks[city]), "DIR", d.dir)
	if err := os.WriteFile(filepath.Join(d.dir, "Corefile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGUSR1)
	for deadline := time.Now().Add(readyWithin); ; time.Sleep(100 * time.Millisecond) {
		reply, _, err := ask(s.public[0].Host, s.dnsBs[0].Addr(), node+".lb.gslb.example.org.", dns.TypeTXT, false, patience)
		if err == nil && strings.Contains(fmt.Sprint(reply.Answer), "client-subnets") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("Expected %s to register with client subnets in time, got %v, %v", node, reply, err)
		}
	}
}

// logged reports whether the log of DNS-B has a line with a text.
func (s *subnetTest) logged(t *testing.T, text string) bool {
	t.Helper()
	log, err := os.ReadFile(s.dnsB.log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(log), text)
}

// TestClientsOfPublicResolversGetFastestServer has clients in several cities use
// public resolvers in one city: Unbound and PowerDNS Recursor, which send client
// subnets to the nodes, and BIND and Knot Resolver, which do not. All of them
// validate. The nodes serve three cuts: one without client subnets, one with them,
// and one with them that is signed. Those with client subnets must give each client
// of the first two resolvers its own best server, and everybody else what the cut
// without them gives. In the end the first cut gets client subnets, too, at one node
// after the other.
func TestClientsOfPublicResolversGetFastestServer(t *testing.T) {
	needNetwork(t, append([]string{"go"}, programs...)...)
	m := cities(t)
	s := &subnetTest{matrix: m, tailor: map[string]bool{with: true, withSigs: true}, start: time.Now()}
	s.subnetLab = newSubnetLab(t, m, build(t), threeCuts())
	t.Cleanup(func() {
		fmt.Fprintf(&s.table, "\nTotal time: %v.\n", time.Since(s.start).Round(time.Second))
		publish(t, s.table.String())
	})
	s.awaitNodes(t, s.want, time.Now().Add(readyWithin))
	s.awaitResolvers(t, time.Now().Add(readyWithin))

	s.once(t, "cold")
	s.once(t, "warm")

	s.moving.near, _ = m.Nearest(s.moving.City, nodeCities)
	var lines strings.Builder
	for _, cut := range s.cuts { // each has nodes of its own
		fmt.Fprintf(&lines, " %s-%s", labels[s.moving.near], cut.Name)
	}
	s.replaceMap(t, subnetMapFile+s.moving.prefix.String()+lines.String()+"\n")
	s.await(t, "the map changes", atLast)

	s.dead = "Tokyo"
	s.servers[s.dead].Cut(true)
	s.await(t, s.dead+" fails", atLast)

	near, _ := m.Nearest(publicCity, nodeCities)
	s.nodes[near].Cut(true)
	wrong := func(q lookup, a answer) bool { return a.city != s.wantOf(q) }
	s.strictly(t, "the DNS-LB in "+near+" fails", 15*time.Second, wrong)
	s.nodes[near].Cut(false)

	// Meanwhile a client gets what the node without them, or that with them, has
	// for it, and never nothing.
	for _, city := range []string{"NewYork", "Paris", "Osaka"} {
		s.reconfigure(t, city, without)
		s.strictly(t, "client subnets in "+city+", too", 3*time.Second, func(_ lookup, a answer) bool { return !slices.Contains(s.live(), a.city) })
	}
	s.tailor[without] = true
	s.await(t, "client subnets everywhere", atLast)
	const cut = `"` + without + `.gslb.example.org."`
	for _, text := range []string{"Found nodes of " + cut + " with client-subnets (", "Recovered: the nodes of " + cut + " agree on client-subnets"} {
		if !s.logged(t, text) {
			t.Errorf("Expected DNS-B to log %q", text)
		}
	}
}
