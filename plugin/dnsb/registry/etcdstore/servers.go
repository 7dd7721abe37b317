package etcdstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

var _ registry.ServerStore = (*store)(nil)

const (
	// serverKey begins the keys of servers that use the store, beside those of nodes.
	// A name follows that the server chooses at its start.
	serverKey = "servers/"
	// serverLease is how long the key of a server outlives it, in seconds, if it did not
	// end in order.
	serverLease = 20
	// meetEvery is how often a server renews its lease and reads the keys of others.
	meetEvery = 5 * time.Second
)

// meeting is what the servers with one store know of each other.
type meeting struct {
	id    string             // "": nobody is told that this one uses the store
	stop  context.CancelFunc // of meetOthers
	ended chan struct{}      // likewise

	mu     sync.Mutex
	self   registry.Server
	others []registry.Server
	read   time.Time // zero: etcd cannot be read

	// Of the goroutine that meets:
	lease   clientv3.LeaseID // 0: none
	written string           // value of the own key
	failure reminder.Failure
}

// Announce implements the registry.ServerStore interface.
func (s *store) Announce(self registry.Server) {
	s.servers.mu.Lock()
	s.servers.self = self
	s.servers.mu.Unlock()
	if s.servers.id == "" {
		s.servers.id, s.servers.ended = rand.Text(), make(chan struct{})
		var ctx context.Context
		ctx, s.servers.stop = context.WithCancel(s.ctx)
		go s.meetOthers(ctx)
	}
}

// Others implements the registry.ServerStore interface.
func (s *store) Others() ([]registry.Server, time.Time) {
	s.servers.mu.Lock()
	defer s.servers.mu.Unlock()
	return slices.Clone(s.servers.others), s.servers.read
}

// meetOthers has a key in etcd, and reads those of others, until ctx ends. Then it
// removes the key, if etcd can be reached.
func (s *store) meetOthers(ctx context.Context) {
	defer close(s.servers.ended)
	for {
		wait := s.location.shorten(checkInterval)
		if client := s.connected(); client != nil {
			switch err := s.meet(client); {
			case err == nil:
				wait = s.location.shorten(meetEvery)
				s.servers.failure.Recovered()
			case s.connected() != client: // the session tells why
			case s.servers.failure.Failed(""):
				log.Warningf("Failed to list this server in store %q for the status pages of the others, retrying: %v", s.location, err)
			}
		}
		if s.connected() == nil {
			s.servers.found(nil, time.Time{})
		}
		select {
		case <-ctx.Done():
			s.leave()
			return
		case <-time.After(wait):
		}
	}
}

// meet renews the key of this server, and reads those of others.
func (s *store) meet(client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(client.Ctx(), s.location.shorten(requestTime))
	defer cancel()
	m := &s.servers
	m.mu.Lock()
	text, err := json.Marshal(m.self)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if m.lease != 0 {
		switch _, err := client.KeepAliveOnce(ctx, m.lease); {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			m.lease = 0
		case err != nil:
			return err
		}
	}
	prefix := s.prefix + serverKey
	if m.lease == 0 || m.written != string(text) {
		if err := s.writeServer(ctx, client, prefix+m.id, string(text)); err != nil {
			return err
		}
	}
	found, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	others, exists := []registry.Server{}, false
	for _, kv := range found.Kvs {
		var other registry.Server
		switch id := strings.TrimPrefix(string(kv.Key), prefix); {
		case id == m.id:
			exists = true
		case json.Unmarshal(kv.Value, &other) == nil:
			others = append(others, other)
		}
	}
	if !exists { // it was removed
		m.written = ""
	}
	slices.SortFunc(others, func(a, b registry.Server) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Host, b.Host), a.Started.Compare(b.Started))
	})
	m.found(others, time.Now())
	return nil
}

func (s *store) writeServer(ctx context.Context, client *clientv3.Client, key, text string) error {
	m := &s.servers
	if m.lease == 0 {
		granted, err := client.Grant(ctx, serverLease)
		if err != nil {
			return err
		}
		m.lease = granted.ID
	}
	_, err := client.Put(ctx, key, text, clientv3.WithLease(m.lease))
	if err == nil {
		m.written = text
	}
	return err
}

func (m *meeting) found(others []registry.Server, read time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.others, m.read = others, read
}

// leave removes the key of this server.
func (s *store) leave() {
	if client := s.connected(); client != nil {
		_, _ = bounded(client.Ctx(), s.location.shorten(requestTime), func(ctx context.Context) (*clientv3.DeleteResponse, error) {
			return client.Delete(ctx, s.prefix+serverKey+s.servers.id)
		})
	}
}

// close ends meetOthers.
func (m *meeting) close() {
	if m.id != "" {
		m.stop()
		<-m.ended
	}
}
