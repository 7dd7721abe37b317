// Package etcdstore keeps registrations in etcd, which several servers share.
// Importing it makes 'store etcd URL...' available.
//
// A store reads all keys of its zone at one revision of etcd and then watches
// what changes. It begins again with a full read when it has lost sight of etcd.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

const (
	// requestTime bounds a request to etcd, so that a node that registers gets
	// an answer while it waits for one.
	requestTime = 2 * time.Second

	// checkInterval is how often etcd is asked whether it still answers, and
	// how soon it is tried again.
	checkInterval = time.Second

	// pageTime and pageSize bound one of the reads that together read all: 64
	// registrations of one full message each are 4 MB.
	pageTime = 5 * time.Second

	// readTime bounds a Read of all, by a command.
	readTime = time.Minute
	pageSize = 64
)

var log = clog.NewWithPlugin("dnsb")

// The errors of a session, or a transaction, with an etcd that has lost data.
var (
	errRewound  = errors.New("etcd went back to an earlier revision")
	errReplaced = errors.New("etcd has lost what it held")
)

// store implements the registry.Store interface. The goroutine of run follows
// etcd and, as Write does, tells the replica.
type store struct {
	location Location
	zone     string
	prefix   string // of all keys of the zone
	replica  registry.Replica
	servers  meeting

	ctx   context.Context // ends with the store
	stop  context.CancelFunc
	done  sync.WaitGroup
	first chan struct{} // closed when all has been read once

	mu          sync.Mutex // held before that of the registry
	client      *clientv3.Client
	unavailable error  // why there is no client
	version     string // value of versionKey; "": there is none
	nodes       map[string]*node
}

func newStore(l Location, zone string, replica registry.Replica) *store {
	return &store{
		location: l, zone: zone, prefix: root + zone + "/", replica: replica,
		first:       make(chan struct{}),
		unavailable: errors.New("not connected yet"),
		nodes:       make(map[string]*node),
	}
}

// start begins to follow etcd, until Close. It waits a moment for the first read.
func (s *store) start() {
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.done.Go(func() { s.run(s.ctx) })
	select {
	case <-s.first:
	case <-time.After(s.location.shorten(requestTime + checkInterval)):
	}
}

// Close implements the registry.Store interface.
func (s *store) Close() error {
	s.servers.close()
	s.stop()
	s.done.Wait()
	return nil
}

// run holds one session after the other until ctx ends.
func (s *store) run(ctx context.Context) {
	var (
		failure reminder.Failure
		reason  error
	)
	up := false
	registry.StoreUp.WithLabelValues(s.zone).Set(0)
	for {
		err := s.session(ctx, func(nodes int) {
			if failure.Recovered() {
				log.Infof("Recovered: store %q, %s", s.location, plural.Of(nodes, "node"))
			} else if !up {
				log.Infof("Connected to store %q: %s", s.location, plural.Of(nodes, "node"))
			}
			up = true
			registry.StoreUp.WithLabelValues(s.zone).Set(1)
		})
		s.disconnect(err)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, errRewound), errors.Is(err, errReplaced):
			log.Infof("Reading all of store %q again: %v", s.location, err)
			continue
		}
		up = false
		registry.StoreUp.WithLabelValues(s.zone).Set(0)
		if !errors.Is(err, context.DeadlineExceeded) {
			reason = err
		}
		if failure.Failed("") {
			reason = s.diagnose(ctx, err)
			verb := "reach"
			if other := (*versionError)(nil); errors.As(reason, &other) {
				verb = "read"
			}
			log.Warningf("Failed to %s store %q, serving the last known map and refusing registrations: %v", verb, s.location, reason)
		}
		s.disconnect(reason)
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.location.shorten(checkInterval)):
		}
	}
}

// disconnect makes all requests to etcd fail at once, for this reason.
func (s *store) disconnect(reason error) {
	s.mu.Lock()
	client := s.client
	s.client, s.unavailable = nil, reason
	s.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
}

// diagnose returns the cause of a timeout, such as a certificate that is not
// trusted: the errors of the client do not tell it.
func (s *store) diagnose(ctx context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	conf, err := s.location.config(ctx)
	if err != nil {
		return err
	}
	conf.Username, conf.Password, conf.MaxUnaryRetries = "", "", 1
	client, err := clientv3.New(conf)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = bounded(ctx, s.location.shorten(checkInterval), func(ctx context.Context) (*etcdserverpb.RangeResponse, error) {
		return clientv3.RetryKVClient(client).Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(s.prefix)})
	})
	if text := status.Convert(err).Message(); text != "" {
		return errors.New(text)
	}
	return errors.New("timeout")
}

// session reads all, calls connected, and follows what changes. It returns why it
// ended.
func (s *store) session(ctx context.Context, connected func(nodes int)) error {
	conf, err := s.location.config(ctx)
	if err != nil {
		return err
	}
	client, err := clientv3.New(conf)
	if err != nil {
		return err
	}
	if _, err := s.check(ctx, client); err != nil { // no long wait for an etcd that is down
		_ = client.Close()
		return err
	}
	nodes, version, revision, err := s.readAll(ctx, client)
	if err == nil {
		err = checkVersion(version)
	}
	if err != nil {
		_ = client.Close()
		return err
	}

	s.mu.Lock()
	registered, entries := 0, make([]registry.Entry, 0, len(nodes))
	for name, n := range nodes {
		if old := s.nodes[name]; old != nil && old.renewed == n.renewed {
			n.entry.LeaseEnd = old.entry.LeaseEnd
		}
		if n.entry.Registration != nil {
			registered++
		}
		entries = append(entries, n.entry)
	}
	s.nodes, s.version, s.client = nodes, version, client
	s.replica.Replace(entries)
	s.mu.Unlock()
	connected(registered)
	select {
	case <-s.first:
	default:
		close(s.first)
	}

	s.restore()
	return s.follow(ctx, client, revision)
}

// readAll returns all that etcd holds of the zone, and the revision as of which.
func (s *store) readAll(ctx context.Context, client *clientv3.Client) (nodes map[string]*node, version string, revision int64, err error) {
	nodes = make(map[string]*node)
	for key := s.prefix; ; {
		page, err := bounded(ctx, s.location.shorten(pageTime), func(ctx context.Context) (*clientv3.GetResponse, error) {
			return client.Get(ctx, key, clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix)),
				clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		})
		if err != nil {
			return nil, "", 0, err
		}
		if revision == 0 {
			revision = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			if string(kv.Key) == s.prefix+versionKey {
				version = string(kv.Value)
			}
			s.read(nodes, kv, true, revision)
		}
		if !page.More {
			return nodes, version, revision, nil
		}
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// Read implements the registry.Location interface.
func (l Location) Read(zone string) (registry.Contents, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	s := newStore(l, zone, nil)
	held, err := s.readOnce(ctx)
	if err != nil {
		return registry.Contents{}, fmt.Errorf("read store %q: %w", l, s.diagnose(ctx, err))
	}
	return held, nil
}

// readOnce is for a store that was not started.
func (s *store) readOnce(ctx context.Context) (registry.Contents, error) {
	held := registry.Contents{Survey: make(map[string][]byte)}
	conf, err := s.location.config(ctx)
	if err != nil {
		return held, err
	}
	client, err := clientv3.New(conf)
	if err != nil {
		return held, err
	}
	defer client.Close()
	if _, err := s.check(ctx, client); err != nil { // no long wait for an etcd that is down
		return held, err
	}
	nodes, version, _, err := s.readAll(ctx, client)
	if err == nil {
		err = checkVersion(version)
	}
	if err != nil {
		return held, err
	}
	s.nodes = nodes
	held.Entries = s.stored()
	_, err = s.readSurvey(ctx, client, func(values map[string][]byte) { maps.Copy(held.Survey, values) })
	if errors.Is(err, rpctypes.ErrPermissionDenied) { // of keys that the server does not use then, either
		err = nil
	}
	return held, err
}

// follow takes what changes after a revision. It also finds out when etcd no
// longer answers, which a watch alone does not tell.
func (s *store) follow(ctx context.Context, client *clientv3.Client, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan clientv3.WatchChan, 1)
	go func() { // until etcd has answered, or ctx ends
		watching <- client.Watch(clientv3.WithRequireLeader(ctx), s.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	}()
	var changes clientv3.WatchChan
	ticker := time.NewTicker(s.location.shorten(checkInterval))
	defer ticker.Stop()
	for {
		select {
		case changes = <-watching:
		case response, ok := <-changes:
			if !ok {
				return errors.New("watch of etcd ended")
			}
			if err := response.Err(); err != nil {
				return err
			}
			s.mu.Lock()
			err := s.watchVersion(response.Events)
			if err == nil {
				s.merge(response.Events, 0)
			}
			s.mu.Unlock()
			if err != nil {
				return err
			}
			revision = max(revision, response.Header.Revision)
		case <-ticker.C:
			now, err := s.check(ctx, client)
			if err != nil {
				return err
			}
			if now < revision {
				return errRewound
			}
			revision = now
		}
	}
}

// check returns the revision that etcd has come to, if a majority of its members
// answers, and an error if it does not hold what was read from it.
func (s *store) check(ctx context.Context, client *clientv3.Client) (int64, error) {
	response, err := bounded(ctx, s.location.shorten(requestTime), func(ctx context.Context) (*clientv3.GetResponse, error) {
		return client.Get(ctx, s.prefix+versionKey)
	})
	if err != nil {
		return 0, err
	}
	version := ""
	if len(response.Kvs) > 0 {
		version = string(response.Kvs[0].Value)
	}
	if err := checkVersion(version); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == client && s.version != "" && s.version != version {
		return 0, errReplaced
	}
	return response.Header.Revision, nil
}

// watchVersion takes the version that is written first, and returns an error if
// it is that of another program, or of an etcd that was filled anew. mu is locked.
func (s *store) watchVersion(events []*clientv3.Event) error {
	for _, event := range events {
		if string(event.Kv.Key) != s.prefix+versionKey {
			continue
		}
		if err := s.adopt(string(event.Kv.Value)); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes a version if none was known. mu is locked.
func (s *store) adopt(version string) error {
	if err := checkVersion(version); err != nil {
		return err
	}
	if s.version != "" && s.version != version {
		return errReplaced
	}
	s.version = version
	return nil
}

// merge takes keys as of one revision, or 0 for that in which each changed, and
// tells the replica. mu is locked.
func (s *store) merge(events []*clientv3.Event, revision int64) {
	touched := make(map[string]bool)
	for _, event := range events {
		asOf := revision
		if asOf == 0 {
			asOf = event.Kv.ModRevision
		}
		if name := s.read(s.nodes, event.Kv, event.Type == clientv3.EventTypePut, asOf); name != "" {
			touched[name] = true
		}
	}
	entries := make([]registry.Entry, 0, len(touched))
	for name := range touched {
		entries = append(entries, s.nodes[name].entry)
	}
	s.replica.Merge(entries)
}

// bounded calls f with a context that ends after limit.
func bounded[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f(ctx)
}
