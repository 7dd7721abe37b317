package dnslb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/plugin/transfer"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// world is a random node: services, and perhaps a backend zone.
type world struct {
	*DNSLB
	rand     *rand.Rand
	services map[string]serviceConfig
	names    []string        // all that own something
	zone     string          // text of the backend zone
	has      map[string]bool // OWNER TYPE of records that are not addresses of services
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{rand: rand.New(rand.NewPCG(seed, 0)), services: make(map[string]serviceConfig), has: make(map[string]bool)} // #nosec G404 -- a test
	conf := config{Zones: []string{testZone}, inventory: inventory{servers: make(map[string]serverConfig)}, ttlLow: 20, ttlHigh: 60, loaded: 7, Node: "par1"}
	labels := make([]string, 0, 20)
	for i := range 20 {
		var addrs []string
		if w.rand.IntN(4) > 0 {
			addrs = append(addrs, fmt.Sprintf("192.0.2.%d", i+1))
		}
		if len(addrs) == 0 || w.rand.IntN(2) > 0 {
			addrs = append(addrs, fmt.Sprintf("2001:db8::%d", i+1))
		}
		labels = append(labels, fmt.Sprint("s", i))
		conf.inventory.servers[labels[i]] = machine(addrs...)
	}
	for range 1 + w.rand.IntN(6) {
		name := w.name()
		if _, ok := w.services[name]; ok {
			continue
		}
		w.rand.Shuffle(len(labels), func(i, j int) { labels[i], labels[j] = labels[j], labels[i] })
		svc := serviceConfig{
			name: name, servers: labelsOf(labels[:1+w.rand.IntN(len(labels))]...),
			options: options{answers: 1 + w.rand.IntN(maxAnswers)},
		}
		w.services[name] = svc
		conf.inventory.services = append(conf.inventory.services, svc)
		w.names = append(w.names, name)
	}
	w.has[testZone+" SOA"], w.has[testZone+" NS"], w.has[testZone+" ANY"] = true, true, true
	w.DNSLB = newDNSLB(conf, nil)
	if w.rand.IntN(2) > 0 {
		w.withZone(t)
	}
	w.state = newBlockState()
	w.snapshot.Store(w.sources.snapshot())
	for _, p := range w.snapshot.Load().pools {
		if w.rand.IntN(3) == 0 { // some of its servers are equally fast
			near := p.state.order()[:1+w.rand.IntN(len(p.state.order()))]
			p.answer.Store(p.newAnswer(p.state.order(), near, always(60), false))
		}
	}
	return w
}

// withZone puts file behind, with a zone that knows some of the services.
func (w *world) withZone(t *testing.T) {
	t.Helper()
	lines := []string{"@ 300 SOA ns.example.org. hostmaster.example.org. 42 7200 1800 86400 120", "@ 300 NS ns1", "@ 300 NS ns.example.net."}
	data := []string{`TXT "text"`, "MX 10 mail.example.net.", "A 203.0.113.1", "AAAA 2001:db8:ffff::1", "HTTPS 1 . alpn=h2 ipv4hint=203.0.113.1", "TYPE65280 \\# 1 00"}
	for range w.rand.IntN(8) {
		name := w.name()
		if w.rand.IntN(2) > 0 {
			name = w.names[w.rand.IntN(len(w.names))]
		}
		if line := name + " 300 " + data[w.rand.IntN(len(data))]; !slices.Contains(lines, line) {
			lines = append(lines, line)
			w.names = append(w.names, name)
			rrtype, _, _ := strings.Cut(strings.TrimPrefix(line, name+" 300 "), " ")
			w.has[name+" "+rrtype] = true
			w.has[name+" ANY"] = true
		}
	}
	w.zone = "$ORIGIN " + testZone + "\n" + strings.Join(lines, "\n") + "\n"
	z, err := file.Parse(strings.NewReader(w.zone), testZone, "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	next := &file.File{Zones: file.Zones{Z: map[string]*file.Zone{testZone: z}, Names: []string{testZone}}}
	w.Next = next
	w.sources.setBackends([]transfer.Transferer{next}, false)
}

// name returns a name of few labels, so that there are relatives.
func (w *world) name() string {
	name := testZone
	for range 1 + w.rand.IntN(3) {
		name = []string{"a", "b", "c", "*"}[w.rand.IntN(4)] + "." + name
	}
	return name
}

// exists says whether a name is to exist (RFC 4592 and RFC 8020), and by which
// owner name.
func (w *world) exists(qname string) (owner string, exists bool) {
	atOrBelow := func(name string) bool {
		return name == testZone || slices.ContainsFunc(w.names, func(n string) bool { return n == name || strings.HasSuffix(n, "."+name) })
	}
	if atOrBelow(qname) {
		return qname, true
	}
	encloser := qname
	for !atOrBelow(encloser) {
		_, encloser, _ = strings.Cut(encloser, ".")
	}
	return "*." + encloser, atOrBelow("*." + encloser)
}

var propertyTypes = []uint16{
	dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeHTTPS, dns.TypeANY, dns.TypeCNAME, 65280,
}

// TestProperties checks what holds of every answer.
func TestProperties(t *testing.T) {
	for seed := range uint64(500) {
		w := newWorld(t, seed)
		for range 50 {
			qname := w.name()
			if w.rand.IntN(20) == 0 {
				qname = testZone
			}
			r := new(dns.Msg).SetQuestion(mixedCase(w.rand, qname), propertyTypes[w.rand.IntN(len(propertyTypes))])
			r.RecursionDesired = w.rand.IntN(2) > 0
			size := dns.MinMsgSize
			if w.rand.IntN(2) > 0 {
				size = dns.MinMsgSize + w.rand.IntN(1000)
				r.SetEdns0(uint16(size), w.rand.IntN(2) > 0) // #nosec G115 -- small
			}
			m, wire := w.ask(t, r)
			if problem := w.check(r, qname, m); problem != "" {
				t.Fatalf("Seed %d: %s\nservices: %v\n%s\n%v", seed, problem, w.services, w.zone, m)
			}
			if len(wire) > size || m.Truncated {
				t.Fatalf("Seed %d: expected at most %d bytes and no TC, got %d and %v\n%v", seed, size, len(wire), m.Truncated, m)
			}
			if again, _ := w.ask(t, r); again.String() != m.String() {
				t.Fatalf("Seed %d: expected the same answer again, got\n%v\nafter\n%v", seed, again, m)
			}
		}
	}
}

func mixedCase(r *rand.Rand, name string) string {
	b := []byte(name)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && r.IntN(2) > 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// ask returns what a resolver gets.
func (w *world) ask(t *testing.T, r *dns.Msg) (*dns.Msg, []byte) {
	t.Helper()
	r = r.Copy()
	rec := dnstest.NewRecorder(&test.ResponseWriter{})
	if _, err := w.ServeDNS(context.Background(), request.NewScrubWriter(r, rec), r); err != nil || rec.Msg == nil {
		t.Fatalf("%v: expected an answer, got %v", r.Question, err)
	}
	wire, err := rec.Msg.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatal(err)
	}
	return m, wire
}

// check returns what is wrong with an answer.
func (w *world) check(r *dns.Msg, qname string, m *dns.Msg) string {
	q := r.Question[0]
	if m.Id != r.Id || !m.Response || m.RecursionDesired != r.RecursionDesired || m.RecursionAvailable || !m.Authoritative || len(m.Question) != 1 || m.Question[0] != q {
		return "expected a header and question of a reply"
	}
	owner, exists := w.exists(qname)
	want := dns.RcodeSuccess
	if !exists {
		want = dns.RcodeNameError
	}
	if m.Rcode != want {
		return fmt.Sprintf("expected %s", dns.RcodeToString[want])
	}
	svc, isService := w.services[owner]
	addresses := q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA
	configured := w.configured(svc, q.Qtype)

	positive := w.has[owner+" "+dns.Type(q.Qtype).String()]
	if isService && addresses {
		positive = len(configured) > 0
	}
	positive = positive || isService && q.Qtype == dns.TypeANY
	if positive != (len(m.Answer) > 0) {
		return fmt.Sprintf("expected a positive answer: %v", positive)
	}
	if len(m.Answer) == 0 {
		if len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA || m.Ns[0].Header().Name != testZone || m.Ns[0].Header().Ttl > 120 {
			return "expected one SOA record in a negative answer"
		}
		return ""
	}
	if len(m.Ns) > 0 {
		return "expected nothing in the authority section of a positive answer"
	}
	if !isService {
		return ""
	}
	if addresses {
		return w.among(m.Answer, configured, q.Name, svc.answers)
	}
	for _, rr := range m.Answer {
		b := binding(rr)
		if b == nil {
			continue
		}
		for _, v := range b.Value {
			switch v := v.(type) {
			case *dns.SVCBIPv4Hint:
				for _, ip := range v.Hint {
					if addr, _ := netip.AddrFromSlice(ip.To4()); !slices.Contains(w.configured(svc, dns.TypeA), addr) {
						return "expected a hint that is an address of the service"
					}
				}
			case *dns.SVCBIPv6Hint:
				for _, ip := range v.Hint {
					if addr, _ := netip.AddrFromSlice(ip); !slices.Contains(w.configured(svc, dns.TypeAAAA), addr) {
						return "expected a hint that is an address of the service"
					}
				}
			}
		}
	}
	return ""
}

// configured returns the addresses of a service's servers in one family.
func (w *world) configured(svc serviceConfig, qtype uint16) []netip.Addr {
	var addrs []netip.Addr
	for _, label := range svc.servers {
		for _, addr := range w.inventory.servers[label.Value()].addrs {
			if addr.Is4() == (qtype == dns.TypeA) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// among checks that an answer holds addresses of a service: none twice, and as
// many as there are, up to most.
func (w *world) among(answer []dns.RR, configured []netip.Addr, owner string, most int) string {
	if want := min(most, len(configured)); len(answer) != want {
		return fmt.Sprintf("expected %d addresses", want)
	}
	var seen []netip.Addr
	for _, rr := range answer {
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if rr.Header().Name != owner || !slices.Contains(configured, addr) || slices.Contains(seen, addr) {
			return fmt.Sprintf("unexpected %v", rr)
		}
		seen = append(seen, addr)
	}
	return ""
}
