//go:build linux

package main

import (
	"cmp"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a kind of server.
type peer struct {
	name  string
	cores string // that it may run on; "": the first one, the load has the second
	// command writes configuration files for a workload into a directory, and
	// returns the command of a server that is to listen at an address.
	command func(w *workload, dir string, at netip.AddrPort) []string
	// right returns what is in a reply; nil: as the workload says.
	right func(client, service int) []byte
	// reload has a server read its configuration again, without a break.
	reload func(*process) error
	// halt ends a server that a reload has replaced; nil: it is still the process.
	halt func(*process) error
	// disturbances are what else a server can do beside answering, by name.
	disturbances map[string]disturbance
}

// subject is a running peer.
type subject struct {
	*peer
	*process
	work  *workload
	right func(client, service int) []byte

	registrations int // so far
	overridden    int // which server of services is down: 0 or 1
}

var nextPort uint16 = 5300

// start starts peers one after another, and waits for the first right answer of each.
func start(o *options, w *workload, peers []*peer) (subjects []*subject, stop func()) {
	w.draw()
	stopProbed := answerProbes()
	for _, p := range peers {
		if !strings.HasPrefix(p.name, o.only) {
			continue
		}
		nextPort++
		dir := filepath.Join(o.dir, strconv.Itoa(int(nextPort)))
		if err := os.Mkdir(dir, 0o700); err != nil {
			log.Fatal(err)
		}
		s := &subject{peer: p, work: w, right: w.right}
		if p.right != nil {
			s.right = p.right
		}
		addr := netip.AddrPortFrom(w.listen(), nextPort)
		command := p.command(w, dir, addr)
		begin := time.Now()
		var err error
		if s.process, err = startProcess(cmp.Or(p.cores, "0"), dir, addr, command); err != nil {
			log.Fatalf("%s: %v", p.name, err)
		}
		if err := s.await(); err != nil {
			log.Fatalf("%s: %v; its log: %.2000s", p.name, err, s.log())
		}
		s.started = time.Since(begin)
		s.process.cpu, s.process.rss = s.usage()
		progress("%-36s started in %.2f s, %d MiB", s.name, s.started.Seconds(), s.process.rss>>20)
		subjects = append(subjects, s)
	}
	return subjects, func() {
		for _, s := range subjects {
			if s.halt != nil {
				_ = s.halt(s.process) // it may have ended
			}
			s.stop()
		}
		stopProbed()
	}
}

// progress prints a line of progress.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// await waits for a right answer.
func (s *subject) await() error {
	l, err := newLoad(s)
	if err != nil {
		return err
	}
	defer l.close()
	for begin := time.Now(); time.Since(begin) < 2*time.Minute; {
		if err := s.cmd.Process.Signal(syscall.Signal(0)); err != nil {
			return fmt.Errorf("it has ended: %w", err)
		}
		l.send(1)
		_ = l.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := l.packets.ReadBatch(l.in, 0); err == nil && n > 0 {
			l.check(l.in[0].Buffers[0][:l.in[0].N])
		}
		if l.replies > l.wrong {
			return nil
		}
	}
	return fmt.Errorf("no right answer: %w", l.verdict())
}

// probed is the TCP port of the servers of the services.
const probed = 5299

// answerProbes accepts connections to all servers.
func answerProbes() (stop func()) {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", probed))
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return func() { _ = l.Close() }
}

// write writes a file of a server, line by line, and returns its path.
func write(dir, name string, lines func(line func(format string, args ...any))) string {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		log.Fatal(err)
	}
	var b strings.Builder
	lines(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) })
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		log.Fatal(err)
	}
	return path
}
