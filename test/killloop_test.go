//go:build unix

package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	// kills is how often the program is killed at least; for as long as
	// CHAOS_TIME says, if it is set.
	kills = 25
	// registrants are the nodes that register all the time.
	registrants = 4
	// measured is the number of targets in the state file: enough that writing
	// it takes some milliseconds.
	measured = 200
	// withdrawEvery is the distance between two withdrawals of a node.
	withdrawEvery = 7
)

// chaosSeed returns the seed of a random test, and prints it.
func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if set := os.Getenv("CHAOS_SEED"); set != "" {
		var err error
		if seed, err = strconv.ParseUint(set, 10, 64); err != nil {
			t.Fatalf("Expected a number in CHAOS_SEED, got error: %v", err)
		}
	}
	t.Logf("Repeat with CHAOS_SEED=%d", seed)
	return seed
}

// registrant is a node that sends one registration after the other to a DNS-B.
// Its n-th registration has the n-th address of its prefix, or is a withdrawal.
type registrant struct {
	name, key, secret string
	prefix            netip.Prefix
	endpoint          string

	mu    sync.Mutex
	sent  int // number of the newest registration
	acked int // number of the newest one that was acknowledged
}

func isWithdrawal(n int) bool { return n%withdrawEvery == 0 }

// send sends the next registration. A DNS-B that is killed does not answer, and
// one that ends answers SERVFAIL; any other refusal is an error.
func (r *registrant) send() error {
	r.mu.Lock()
	r.sent++
	n := r.sent
	r.mu.Unlock()
	host := r.prefix.Addr().As4()
	host[1], host[2], host[3] = byte(n>>16), byte(n>>8), byte(n)
	m := &registration.Registration{
		Zone: "gslb.example.org.", Node: r.name, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		Cuts: []string{"svc.gslb.example.org."}, Serial: uint64(time.Now().UnixMilli()),
		Prefixes: []registration.Prefix{{Prefix: netip.PrefixFrom(netip.AddrFrom4(host), 32)}},
	}
	update := m.Withdrawal()
	if !isWithdrawal(n) {
		var err error
		if update, err = m.Message(); err != nil {
			return err
		}
	}
	update.SetTsig(r.key, dns.HmacSHA256, 300, time.Now().Unix())
	client := dns.Client{Net: "tcp", Timeout: 10 * time.Second, TsigSecret: map[string]string{r.key: r.secret}}
	reply, _, err := client.Exchange(update, r.endpoint)
	if err != nil {
		return nil //nolint:nilerr // not acknowledged
	}
	switch reply.Rcode {
	case dns.RcodeSuccess:
		r.mu.Lock()
		r.acked = n
		r.mu.Unlock()
	case dns.RcodeServerFailure:
	default:
		return fmt.Errorf("registration %d of %s: %s", n, r.name, dns.RcodeToString[reply.Rcode])
	}
	return nil
}

// lastAcked returns the number of the newest registration that was
// acknowledged.
func (r *registrant) lastAcked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

// check returns an error unless DNS-B shows the acknowledged registration, or
// one that was sent later.
func (r *registrant) check(acked int) error {
	m := new(dns.Msg).SetQuestion(r.name+".lb.gslb.example.org.", dns.TypeAPL)
	reply, _, err := (&dns.Client{Net: "tcp", Timeout: 10 * time.Second}).Exchange(m, r.endpoint)
	if err != nil {
		return err
	}
	r.mu.Lock()
	sent := r.sent
	r.mu.Unlock()
	if len(reply.Answer) == 0 {
		for n := acked; n <= sent; n++ {
			if isWithdrawal(n) { // also 0: nothing was acknowledged yet
				return nil
			}
		}
		return fmt.Errorf("lost %s (%s): registration %d was acknowledged, and no later one withdraws", r.name, dns.RcodeToString[reply.Rcode], acked)
	}
	ip := reply.Answer[0].(*dns.APL).Prefixes[0].Network.IP.To4()
	if shown := int(ip[1])<<16 | int(ip[2])<<8 | int(ip[3]); shown < acked || shown > sent {
		return fmt.Errorf("lost a registration of %s: shown is %d, acknowledged was %d, sent was %d", r.name, shown, acked, sent)
	}
	return nil
}

// TestKillLosesNothingAcknowledged kills the program again and again: at a
// random moment while nodes register, so that it writes its store all the time,
// and just after it was told to end, so that it writes its state file. After
// each start DNS-B has every registration that it acknowledged, and both files
// are readable.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	var length time.Duration
	if set := os.Getenv("CHAOS_TIME"); set != "" {
		var err error
		if length, err = time.ParseDuration(set); err != nil {
			t.Fatalf("Expected a duration in CHAOS_TIME, got error: %v", err)
		}
	}
	random := rand.New(rand.NewPCG(chaosSeed(t), 0))
	dir, port := t.TempDir(), freePort(t)
	nodes := make([]*registrant, 0, registrants)
	var secrets, accepts, servers, names strings.Builder
	for i := range registrants {
		r := &registrant{
			name: fmt.Sprintf("n%d", i), key: fmt.Sprintf("n%d.key.example.org.", i), secret: "bnljMS1leGFtcGxlLW9ubHktbWFrZS15b3VyLW93bg==",
			prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i)}), 8), endpoint: net.JoinHostPort("127.0.0.1", port),
		}
		nodes = append(nodes, r)
		fmt.Fprintf(&secrets, "secret %s %s\n", r.key, r.secret)
		fmt.Fprintf(&accepts, "accept %s %s %s for svc.gslb.example.org\n", r.key, r.name, r.prefix)
	}
	target := freePort(t)
	for i := range measured {
		addr := fmt.Sprintf("127.9.0.%d", i+1)
		l, err := net.Listen("tcp", net.JoinHostPort(addr, target)) // the kernel makes the handshakes
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		fmt.Fprintf(&servers, "server s%d %s\n", i, addr)
		fmt.Fprintf(&names, " s%d", i)
	}
	path := filepath.Join(dir, "Corefile")
	if err := os.WriteFile(path, fmt.Appendf(nil, `gslb.example.org:%[1]s {
	bind 127.0.0.1
	tsig {
		%[2]s
	}
	dnsb {
		ns b1 127.0.0.1
		%[3]s
		store db %[4]s/store
	}
}
svc.example.net:%[1]s {
	bind 127.0.0.1
	latencyprobe {
		rtt tcp %[7]s
		state %[4]s/state
	}
	dnslb {
		%[5]s
		service www.svc.example.net %[6]s
	}
}
`, port, secrets.String(), accepts.String(), dir, servers.String(), names.String(), target), 0o600); err != nil {
		t.Fatal(err)
	}

	// The first run ends by itself, and leaves a state file.
	s := start(t, "-conf", path)
	time.Sleep(6 * time.Second) // each target was probed
	s.stop()
	s = start(t, "-conf", path)

	var registering sync.WaitGroup
	stop := make(chan struct{})
	for _, r := range nodes {
		registering.Go(func() {
			for {
				if err := r.send(); err != nil {
					t.Errorf("Expected a registration to be accepted, got %v", err)
				}
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond): // serials are milliseconds
				}
			}
		})
	}
	defer registering.Wait()
	defer close(stop)

	next := filepath.Join(dir, "state.tmp")   // the state file while it is written
	begin, count, writing := time.Now(), 0, 0 // writing: kills amid the state file
	for ; count < kills || time.Since(begin) < length; count++ {
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		previous := modified(next)
		if count%2 == 1 {
			awaitWriting(s, dir)
			time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
		}
		_ = s.cmd.Process.Kill()
		<-s.done
		if at := modified(next); !at.IsZero() && !at.Equal(previous) {
			writing++
		}
		acked := make([]int, len(nodes))
		for i, r := range nodes {
			acked[i] = r.lastAcked()
		}
		s = start(t, "-conf", path)
		for i, r := range nodes {
			if err := r.check(acked[i]); err != nil {
				t.Errorf("Kill %d: Expected every acknowledged registration, got: %v", count+1, err)
			}
		}
		if want := fmt.Sprintf("Read state of %d targets", measured); !strings.Contains(s.out.String(), want) {
			t.Errorf("Kill %d: Expected %q in the log, got:\n%s", count+1, want, s.out)
		}
		if t.Failed() {
			return
		}
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*damaged*")); len(aside) > 0 {
		t.Errorf("Expected no damaged file, got %v", aside)
	}
	total := 0
	for _, r := range nodes {
		total += r.lastAcked()
	}
	if total < kills {
		t.Errorf("Expected registrations between the kills, got %d in all", total)
	}
	t.Logf("%d kills, %d of them amid writing the state file, and %d registrations", count, writing, total)
}

// awaitWriting tells the program to end, and waits until it has begun to write
// its state file, or has ended.
func awaitWriting(s *server, dir string) {
	changes := func() [2]time.Time {
		return [2]time.Time{modified(filepath.Join(dir, "state.tmp")), modified(filepath.Join(dir, "state"))}
	}
	before := changes()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	for changes() == before {
		select {
		case <-s.done:
			return
		default:
		}
	}
}

// modified returns the time of the last write to a file, or the zero Time.
func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
