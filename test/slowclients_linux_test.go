package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/testcert"
)

const (
	fewDescriptors = 100
	slowClients    = 8
	slowConns      = 300 // of all slow clients
	zoneRecords    = 5000
)

// patience is longer than anything takes on a slow machine.
const patience = 30 * time.Second

// dialFrom opens a connection from an address of loopback.
func dialFrom(from, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	return d.Dial("tcp", to)
}

// flood keeps slow connections open until stop is closed, each beginning a
// message that never ends. One that is closed is opened again.
func flood(to string, stop <-chan struct{}) (done *sync.WaitGroup) {
	done = new(sync.WaitGroup)
	for i := range slowConns {
		done.Go(func() {
			for {
				c, err := dialFrom(fmt.Sprintf("127.0.3.%d", i%slowClients+1), to)
				if err == nil {
					closed := make(chan struct{})
					go func() {
						_, _ = io.Copy(io.Discard, c)
						close(closed)
					}()
					_, _ = c.Write([]byte{0xff, 0xff, 0})
					select {
					case <-closed:
					case <-stop:
					}
					c.Close()
				}
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	return done
}

// politeClient asks over one connection all the time.
type politeClient struct {
	asked atomic.Int64
	err   error // why the connection ended early
	done  chan struct{}
}

func startPoliteClient(t *testing.T, to, name string, stop <-chan struct{}) *politeClient {
	t.Helper()
	dial := func() *dns.Conn {
		c, err := dialFrom("127.0.2.1", to)
		if err != nil {
			t.Error(err)
			return nil
		}
		return &dns.Conn{Conn: c}
	}
	p := &politeClient{done: make(chan struct{})}
	conn := dial()
	ask := func() error {
		_ = conn.SetDeadline(time.Now().Add(patience))
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypeA)); err != nil {
			return err
		}
		_, err := conn.ReadMsg()
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	last := time.Now()
	go func() {
		defer close(p.done)
		for {
			select {
			case <-stop:
				conn.Close()
				return
			case <-time.After(20 * time.Millisecond):
			}
			err := ask()
			switch idle := time.Since(last) > 500*time.Millisecond; {
			case err == nil:
				p.asked.Add(1)
			case idle: // this machine did not let the client ask
				if conn = dial(); conn == nil {
					return
				}
			default:
				p.err = err
				return
			}
			last = time.Now()
		}
	}()
	return p
}

// TestSlowClients opens many slow connections to a program that may open few
// files. Everybody else is to notice nothing.
func TestSlowClients(t *testing.T) {
	dir := t.TempDir()
	var zone strings.Builder
	zone.WriteString("$ORIGIN example.net.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.53\n")
	for i := range zoneRecords {
		fmt.Fprintf(&zone, "host%d A 192.0.2.1\n", i)
	}
	if err := os.WriteFile(filepath.Join(dir, "zone"), []byte(zone.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: patience}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = web.Serve(l) }()
	defer web.Close()

	port, metrics := freePort(t), freePort(t)
	corefile := filepath.Join(dir, "Corefile")
	text := fmt.Sprintf(`www.example.org:%[1]s {
    bind 127.0.0.1
    prometheus 127.0.0.1:%[2]s
    latencyprobe {
        rtt http://www.example.org:%[3]d/ expect 404
        health tcp %[3]d
        interval 1s
    }
    dnslb {
        server fra 127.0.0.1
        service www.example.org fra
    }
}
example.net:%[1]s {
    bind 127.0.0.1
    root %[4]s
    file zone
    transfer {
        to *
    }
}
`, port, metrics, l.Addr().(*net.TCPAddr).Port, dir)
	if err := os.WriteFile(corefile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startCommand(t, exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" -conf "$1"`, fewDescriptors), binary, corefile))
	address := net.JoinHostPort("127.0.0.1", port)
	samples := func() map[string]float64 { return scrape(t, "http://127.0.0.1:"+metrics+"/metrics") }
	probes := func() float64 {
		return samples()[`coredns_latencyprobe_samples_total{address="127.0.0.1",name="fra",probe="",source=""}`]
	}
	wait(t, patience, "a probe", func() bool { return probes() > 0 })

	stop := make(chan struct{})
	polite := startPoliteClient(t, address, "www.example.org.", stop)
	slow := flood(address, stop)
	s.waitFor("Closed ", patience)
	s.waitFor("Refusing new connections over TCP for a moment", patience)

	before, asked := probes(), polite.asked.Load()
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: patience}
		for range 20 {
			r, _, err := client.Exchange(new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA), address)
			if err != nil || len(r.Answer) != 1 {
				t.Errorf("Expected an answer over %s, got %v, %v", network, r, err)
			}
		}
	}
	for range 5 {
		n := 0
		transfer := dns.Transfer{DialTimeout: patience, ReadTimeout: patience}
		envelopes, err := transfer.In(new(dns.Msg).SetAxfr("example.net."), address)
		if err != nil {
			t.Fatal(err)
		}
		for e := range envelopes {
			err = errors.Join(err, e.Error)
			n += len(e.RR)
		}
		if want := zoneRecords + 4; err != nil || n != want {
			t.Errorf("Expected a transfer of %d records, got %d, %v", want, n, err)
		}
	}
	wait(t, 2*patience, "probes to go on", func() bool { return probes() >= before+3 })
	wait(t, patience, "a polite client to go on asking", func() bool {
		return polite.asked.Load() >= asked+20 || polite.err != nil
	})

	found := samples()
	if found[`coredns_tcplimit_closed_total{reason="client"}`] == 0 {
		t.Error("Expected connections of slow clients to be counted as closed")
	}
	for _, method := range []string{"http", "tcp"} {
		for _, reason := range []string{"refused", "unreachable", "answer", "other"} {
			if n := found[fmt.Sprintf("coredns_latencyprobe_failures_total{method=%q,reason=%q}", method, reason)]; n != 0 {
				t.Errorf("Expected no %s probe to fail, got %v by %s", method, n, reason)
			}
		}
	}
	close(stop)
	slow.Wait()
	<-polite.done
	if polite.err != nil {
		t.Errorf("Expected the connection of a polite client to stay, got %v", polite.err)
	}
}

// TestSlowClientsThatStay checks that descriptors are free, and so no accept
// loop spins, while slow clients are there that do not come again, by TCP and by
// TLS, also after a reload.
func TestSlowClientsThatStay(t *testing.T) {
	for _, protocol := range []string{"dns", "tls"} {
		t.Run(protocol, func(t *testing.T) {
			port := freePort(t)
			corefile := filepath.Join(t.TempDir(), "Corefile")
			cert, key, pool := testcert.Loopback(t)
			client := dns.Client{Net: "tcp", Timeout: patience}
			lines := ""
			if protocol == "tls" {
				client.Net, client.TLSConfig = "tcp-tls", &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
				lines = "tls " + cert + " " + key
			}
			text := fmt.Sprintf(`%s://example.org:%s {
    bind 127.0.0.1
    timeouts {
        read 1h
    }
    %s
    dnsb {
        ns b1.example.org 192.0.2.53
        node par1 192.0.2.54
        cut svc.example.org par1
        default par1
    }
}
`, protocol, port, lines)
			if err := os.WriteFile(corefile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := startCommand(t, exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" -conf "$1"`, fewDescriptors), binary, corefile))
			address := net.JoinHostPort("127.0.0.1", port)
			descriptors := func() int {
				entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
				if err != nil {
					t.Fatal(err)
				}
				return len(entries)
			}
			for _, step := range []string{"start", "reload"} {
				for i := range slowConns {
					c, err := dialFrom(fmt.Sprintf("127.0.3.%d", i%slowClients+1), address)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
				s.waitFor("Closed ", patience)
				wait(t, patience, "free descriptors", func() bool { return descriptors() < fewDescriptors*3/4 })
				if n := descriptors(); n < fewDescriptors/4 {
					t.Errorf("%s: Expected slow clients within the limits to stay, got %d descriptors", step, n)
				}
				if _, _, err := client.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeSOA), address); err != nil {
					t.Errorf("%s: %v", step, err)
				}
				if step == "start" {
					if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
						t.Fatal(err)
					}
					s.waitFor("Reloading complete", patience)
				}
			}
		})
	}
}
