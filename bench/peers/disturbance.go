//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// disturbance has a server do something while it is asked. It begins at once and does
// not wait; end waits, and returns an error if the server did not do it.
type disturbance func(*subject) (end func() error)

// disturbance returns one by its name, nil if the server can do no such thing.
func (s *subject) disturbance(name string) disturbance {
	if name == "reload" {
		return reloadTwice
	}
	return s.disturbances[name]
}

// beside runs what a disturbance does beside the load.
func beside(f func() error) (end func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() error { return <-done }
}

// patience is how long a server may take for what it has to do.
const patience = time.Minute

// awaitLogged waits until a text is in the log of a server so often.
func (s *subject) awaitLogged(text string, times int) error {
	for begin := time.Now(); s.logged(text) < times; time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > patience {
			return fmt.Errorf("it did not log %q", text)
		}
	}
	return nil
}

// reloadTwice has a server reload its configuration two times.
func reloadTwice(s *subject) (end func() error) {
	return beside(func() error {
		for range 2 {
			time.Sleep(time.Second)
			if err := s.reload(s.process); err != nil {
				return fmt.Errorf("reload: %w", err)
			}
			time.Sleep(time.Second)
		}
		return nil
	})
}

// rereadMap changes a prefix in the map.
func rereadMap(s *subject) (end func() error) {
	const text = "Reloaded the map"
	before, path := s.logged(text), filepath.Join(s.dir, "map")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s n0\n", s.work.prefix(s.work.strangers[before]))
		err = errors.Join(err, f.Close())
	}
	return func() error { return errors.Join(err, s.awaitLogged(text, before+1)) }
}

const (
	registered = "reg1" // the node that registers
	key        = "bench.key."
	secret     = "YmVuY2gtZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=" // #nosec G101 -- of a server that lives for minutes

	registrations = 4
	perSecond     = 9000 // prefixes
)

// register registers other prefixes of a node each second.
func register(s *subject) (end func() error) {
	var messages [][]byte
	for i := range registrations {
		s.registrations++
		packed, err := registrationMessage(s.work, s.registrations, uint64(time.Now().UnixMilli()+int64(i))) // #nosec G115 -- since 1970
		if err != nil {
			return func() error { return err }
		}
		messages = append(messages, packed)
	}
	return beside(func() error {
		for _, m := range messages {
			begin := time.Now()
			if err := s.send(m); err != nil {
				return err
			}
			time.Sleep(time.Until(begin.Add(time.Second)))
		}
		return nil
	})
}

// registrationMessage returns the n-th registration, signed.
func registrationMessage(w *workload, n int, serial uint64) ([]byte, error) {
	r := &registration.Registration{
		Zone: zone + ".", Node: registered, Addresses: []netip.Addr{nodeAddress(200)}, Cuts: []string{cut + "."}, Serial: serial, Lease: time.Hour,
	}
	for i := range perSecond {
		client := w.strangers[(n*perSecond+i)%len(w.strangers)]
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: w.prefix(client)})
	}
	m, err := r.Message()
	if err != nil {
		return nil, err
	}
	m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
	packed, _, err := dns.TsigGenerate(m, secret, "", false)
	return packed, err
}

// send sends a registration over TCP.
func (s *subject) send(message []byte) error {
	conn, err := net.DialTimeout("tcp", s.addr.String(), patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil { // #nosec G115 -- below 64 KiB
		return err
	}
	reply := make([]byte, 6)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return fmt.Errorf("registration: %w", err)
	}
	if rcode := reply[5] & 0xf; rcode != dns.RcodeSuccess {
		return fmt.Errorf("registration: %s", dns.RcodeToString[int(rcode)])
	}
	return nil
}

// changeRankings puts other servers out of service, one of each of 100 services.
func changeRankings(s *subject) (end func() error) {
	const text = "Override in force"
	before := s.logged(text)
	s.overridden = 1 - s.overridden
	path := write(s.dir, "admin.new", func(line func(string, ...any)) {
		for i := range 100 {
			line("down s%d until %s reason benchmark", 2*i+s.overridden, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}
	})
	err := os.Rename(path, filepath.Join(s.dir, "admin"))
	return func() error { return errors.Join(err, s.awaitLogged(text, before+100)) }
}
