package dnsb

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/transfer"
	_ "github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

func init() {
	caddy.Quiet, dnsserver.Quiet = true, true
	i := slices.Index(dnsserver.Directives, "dynupdate")
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), i, "latencyprobe", pluginName)
}

const (
	parKey, parSecret = "par1.key.", "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="
	nycKey, nycSecret = "nyc1.key.", "bnljMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="
)

const serverBlock = `gslb.example.org:%d {
	bind 127.0.0.1
	tsig {
		secret par1.key. ` + parSecret + `
		secret nyc1.key. ` + nycSecret + `
	}
	cache
	dnsb {
		ns b1 127.0.0.1
		accept par1.key. par1 198.51.100.0/24 127.0.0.0/8 10.0.0.0/8 2001:db8::/32 for svc.gslb.example.org
		accept nyc1.key. nyc1 any
		default nyc1
		lease 1m 2h
		%s
	}
}
`

// server is a running server, which goes on over reloads.
type server struct {
	t        *testing.T
	instance *caddy.Instance
	port     int
}

// serve starts a server with lines added to its dnsb.
func serve(t *testing.T, lines string) (*server, int) {
	t.Helper()
	s := &server{t: t, port: testport.Free(t)}
	var err error
	if s.instance, err = caddy.Start(corefileInput(s.port, lines)); err != nil {
		t.Fatalf("Expected the server to start, got: %v", err)
	}
	t.Cleanup(func() {
		for _, err := range s.instance.ShutdownCallbacks() {
			t.Errorf("Expected a clean shutdown, got: %v", err)
		}
		_ = s.instance.Stop()
		if n := len(zones.Values()) + runningInstances(); n != 0 {
			t.Errorf("Expected nothing to run after the shutdown, got %d", n)
		}
	})
	begun(t, s.port)
	return s, s.port
}

// restart reloads with other lines.
func (s *server) restart(lines string) error {
	s.t.Helper()
	instance, err := s.instance.Restart(corefileInput(s.port, lines))
	if err == nil {
		s.instance = instance
		begun(s.t, s.port)
	}
	return err
}

// begun waits until an instance serves: CoreDNS does not stop servers that have not
// begun to, as those of an instance that is restarted at once, and they would go on
// beside the next ones.
func begun(t *testing.T, port int) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		query(t, port, network, ".", dns.TypeNS) // of no server block
	}
}

func corefileInput(port int, lines string) caddy.Input {
	return caddy.CaddyfileInput{Contents: fmt.Appendf(nil, serverBlock, port, lines), Filepath: "Corefile", ServerTypeName: "dns"}
}

// runningInstances counts the goroutines of which each instance has one.
func runningInstances() int {
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
	return strings.Count(stacks.String(), "(*DNSB).follow(")
}

// patience is how long tests wait for what is certain to come: longer than anything
// takes on a busy machine.
const patience = 2 * time.Minute

func query(t *testing.T, port int, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.SetEdns0(1232, false)
	r, _, err := (&dns.Client{Net: network, Timeout: patience}).Exchange(m, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatalf("Expected a reply for %s, got: %v", name, err)
	}
	return r
}

func referral(t *testing.T, port int) string {
	t.Helper()
	r := query(t, port, "udp", "www.svc.gslb.example.org.", dns.TypeA)
	for _, rr := range r.Ns {
		if ns, ok := rr.(*dns.NS); ok {
			node, _, _ := strings.Cut(ns.Ns, ".")
			return node
		}
	}
	return dns.RcodeToString[r.Rcode]
}

// send sends an UPDATE, signed if there is a key, and returns the reply.
func send(t *testing.T, port int, m *dns.Msg, key, secret string) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: "tcp", Timeout: patience}
	if key != "" {
		c.TsigSecret = map[string]string{key: secret}
		m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	}
	r, _, err := c.Exchange(m, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil && (r == nil || r.Rcode != dns.RcodeNotAuth) {
		t.Fatalf("Expected a verified reply, got: %v", err)
	}
	return r
}

func sent(t *testing.T, r *registration.Registration) *dns.Msg {
	t.Helper()
	m, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRegistrationOverTheWire(t *testing.T) {
	s, port := serve(t, "")
	if got := referral(t, port); got != "SERVFAIL" {
		t.Errorf("Expected SERVFAIL before any node has registered, got %s", got)
	}

	par := nodeAt("par1", "192.0.2.53", "127.0.0.0/8", "!198.51.100.128/25", "198.51.100.0/24")
	par.Serial, par.Lease = uint64(time.Now().UnixMilli()), time.Second
	r := send(t, port, sent(t, par), parKey, parSecret)
	if granted, ok := registration.GrantedLease(r); r.Rcode != dns.RcodeSuccess || !ok || granted != time.Minute {
		t.Fatalf("Expected a lease of one minute, got %v", r)
	}
	nyc := nodeAt("nyc1", "192.0.2.54")
	if r := send(t, port, sent(t, nyc), nycKey, nycSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected nyc1 to register without a lease option, got %v", r)
	}
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected par1, got %s", got)
	}

	change := func(f func(*registration.Registration)) *dns.Msg {
		c := *par
		c.Serial += 1000
		f(&c)
		return sent(t, &c)
	}
	ok := change(func(*registration.Registration) {})
	for _, tc := range []struct {
		name        string
		m           *dns.Msg
		key, secret string
		rcode       int
		text        string
	}{
		{"unsigned", ok.Copy(), "", "", dns.RcodeRefused, "not signed"},
		{"wrong secret", ok.Copy(), parKey, nycSecret, dns.RcodeNotAuth, ""},
		{"unknown key", ok.Copy(), "other.key.", parSecret, dns.RcodeNotAuth, ""},
		{"key of another node", ok.Copy(), nycKey, nycSecret, dns.RcodeRefused, "the key nyc1.key. may not register node par1"},
		{"prefix", change(func(r *registration.Registration) {
			r.Prefixes = []registration.Prefix{{Prefix: nodeAt("x", "192.0.2.1", "203.0.113.0/24").Prefixes[0].Prefix}}
		}), parKey, parSecret, dns.RcodeRefused, "may not claim the prefix 203.0.113.0/24"},
		{"short prefix", change(func(r *registration.Registration) { r.Prefixes = nodeAt("x", "192.0.2.1", "0.0.0.0/0").Prefixes }),
			parKey, parSecret, dns.RcodeRefused, "may not claim the prefix 0.0.0.0/0"},
		{"cut", change(func(r *registration.Registration) { r.Cuts = []string{"x.gslb.example.org."} }),
			parKey, parSecret, dns.RcodeRefused, "may not serve x.gslb.example.org."},
		{"reserved", change(func(r *registration.Registration) { r.Cuts = []string{"lb.gslb.example.org."} }),
			parKey, parSecret, dns.RcodeRefused, "cannot be a cut"},
		{"apex", change(func(r *registration.Registration) { r.Cuts = []string{"gslb.example.org."} }),
			parKey, parSecret, dns.RcodeRefused, "the zone itself"},
		{"server's name", change(func(r *registration.Registration) { r.Cuts = []string{"x.b1.gslb.example.org."} }),
			parKey, parSecret, dns.RcodeRefused, "the name of a server"},
		{"given up", change(func(r *registration.Registration) { r.FormerCuts = []string{"x.gslb.example.org."} }),
			parKey, parSecret, dns.RcodeRefused, "may not serve x.gslb.example.org."},
		{"older", change(func(r *registration.Registration) { r.Serial -= 5000 }), parKey, parSecret, dns.RcodeRefused, "is older than"},
		{"ahead", change(func(r *registration.Registration) { r.Serial += 310_000 }), parKey, parSecret, dns.RcodeRefused, "ahead of the clock"},
		{"malformed", func() *dns.Msg {
			m := ok.Copy()
			m.Ns = append(m.Ns, &dns.ANY{Hdr: dns.RR_Header{Name: "par1.lb.gslb.example.org.", Rrtype: dns.TypeANY, Class: dns.ClassCHAOS}})
			return m
		}(), parKey, parSecret, dns.RcodeFormatError, "class"},
		{"outside the zone", func() *dns.Msg {
			m := ok.Copy()
			m.Ns = append(m.Ns, &dns.NS{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "par1.lb.gslb.example.org."})
			return m
		}(), parKey, parSecret, dns.RcodeNotZone, "not in the zone"},
		{"name below the zone as zone", func() *dns.Msg {
			m := ok.Copy()
			m.Question[0].Name = "svc.gslb.example.org."
			return m
		}(), parKey, parSecret, dns.RcodeNotAuth, "this server has the zone gslb.example.org., not svc."},
		{"zone type", func() *dns.Msg {
			m := ok.Copy()
			m.Question[0].Qtype = dns.TypeA
			return m
		}(), parKey, parSecret, dns.RcodeFormatError, "zone section"},
	} {
		r := send(t, port, tc.m, tc.key, tc.secret)
		if r.Rcode != tc.rcode {
			t.Errorf("%s: Expected %s, got %s", tc.name, dns.RcodeToString[tc.rcode], dns.RcodeToString[r.Rcode])
		}
		if opt := r.IsEdns0(); tc.text != "" && (opt == nil || !strings.Contains(opt.String(), tc.text)) {
			t.Errorf("%s: Expected an extended error with %q, got %v", tc.name, tc.text, opt)
		}
		if got := referral(t, port); got != "par1" {
			t.Fatalf("%s: Expected the registration to stay, got %s", tc.name, got)
		}
	}

	if got := query(t, port, "tcp", "par1.lb.gslb.example.org.", dns.TypeAPL).Answer; len(got) != 1 || !strings.HasSuffix(got[0].String(), "1:127.0.0.0/8 !1:198.51.100.128/25 1:198.51.100.0/24") {
		t.Errorf("Expected the prefixes that par1 registered, got %v", got)
	}

	// Registrations outlive a reload, and one that fails.
	if err := s.restart("prefix 127.0.0.0/8 nobody"); err == nil {
		t.Fatal("Expected a restart with an unknown node to fail")
	}
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected par1 after a restart that failed, got %s", got)
	}
	if err := s.restart("prefix 127.0.0.0/8 nyc1"); err != nil {
		t.Fatalf("Expected a restart, got: %v", err)
	}
	if got := referral(t, port); got != "nyc1" {
		t.Errorf("Expected nyc1, which the operator names after the restart, got %s", got)
	}
	if n := runningInstances(); n != 1 {
		t.Errorf("Expected the previous instance to have ended, got %d", n)
	}

	nyc.Cuts = []string{"svc.gslb.example.org."}
	w := nyc.Withdrawal()
	r = send(t, port, w, nycKey, nycSecret)
	if granted, ok := registration.GrantedLease(r); r.Rcode != dns.RcodeSuccess || !ok || granted != 0 {
		t.Fatalf("Expected a withdrawal with a lease of 0, got %v", r)
	}
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected par1 after nyc1 withdrew, got %s", got)
	}
	par.Serial += 2000
	if r := send(t, port, par.Withdrawal(), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected a withdrawal, got %v", r)
	}
	if got := referral(t, port); got != "NXDOMAIN" {
		t.Errorf("Expected NXDOMAIN after all withdrew, got %s", got)
	}
}

// Registrations outlive a restart of the process, after reloads with the same
// store and reloads that fail.
func TestStoreOverRestarts(t *testing.T) {
	lines := "store db " + filepath.Join(t.TempDir(), "map.db")
	t.Run("first", func(t *testing.T) {
		s, port := serve(t, lines)
		if r := send(t, port, sent(t, nodeAt("par1", "192.0.2.53", "127.0.0.0/8")), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected par1 to register, got %v", r)
		}
		for range 3 {
			if err := s.restart(lines); err != nil {
				t.Fatalf("Expected a restart, got: %v", err)
			}
			if err := s.restart(lines + "\nprefix 127.0.0.0/8 nobody"); err == nil {
				t.Fatal("Expected a restart with an unknown node to fail")
			}
		}
		if r := send(t, port, sent(t, nodeAt("nyc1", "192.0.2.54")), nycKey, nycSecret); r.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected nyc1 to register, got %v", r)
		}
	})
	_, port := serve(t, lines)
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected par1 after a restart, got %s", got)
	}
}

// nodeServer answers like a node at 127.0.0.3, authoritative for svc, until stop.
func nodeServer(t *testing.T, port int) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	s := &dns.Server{
		Addr: fmt.Sprintf("127.0.0.3:%d", port), Net: "udp", NotifyStartedFunc: func() { close(ready) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(r)
			m.Authoritative = r.Question[0].Name == "svc.gslb.example.org." && r.Question[0].Qtype == dns.TypeSOA
			_ = w.WriteMsg(m)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe() }()
	select {
	case <-ready:
	case err := <-done:
		t.Skipf("127.0.0.3 is not an address of this machine: %v", err)
	}
	return func() { _ = s.Shutdown(); <-done }
}

// A node is probed over the network, on the port of the server block.
func TestProbes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a node is dead")
	}
	s, port := serve(t, "}\nlatencyprobe {\ninterval 1s\ntimeout 500ms")
	stop := nodeServer(t, port)
	if r := send(t, port, sent(t, nodeAt("par1", "127.0.0.3", "127.0.0.0/8")), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected par1 to register, got %v", r)
	}
	if r := send(t, port, sent(t, nodeAt("nyc1", "127.0.0.1")), nycKey, nycSecret); r.Rcode != dns.RcodeSuccess {
		t.Fatalf("Expected nyc1 to register, got %v", r)
	}
	// nyc1 is this server itself, which has no authority at the cut.
	waitDead(t, 1)
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected par1, got %s", got)
	}
	stop()
	waitDead(t, 2)
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected par1 as the last known one in the map, got %s", got)
	}
	if err := s.restart("}\nlatencyprobe {\ninterval 1s\ntimeout 500ms"); err != nil {
		t.Fatal(err)
	}
	if n := deadNodes(); n != 2 {
		t.Errorf("Expected the health of nodes to outlive a reload, got %v dead", n)
	}
	stop = nodeServer(t, port)
	defer stop()
	waitDead(t, 1)
}

// waitDead waits until so many nodes are dead.
func waitDead(t *testing.T, want float64) {
	t.Helper()
	for end := time.Now().Add(patience); deadNodes() != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("Expected %v dead nodes, got %v", want, deadNodes())
		}
	}
}

func deadNodes() float64 {
	return gaugeValues(nodeCount, zones.Values()...)[string(nodeDead)]
}

// nsupdate runs a script and returns what it printed; "" is success.
func nsupdate(t *testing.T, port int, key, secret, script string) string {
	t.Helper()
	path, err := exec.LookPath("nsupdate")
	if err != nil {
		t.Skip("nsupdate is not installed (bind9-dnsutils)")
	}
	cmd := exec.Command(path)
	if key != "" {
		if !strings.Contains(key, ":") {
			key = "hmac-sha256:" + key
		}
		cmd.Args = append(cmd.Args, "-y", key+":"+secret)
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf("server 127.0.0.1 %d\n%s\nsend\n", port, script))
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

func dig(t *testing.T, port int, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed (bind9-dnsutils)")
	}
	out, err := exec.Command(path, append([]string{"@127.0.0.1", "-p", fmt.Sprint(port), "+norecurse"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("Expected dig to succeed, got: %v, %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestNsupdate(t *testing.T) {
	_, port := serve(t, "")
	const (
		register = `
zone gslb.example.org
update delete par1.lb.gslb.example.org
update add par1.lb.gslb.example.org 0 A 192.0.2.53
update add par1.lb.gslb.example.org 0 AAAA 2001:db8::53
update add par1.lb.gslb.example.org 0 APL 1:127.0.0.0/8 !1:198.51.100.128/25 2:2001:db8:1::/48
update add svc.gslb.example.org 0 NS par1.lb.gslb.example.org`
		address = "update add par1.lb.gslb.example.org 0 A 192.0.2.53\n"
	)
	run := func(name, key, secret, script, want string) {
		t.Helper()
		if got := nsupdate(t, port, key, secret, script); got != want && (want == "" || !strings.HasSuffix(got, want)) {
			t.Errorf("%s: Expected %q, got %q", name, want, got)
		}
	}
	run("unsigned", "", "", register, "update failed: REFUSED")
	run("wrong secret", "par1.key", nycSecret, register, "update failed: NOTAUTH(BADSIG)")
	run("wrong key", "nyc1.key", nycSecret, register, "update failed: REFUSED")
	prereq := func(line, want string) {
		t.Helper()
		run(line, "par1.key", parSecret, "prereq "+line+register, want)
	}
	prereq("yxdomain par1.lb.gslb.example.org", "update failed: NXDOMAIN")
	prereq("yxrrset svc.gslb.example.org NS", "update failed: NXRRSET")
	prereq("yxrrset b1.gslb.example.org A 127.0.0.2", "update failed: NXRRSET")
	prereq("nxdomain lb.gslb.example.org", "")
	prereq("nxdomain par1.lb.gslb.example.org", "update failed: YXDOMAIN")
	prereq("nxdomain svc.gslb.example.org", "update failed: YXDOMAIN")
	prereq("nxrrset par1.lb.gslb.example.org A", "update failed: YXRRSET")
	prereq("nxrrset par1.lb.gslb.example.org LOC", "")
	prereq("yxrrset par1.lb.gslb.example.org A 192.0.2.53", "")
	prereq("yxrrset par1.lb.gslb.example.org A 192.0.2.53\nprereq yxrrset par1.lb.gslb.example.org A 192.0.2.54", "update failed: NXRRSET")
	prereq("yxrrset svc.gslb.example.org NS par1.lb.gslb.example.org.", "")
	prereq("yxrrset par1.lb.gslb.example.org APL 1:127.0.0.0/8 !1:198.51.100.128/25 2:2001:db8:1::/48", "")
	prereq("yxdomain example.org", "update failed: NOTZONE")
	run("register", "par1.key", parSecret, register, "")
	if got := referral(t, port); got != "par1" {
		t.Fatalf("Expected par1, got %s", got)
	}
	if got := dig(t, port, "+short", "par1.lb.gslb.example.org", "APL"); got != "1:127.0.0.0/8 !1:198.51.100.128/25 2:2001:db8:1::/48" {
		t.Errorf("Expected the prefixes, got %s", got)
	}
	if got := dig(t, port, "www.svc.gslb.example.org"); !strings.Contains(got, "AUTHORITY: 1, ADDITIONAL: 3") || !strings.Contains(got, "flags: qr; QUERY") {
		t.Errorf("Expected a referral without AA, got %s", got)
	}
	run("foreign name", "par1.key", parSecret, address+"update add www.gslb.example.org 0 A 192.0.2.53", "update failed: REFUSED")
	run("shared set", "par1.key", parSecret, address+"update delete svc.gslb.example.org NS", "update failed: REFUSED")
	run("foreign target", "par1.key", parSecret, address+"update delete svc.gslb.example.org NS nyc1.lb.gslb.example.org", "update failed: REFUSED")
	if got := dig(t, port, "+short", "par1.lb.gslb.example.org", "AAAA"); got != "2001:db8::53" {
		t.Errorf("Expected the registration to stay, got %s", got)
	}

	run("without deletion", "par1.key", parSecret, address+"update add svc.gslb.example.org 0 NS par1.lb.gslb.example.org\nupdate add par1.lb.gslb.example.org 0 APL 1:127.0.0.0/16", "")
	if got := dig(t, port, "+short", "par1.lb.gslb.example.org", "AAAA"); got != "" {
		t.Errorf("Expected one update to be the whole state, got %s", got)
	}
	if got := dig(t, port, "+short", "par1.lb.gslb.example.org", "APL"); got != "1:127.0.0.0/16" {
		t.Errorf("Expected one update to be the whole state, got %s", got)
	}

	var long strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&long, " 1:10.%d.%d.0/24", i/256, i%256)
	}
	run("long", "par1.key", parSecret, register+"\nupdate add par1.lb.gslb.example.org 0 APL"+long.String(), "")
	if got := strings.Fields(dig(t, port, "+short", "+tcp", "par1.lb.gslb.example.org", "APL")); len(got) != 5003 {
		t.Errorf("Expected 5003 prefixes, got %d", len(got))
	}

	run("give up", "par1.key", parSecret, address+"update delete svc.gslb.example.org NS par1.lb.gslb.example.org", "")
	if got := referral(t, port); got == "par1" {
		t.Errorf("Expected par1 to have given up svc, got %s", got)
	}
	run("register again", "par1.key", parSecret, register, "")
	run("withdraw", "par1.key", parSecret, "update delete par1.lb.gslb.example.org", "")
	if got := referral(t, port); got != "SERVFAIL" { // nyc1 has not registered yet
		t.Errorf("Expected SERVFAIL, got %s", got)
	}
	for _, algorithm := range []string{"hmac-sha1", "hmac-sha224", "hmac-sha384", "hmac-sha512"} {
		run(algorithm, algorithm+":par1.key", parSecret, register, "")
	}
}

// When an instance fails to start, the previous one still stores registrations.
func TestFailedRestart(t *testing.T) {
	store := "store db " + filepath.Join(t.TempDir(), "map.db")
	t.Run("first", func(t *testing.T) {
		s, port := serve(t, store)
		next := corefileInput(port, "").Body()
		next = fmt.Appendf(next, "example.net:%d {\n\tbind 203.0.113.1\n\tcache\n}\n", port) // not an address of this machine
		_, err := s.instance.Restart(caddy.CaddyfileInput{Contents: next, Filepath: "Corefile", ServerTypeName: "dns"})
		if err == nil {
			t.Fatal("Expected the restart to fail")
		}
		if n := runningInstances(); n != 1 {
			t.Errorf("Expected one instance to run, got %d", n)
		}
		if r := send(t, port, sent(t, nodeAt("par1", "192.0.2.53", "127.0.0.0/8")), parKey, parSecret); r.Rcode != dns.RcodeSuccess {
			t.Fatalf("Expected par1 to register, got %v", r)
		}
	})
	_, port := serve(t, store)
	if got := referral(t, port); got != "par1" {
		t.Errorf("Expected registrations to be stored after the restart that failed, got %s", got)
	}
}
