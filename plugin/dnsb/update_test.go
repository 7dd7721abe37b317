package dnsb

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// logged collects what is logged until the test ends.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func logs(t *testing.T) *logged {
	t.Helper()
	l := new(logged)
	clog.SetOutput(l)
	t.Cleanup(func() { clog.SetOutput(io.Discard) })
	return l
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// take returns the lines since the last time.
func (l *logged) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

// One line for what is new about a node, none for a refresh, and one for a
// refusal that says what was wrong, however often it comes.
func TestLogs(t *testing.T) {
	l := logs(t)
	_, port := serve(t, "")
	l.take()
	par := nodeAt("par1", "192.0.2.53", "127.0.0.0/8")
	far := nodeAt("par1", "192.0.2.53", "127.0.0.0/8", "203.0.113.0/24")
	two := nodeAt("par1", "192.0.2.53", "127.0.0.0/8", "10.0.0.0/8")
	message := func(r *registration.Registration) func() *dns.Msg { return func() *dns.Msg { return sent(t, r) } }
	for _, step := range []struct {
		name string
		m    func() *dns.Msg
		want string // part of the only line; "" none
	}{
		{"new", message(par), "Node par1 registered by par1.key.: 1 addresses, 1 prefixes, serves svc.gslb.example.org., lease 30m0s"},
		{"refresh", message(par), ""},
		{"outside", message(far), "Registration of node par1 by par1.key. refused, what it had stays: node par1 may not claim the prefix 203.0.113.0/24"},
		{"outside again", message(far), ""},
		{"change", message(two), "Node par1 registered by par1.key.: 1 addresses, 2 prefixes"},
		{"withdrawal", par.Withdrawal, "Node par1 withdrew"},
	} {
		send(t, port, step.m(), parKey, parSecret)
		lines := l.take()
		switch {
		case step.want == "" && len(lines) > 0:
			t.Errorf("%s: Expected nothing in the log, got %q", step.name, lines)
		case step.want != "" && (len(lines) != 1 || !strings.Contains(lines[0], step.want)):
			t.Errorf("%s: Expected one line with %q, got %q", step.name, step.want, lines)
		}
	}
	send(t, port, sent(t, par), "", "")
	if lines := l.take(); len(lines) > 0 {
		t.Errorf("Expected nothing about strangers in the log, got %q", lines)
	}
}

func TestLogsOfHealth(t *testing.T) {
	const par, nyc = "192.0.2.1", "192.0.2.2"
	l := logs(t)
	p := newFakeProber()
	d := started(t, "accept k1 par1 any\naccept k1 nyc1 any", func() prober { return p })
	registers(t, d, nodeAt("par1", par))
	registers(t, d, nodeAt("nyc1", nyc))
	l.take()
	for _, step := range []struct {
		addr string
		say  answer
		want []string
	}{
		{par, answersYes, nil},
		{par, answersNo, []string{"Node par1 does not answer and is left out: timeout"}},
		{par, answersNo, nil},
		{nyc, answersNo, []string{"Node nyc1 does not answer and is left out: timeout", "No node of svc.gslb.example.org. answers: resolvers are referred to the last ones known"}},
		{nyc, answersNo, nil},
		{par, answersYes, []string{"Node par1 is back"}},
		{par, answersNo, []string{"Node par1", "No node of svc.gslb.example.org."}},
	} {
		p.say(step.addr, step.say)
		d.refresh()
		lines := l.take()
		same := len(lines) == len(step.want)
		for i := range lines {
			same = same && strings.Contains(lines[i], step.want[i])
		}
		if !same {
			t.Errorf("Expected %q, got %q", step.want, lines)
		}
	}
}
