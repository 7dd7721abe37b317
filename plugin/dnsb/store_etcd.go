package dnsb

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"
)

// The keys of a zone in etcd, each followed by the name of a node. A mark is
// written with every change, so that its version is that of the node.
const (
	etcdRoot = "/dnsb/" // followed by the zone and a slash

	markKey         = "serials/"       // highest serial of the node and serial of the zone, in decimal
	registrationKey = "registrations/" // the UPDATEs that state it; none of one that withdrew
	leaseKey        = "leases/"        // seconds; etcd removes it when the lease ends
)

const (
	// etcdTime bounds what is asked of etcd, so that a node that registers gets an
	// answer while it waits for one.
	etcdTime = 2 * time.Second

	// etcdCheck is how often etcd is asked whether it still answers, and how
	// soon it is tried again.
	etcdCheck = time.Second

	// pageTime and pageSize bound one of the reads that together read all: 64
	// registrations of one full message each are 4 MB.
	pageTime = 5 * time.Second
	pageSize = 64
)

var errUnanswered = errors.New("etcd did not answer in time")

// errRewound is the error of an etcd that has forgotten something.
var errRewound = errors.New("it went back to an earlier state")

// etcdStore keeps registrations in etcd, which other servers share. What is in
// etcd goes to the registry, from the goroutine that watches it and from put.
type etcdStore struct {
	at       storage
	zone     string
	prefix   string
	registry *registry

	stop  context.CancelFunc
	done  sync.WaitGroup
	first chan struct{} // closed when all has been read once

	mu     sync.Mutex // held before that of the registry
	client *clientv3.Client
	why    error // why there is no client
	nodes  map[string]*shared
}

// shared is what etcd holds of a node.
type shared struct {
	kept
	seen    int64 // revision as of which this is
	version int64 // of the mark; 0: there is none
	leaseID clientv3.LeaseID
	renewed int64 // revision in which the lease was last renewed
}

func newEtcd(at storage, zone string, g *registry) *etcdStore {
	return &etcdStore{
		at: at, zone: zone, prefix: etcdRoot + zone + "/", registry: g,
		first: make(chan struct{}),
		why:   errors.New("it has not been reached yet"),
		nodes: make(map[string]*shared),
	}
}

// start begins to follow what is in etcd, until close. It waits a moment for the
// first read.
func (s *etcdStore) start() {
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.done.Go(func() { s.run(ctx) })
	select {
	case <-s.first:
	case <-time.After(etcdTime + etcdCheck):
	}
}

// close implements the store interface.
func (s *etcdStore) close() error {
	s.stop()
	s.done.Wait()
	storeUp.DeleteLabelValues(s.zone)
	return nil
}

// run follows what is in etcd, from a full read on, and begins again when it has
// lost sight of it.
func (s *etcdStore) run(ctx context.Context) {
	var why error
	up, told := false, false
	storeUp.WithLabelValues(s.zone).Set(0)
	for {
		err := s.session(ctx, func(nodes int) {
			if !up {
				log.Infof("Store %s answers and holds %d nodes", s.at, nodes)
			}
			up, told = true, false
			storeUp.WithLabelValues(s.zone).Set(1)
		})
		s.leave(err)
		if !told || !errors.Is(err, context.DeadlineExceeded) {
			why = err
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, errRewound):
			log.Infof("Store %s: all of it is read again: %s", s.at, err)
			continue
		case !told:
			up, told = false, true
			storeUp.WithLabelValues(s.zone).Set(0)
			why = s.reason(ctx, err)
			log.Warningf("Store %s does not answer: the map is that from before, and nodes cannot register: %s", s.at, why)
		}
		s.leave(why)
		select {
		case <-ctx.Done():
			return
		case <-time.After(etcdCheck):
		}
	}
}

// leave makes all that is asked of etcd fail at once, for this reason.
func (s *etcdStore) leave(why error) {
	s.mu.Lock()
	client := s.client
	s.client, s.why = nil, why
	s.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
}

// reason returns what is behind a timeout, such as a certificate that is not
// trusted: the errors of the client do not say that.
func (s *etcdStore) reason(ctx context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	conf, err := s.config(ctx)
	if err != nil {
		return err
	}
	conf.Username, conf.Password, conf.MaxUnaryRetries = "", "", 1
	client, err := clientv3.New(conf)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = bounded(ctx, etcdCheck, func(ctx context.Context) (*etcdserverpb.RangeResponse, error) {
		return clientv3.RetryKVClient(client).Range(ctx, &etcdserverpb.RangeRequest{Key: []byte(s.prefix)})
	})
	if text := status.Convert(err).Message(); text != "" {
		return errors.New(text)
	}
	return errors.New("timeout")
}

// session reads all, calls reached, and follows what changes. It returns why it
// ended.
func (s *etcdStore) session(ctx context.Context, reached func(nodes int)) error {
	conf, err := s.config(ctx)
	if err != nil {
		return err
	}
	client, err := clientv3.New(conf)
	if err != nil {
		return err
	}
	if _, err := s.check(ctx, client); err != nil { // a short wait for one that is not there
		_ = client.Close()
		return err
	}
	nodes, revision, err := s.read(ctx, client)
	if err != nil {
		_ = client.Close()
		return err
	}

	s.mu.Lock()
	registered, news := 0, make([]*kept, 0, len(nodes))
	for node, n := range nodes {
		if old := s.nodes[node]; old != nil && old.renewed == n.renewed {
			n.ends = old.ends
		}
		if n.registration != nil {
			registered++
		}
		news = append(news, &n.kept)
	}
	s.nodes, s.client = nodes, client
	s.registry.takeAll(news)
	s.mu.Unlock()
	reached(registered)
	select {
	case <-s.first:
	default:
		close(s.first)
	}

	s.restore()
	return s.follow(ctx, client, revision)
}

// config returns what the client needs. The files are read again for each client,
// the certificate even for each connection.
func (s *etcdStore) config(ctx context.Context) (clientv3.Config, error) {
	conf := clientv3.Config{
		Endpoints:            strings.Fields(s.at.urls),
		DialTimeout:          etcdTime,
		DialKeepAliveTime:    10 * time.Second, // gRPC allows no less
		DialKeepAliveTimeout: etcdTime,
		Username:             s.at.user,
		Password:             s.at.password,
		Context:              ctx,
		Logger:               zap.NewNop(), // what matters is in the errors
	}
	if !strings.HasPrefix(s.at.urls, "https://") {
		return conf, nil
	}
	var err error
	conf.TLS, err = s.at.tls()
	return conf, err
}

// tls returns the TLS configuration for https.
func (at storage) tls() (*tls.Config, error) {
	return transport.TLSInfo{CertFile: at.cert, KeyFile: at.key, TrustedCAFile: at.ca}.ClientConfig()
}

// read returns all that etcd holds of the zone, and the revision as of which.
func (s *etcdStore) read(ctx context.Context, client *clientv3.Client) (map[string]*shared, int64, error) {
	nodes := make(map[string]*shared)
	revision := int64(0)
	for key := s.prefix; ; {
		page, err := bounded(ctx, pageTime, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return client.Get(ctx, key, clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix)),
				clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		})
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			s.learn(nodes, kv, true, revision)
		}
		if !page.More {
			return nodes, revision, nil
		}
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// follow takes what changes after a revision. It also finds out when etcd no
// longer answers, which a watch alone does not say.
func (s *etcdStore) follow(ctx context.Context, client *clientv3.Client, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := client.Watch(clientv3.WithRequireLeader(ctx), s.prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	ticker := time.NewTicker(etcdCheck)
	defer ticker.Stop()
	for {
		select {
		case response, ok := <-changes:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := response.Err(); err != nil {
				return err
			}
			s.mu.Lock()
			s.take(response.Events, 0)
			s.mu.Unlock()
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
// answers.
func (s *etcdStore) check(ctx context.Context, client *clientv3.Client) (int64, error) {
	response, err := bounded(ctx, etcdTime, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return client.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	})
	if err != nil {
		return 0, err
	}
	return response.Header.Revision, nil
}

// take takes, locked, keys as of one revision, or 0 for that in which each changed.
func (s *etcdStore) take(events []*clientv3.Event, revision int64) {
	touched := make(map[string]*kept)
	for _, event := range events {
		asOf := revision
		if asOf == 0 {
			asOf = event.Kv.ModRevision
		}
		if node := s.learn(s.nodes, event.Kv, event.Type == clientv3.EventTypePut, asOf); node != "" {
			touched[node] = &s.nodes[node].kept
		}
	}
	news := make([]*kept, 0, len(touched))
	for _, k := range touched {
		news = append(news, k)
	}
	s.registry.take(news)
}

// learn takes one key, as of a revision, into nodes and returns the node that it is
// about, "" if there is nothing new in it.
func (s *etcdStore) learn(nodes map[string]*shared, kv *mvccpb.KeyValue, exists bool, revision int64) string {
	key, _ := bytes.CutPrefix(kv.Key, []byte(s.prefix))
	i := bytes.IndexByte(key, '/') + 1
	kind, node := string(key[:i]), string(key[i:])
	if node == "" {
		return ""
	}
	n := nodes[node]
	if n == nil {
		n = &shared{kept: kept{node: node}}
	}
	if revision < n.seen {
		return ""
	}

	var err error
	switch kind {
	case markKey:
		if !exists {
			n.version = 0
			break
		}
		n.version = kv.ModRevision
		err = n.parseMark(kv.Value)
	case registrationKey:
		if n.registration = nil; exists {
			n.registration, err = decode(kv.Value)
		}
	case leaseKey:
		if !exists && n.lease > 0 {
			n.ends = time.Now()
		}
		if n.lease, n.leaseID = 0, 0; exists {
			var seconds int64
			seconds, err = strconv.ParseInt(string(kv.Value), 10, 32)
			n.lease, n.leaseID = time.Duration(seconds)*time.Second, clientv3.LeaseID(kv.Lease)
			n.renew(kv.ModRevision)
		}
	default:
		return ""
	}
	if err != nil {
		log.Errorf("Store %s: the key %s is damaged and left out: %s", s.at, kv.Key, err)
	}
	n.seen = revision
	nodes[node] = n
	return node
}

// renew notes that the lease was renewed in a revision.
func (n *shared) renew(revision int64) {
	if n.renewed != revision {
		n.renewed, n.ends = revision, time.Now().Add(n.lease)
	}
}

func formatMark(mark uint64, serial uint32) string { return fmt.Sprintf("%d %d", mark, serial) }

func (n *shared) parseMark(value []byte) error {
	mark, serial, _ := strings.Cut(string(value), " ")
	m, err := strconv.ParseUint(mark, 10, 64)
	if err != nil {
		return err
	}
	z, err := strconv.ParseUint(serial, 10, 32)
	if err != nil {
		return err
	}
	n.mark, n.serial = m, uint32(z) // #nosec G115 -- parsed as 32 bits
	return nil
}

// restore writes to etcd what is newer here: from before there was an etcd, or
// what it has lost.
func (s *etcdStore) restore() {
	s.mu.Lock()
	stored := make(map[string]uint64, len(s.nodes))
	for node, n := range s.nodes {
		if n.version != 0 {
			stored[node] = n.mark
		}
	}
	s.mu.Unlock()
	for _, node := range s.registry.ahead(stored) {
		version := s.version(node)
		c := s.registry.restate(node)
		c.version = version
		switch err := s.put(c); {
		case errors.Is(err, errUnanswered):
			return // and all of it is to be read again
		case err != nil && !errors.Is(err, errSuperseded):
			log.Errorf("Store %s: what node %s registered before cannot be stored there: %s", s.at, node, err)
		}
	}
}

// version implements the store interface.
func (s *etcdStore) version(node string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[node]; n != nil {
		return n.version
	}
	return 0
}

// put implements the store interface. When it returns, the registry has taken the
// change, or the one that superseded it.
func (s *etcdStore) put(c *change) error {
	s.mu.Lock()
	client, why := s.client, s.why
	held := shared{kept: kept{node: c.node}}
	if n := s.nodes[c.node]; n != nil {
		held = *n
	}
	s.mu.Unlock()
	if client == nil {
		return fmt.Errorf("etcd does not answer: %w", why)
	}
	ctx, cancel := context.WithTimeout(client.Ctx(), etcdTime)
	defer cancel()

	mark, stated, lease := s.prefix+markKey+c.node, s.prefix+registrationKey+c.node, s.prefix+leaseKey+c.node
	next := shared{kept: kept{node: c.node, mark: c.mark, serial: c.serial, registration: c.registration}}
	then := []clientv3.Op{clientv3.OpPut(mark, formatMark(c.mark, c.serial))}
	if c.registration == nil {
		then = append(then, clientv3.OpDelete(stated))
	} else if held.registration == nil || !same(held.registration, c.registration) {
		message, err := encode(c.registration)
		if err != nil {
			return err
		}
		then = append(then, clientv3.OpPut(stated, string(message)))
	}
	if c.registration == nil || c.lease <= 0 {
		then = append(then, clientv3.OpDelete(lease))
	} else {
		next.lease = (c.lease + time.Second - 1).Truncate(time.Second)
		seconds := int64(next.lease / time.Second)
		var err error
		if next.leaseID, err = grant(ctx, client, seconds, &held); err != nil {
			return unanswered(err)
		}
		then = append(then, clientv3.OpPut(lease, strconv.FormatInt(seconds, 10), clientv3.WithLease(next.leaseID)))
	}
	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(mark), "=", c.version)).
		Then(then...).
		Else(clientv3.OpGet(mark), clientv3.OpGet(stated), clientv3.OpGet(lease)).
		Commit()
	if err != nil {
		return unanswered(err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.client != client && response.Succeeded:
		return nil // all is read again, which has this in it
	case s.client != client:
		return errUnanswered
	case !response.Succeeded:
		s.superseded(response, mark, stated, lease)
		return errSuperseded
	}
	revision := response.Header.Revision
	if n := s.nodes[c.node]; n != nil && n.seen >= revision { // the watch was faster
		return nil
	}
	next.seen, next.version, next.ends = revision, revision, held.ends
	if next.lease > 0 {
		next.renew(revision)
	}
	s.nodes[c.node] = &next
	s.registry.take([]*kept{&next.kept})
	return nil
}

// superseded takes, locked, what a failed transaction has found in these keys.
func (s *etcdStore) superseded(response *clientv3.TxnResponse, keys ...string) {
	var events []*clientv3.Event
	for i, found := range response.Responses {
		event := &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte(keys[i]), ModRevision: response.Header.Revision}}
		if kvs := found.GetResponseRange().Kvs; len(kvs) > 0 {
			event.Type, event.Kv = clientv3.EventTypePut, kvs[0]
		}
		events = append(events, event)
	}
	s.take(events, response.Header.Revision)
}

// grant returns a lease of etcd for so many seconds: the one that a node has, made
// new, or another one. The one that is replaced ends by itself, and nothing with it.
func grant(ctx context.Context, client *clientv3.Client, seconds int64, held *shared) (clientv3.LeaseID, error) {
	if held.leaseID != 0 && held.lease == time.Duration(seconds)*time.Second {
		_, err := client.KeepAliveOnce(ctx, held.leaseID)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return held.leaseID, err
		}
	}
	granted, err := client.Grant(ctx, seconds)
	if err != nil {
		return 0, err
	}
	return granted.ID, nil
}

// unanswered explains an error of a change.
func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errUnanswered
	}
	return fmt.Errorf("etcd: %w", err)
}

// bounded calls f with a context that ends after limit.
func bounded[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f(ctx)
}
