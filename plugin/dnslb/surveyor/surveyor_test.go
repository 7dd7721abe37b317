package surveyor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

func init() { clog.Discard() }

const zone = "gslb.example.org."

var target = netip.MustParseAddr("192.0.2.7")

// script is what each probe of a method returns, the last one again and again. It
// notes the probes.
type script struct {
	results map[surveymsg.Method][]any // time.Duration or error

	mu    sync.Mutex
	sent  []surveymsg.Method
	ports []uint16
	times []time.Time
}

func (s *script) probe(_ context.Context, method surveymsg.Method, _ string, port uint16, _, _ netip.Addr) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.ports, s.times = append(s.sent, method), append(s.ports, port), append(s.times, time.Now())
	all := s.results[method]
	if len(all) == 0 {
		return 0, context.DeadlineExceeded
	}
	result := all[0]
	if len(all) > 1 {
		s.results[method] = all[1:]
	}
	if err, failed := result.(error); failed {
		return 0, err
	}
	return result.(time.Duration), nil
}

func TestMeasure(t *testing.T) {
	const ms = time.Millisecond
	permission := os.NewSyscallError("socket", syscall.EPERM)
	noRoute := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	files := os.NewSyscallError("socket", syscall.EMFILE)
	for _, tc := range []struct {
		name    string
		target  surveymsg.Target
		results map[surveymsg.Method][]any
		want    *surveymsg.Result // nil: none
		sent    []surveymsg.Method
	}{
		{
			"the lowest of three", surveymsg.Target{}, map[surveymsg.Method][]any{surveymsg.ICMP: {9 * ms, 7 * ms, 8 * ms}},
			&surveymsg.Result{RTT: 7, Method: surveymsg.ICMP}, []surveymsg.Method{surveymsg.ICMP, surveymsg.ICMP, surveymsg.ICMP},
		},
		{
			"the first method that is answered", surveymsg.Target{}, map[surveymsg.Method][]any{surveymsg.DNS: {9 * ms, context.DeadlineExceeded, 10 * ms}},
			&surveymsg.Result{RTT: 9, Method: surveymsg.DNS}, []surveymsg.Method{surveymsg.ICMP, surveymsg.DNS, surveymsg.DNS, surveymsg.DNS},
		},
		{
			"the method that others know first", surveymsg.Target{Method: surveymsg.TCP}, map[surveymsg.Method][]any{surveymsg.ICMP: {9 * ms}},
			&surveymsg.Result{RTT: 9, Method: surveymsg.ICMP}, []surveymsg.Method{surveymsg.TCP, surveymsg.ICMP, surveymsg.ICMP, surveymsg.ICMP},
		},
		{
			"a time that cannot be told", surveymsg.Target{}, map[surveymsg.Method][]any{surveymsg.ICMP: {time.Duration(0)}, surveymsg.DNS: {4 * ms}},
			&surveymsg.Result{RTT: 4, Method: surveymsg.DNS}, []surveymsg.Method{surveymsg.ICMP, surveymsg.DNS, surveymsg.DNS, surveymsg.DNS},
		},
		{"silence", surveymsg.Target{}, nil, &surveymsg.Result{Outcome: surveymsg.Silent}, []surveymsg.Method{surveymsg.ICMP, surveymsg.DNS, surveymsg.TCP}},
		{
			"silence without permission for ICMP", surveymsg.Target{}, map[surveymsg.Method][]any{surveymsg.ICMP: {permission}},
			&surveymsg.Result{Outcome: surveymsg.Silent}, []surveymsg.Method{surveymsg.ICMP, surveymsg.DNS, surveymsg.TCP},
		},
		{
			"no route", surveymsg.Target{}, map[surveymsg.Method][]any{surveymsg.ICMP: {noRoute}, surveymsg.DNS: {noRoute}, surveymsg.TCP: {noRoute}},
			&surveymsg.Result{Outcome: surveymsg.Declined}, []surveymsg.Method{surveymsg.ICMP, surveymsg.DNS, surveymsg.TCP},
		},
		{
			"a failure of this machine", surveymsg.Target{}, map[surveymsg.Method][]any{surveymsg.ICMP: {files}, surveymsg.DNS: {files}, surveymsg.TCP: {files}},
			nil, []surveymsg.Method{surveymsg.ICMP, surveymsg.DNS, surveymsg.TCP},
		},
		{"an address to avoid", surveymsg.Target{Address: netip.MustParseAddr("198.51.100.7")}, nil, &surveymsg.Result{Outcome: surveymsg.Declined}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				probes := &script{results: tc.results}
				s := New(func() string { return zone })
				s.probe, s.limiter = probes.probe, rate.NewLimiter(100, 1)
				settings := Settings{Node: "par1", Options: surveymsg.Options{Avoid: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}}
				if tc.target.Every = 3 * time.Second; !tc.target.Address.IsValid() {
					tc.target.Address = target
				}
				got := s.measure(t.Context(), settings, zone, []surveymsg.Target{tc.target})
				var want []surveymsg.Result
				if tc.want != nil {
					tc.want.Address = tc.target.Address
					want = append(want, *tc.want)
				}
				if !slices.Equal(got, want) || !slices.Equal(probes.sent, tc.sent) {
					t.Errorf("Expected %+v by %v, got %+v by %v", want, tc.sent, got, probes.sent)
				}
				for i := 1; i < len(probes.times); i++ {
					if pause := probes.times[i].Sub(probes.times[i-1]); pause < tc.target.Every {
						t.Errorf("Expected %s between packets, got %s", tc.target.Every, pause)
					}
				}
			})
		})
	}
}

// TestMeasuresByDNSAlone has an address that answers ICMP sooner.
func TestMeasuresByDNSAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probes := &script{results: map[surveymsg.Method][]any{surveymsg.ICMP: {time.Millisecond}, surveymsg.DNS: {9 * time.Millisecond}}}
		s := New(func() string { return zone })
		s.probe, s.limiter = probes.probe, rate.NewLimiter(100, 1)
		settings := Settings{Node: "par1", Options: surveymsg.Options{DNSPort: 1053}}
		got := s.measure(t.Context(), settings, zone, []surveymsg.Target{{Address: target, Every: time.Second, Method: surveymsg.ICMP}})
		if want := []surveymsg.Result{{Address: target, RTT: 9, Method: surveymsg.DNS}}; !slices.Equal(got, want) {
			t.Errorf("Expected %+v, got %+v", want, got)
		}
		if !slices.Equal(probes.ports, []uint16{1053, 1053, 1053}) {
			t.Errorf("Expected three queries to port 1053, got ports %v", probes.ports)
		}
	})
}

func TestBudgetOfNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probes := new(script)
		s := New(func() string { return zone })
		s.probe, s.limiter = probes.probe, rate.NewLimiter(5, 1)
		var targets []surveymsg.Target
		for i := range 20 {
			targets = append(targets, surveymsg.Target{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Every: time.Second})
		}
		begin := time.Now()
		if got := s.measure(t.Context(), Settings{Node: "par1"}, zone, targets); len(got) != 20 {
			t.Errorf("Expected 20 results, got %d", len(got))
		}
		if took, sent := time.Since(begin), len(probes.sent); sent != 60 || took < 59*time.Second/5 {
			t.Errorf("Expected 60 packets at 5 a second, got %d in %s", sent, took)
		}
	})
}

// TestMeasuresForDNSB has a DNS-B that gives work once, and refuses the first report.
func TestMeasuresForDNSB(t *testing.T) {
	key := dnsclient.Key{Name: "par1.key.", Algorithm: dns.HmacSHA256, Secret: "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="}
	var (
		mu      sync.Mutex
		reports []*dns.Msg
		asked   int
	)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{
		Listener: listener, TsigSecret: map[string]string{key.Name: key.Secret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			mu.Lock()
			defer mu.Unlock()
			m := new(dns.Msg).SetReply(r)
			switch {
			case r.IsTsig() == nil || w.TsigStatus() != nil:
				m.Rcode = dns.RcodeRefused
			case r.Opcode == dns.OpcodeUpdate:
				if reports = append(reports, r); len(reports) == 1 {
					m.Rcode = dns.RcodeRefused
				}
			case r.Question[0].Name == "par1._survey.gslb.example.org." && r.Question[0].Qtype == dns.TypeTXT:
				asked++
				work := surveymsg.Work{Next: time.Second}
				if len(reports) < 2 {
					work.Targets = []surveymsg.Target{{Address: target, Every: time.Second}}
				}
				m.Answer = work.Records(r.Question[0].Name)
			}
			m.SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
			_ = w.WriteMsg(m)
		}),
	}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })

	s := New(func() string { return zone })
	s.probe = (&script{results: map[surveymsg.Method][]any{surveymsg.ICMP: {5 * time.Millisecond}}}).probe
	dnsb := dnsclient.Endpoint(listener.Addr().String())
	s.Configure(Settings{Node: "par1", DNSBs: []dnsclient.Endpoint{dnsb}, Key: key, Options: surveymsg.Options{Budget: 100}})
	defer s.Close()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		mu.Lock()
		n, last := len(reports), asked
		mu.Unlock()
		if state := s.States(); n == 2 && last > 2 && state[0].Measured == 1 && state[0].Error == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("Expected two reports and more questions, got %d reports, %d questions, %+v", n, last, s.States())
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, r := range reports {
		results, err := surveymsg.ParseReport(r)
		if want := []surveymsg.Result{{Address: target, RTT: 5, Method: surveymsg.ICMP}}; err != nil || !reflect.DeepEqual(results, want) {
			t.Errorf("Expected %+v, got %+v, %v", want, results, err)
		}
	}
	s.Configure(Settings{})
	if states := s.States(); len(states) != 0 {
		t.Errorf("Expected no part in the survey any more, got %+v", states)
	}
}

// A report that DNS-B does not answer, or is too busy for, is sent again without
// another measurement; one that it refuses is not.
func TestReportIsRepeated(t *testing.T) {
	key := dnsclient.Key{Name: "par1.key.", Algorithm: dns.HmacSHA256, Secret: "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	results := []surveymsg.Result{{Address: target, RTT: 5, Method: surveymsg.ICMP}}
	rcode := make(chan int, 1) // of the next reply; below 0: none
	server := &dns.Server{
		Listener: listener, TsigSecret: map[string]string{key.Name: key.Secret},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetReply(r)
			if r.Opcode == dns.OpcodeUpdate {
				if m.Rcode = <-rcode; m.Rcode < 0 {
					_ = w.Close()
					return
				}
			} else {
				m.Answer = surveymsg.Work{Next: time.Second}.Records(r.Question[0].Name)
			}
			m.SetTsig(key.Name, key.Algorithm, 300, time.Now().Unix())
			_ = w.WriteMsg(m)
		}),
	}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	s := New(func() string { return zone })
	defer s.Close()
	dnsb := dnsclient.Endpoint(listener.Addr().String())
	for _, tc := range []struct {
		name  string
		rcode int
		again bool
	}{
		{"no answer", -1, true},
		{"too many messages", dns.RcodeServerFailure, true},
		{"refused", dns.RcodeRefused, false},
		{"no survey", dns.RcodeNameError, false},
		{"taken", dns.RcodeSuccess, false},
	} {
		rcode <- tc.rcode
		_, left, err := s.once(t.Context(), Settings{Node: "par1", Key: key}, dnsb, zone, results)
		if again := slices.Equal(left, results); again != tc.again || !again && left != nil || (err == nil) != (tc.rcode == dns.RcodeSuccess) {
			t.Errorf("%s: Expected the results to be sent again: %t, got %v, %v", tc.name, tc.again, left, err)
		}
		if errors.Is(err, errNoSurvey) != (tc.rcode == dns.RcodeNameError) {
			t.Errorf("%s: Expected the remedy if the server has no survey, got %v", tc.name, err)
		}
	}
}

func TestFailureTellsRemedy(t *testing.T) {
	s := New(func() string { return zone })
	defer s.Close()
	dnsb := dnsclient.Endpoint(fmt.Sprintf("127.0.0.1:%d", testport.Free(t))) // where nothing listens
	settings := Settings{Node: "par1", Key: dnsclient.Key{Name: "k.", Algorithm: dns.HmacSHA256, Secret: "cGFyMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg=="}}
	_, _, err := s.once(t.Context(), settings, dnsb, zone, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "ask for work: ") || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Expected the cause, got %v", err)
	}
}
