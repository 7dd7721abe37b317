package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

var errUnanswered = errors.New("etcd did not answer in time")

// restore writes to etcd what is newer in the registry: from the time without an
// etcd, or what etcd has lost.
func (s *store) restore() {
	for again := true; again; {
		again = false
		for _, name := range s.replica.NewerThan(s.stored()) {
			version := s.Version(name)
			txn := s.replica.Restate(name)
			txn.Version = version
			other := (*versionError)(nil)
			switch err := s.Write(txn); {
			case err == nil:
			case errors.Is(err, registry.ErrSuperseded):
				again = true // what another server wrote may be older, too
			case errors.Is(err, errUnanswered), errors.Is(err, errReplaced), errors.As(err, &other):
				return // all is read again, and then restored again
			default:
				log.Errorf("Failed to write the registration of node %q to store %q: %v", name, s.location, err)
			}
		}
	}
}

// stored returns what etcd holds.
func (s *store) stored() []registry.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]registry.Entry, 0, len(s.nodes))
	for _, n := range s.nodes {
		if n.version != 0 {
			all = append(all, n.entry)
		}
	}
	return all
}

// Version implements the registry.Store interface.
func (s *store) Version(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil {
		return n.version
	}
	return 0
}

// Write implements the registry.Store interface. When it returns, the replica has
// the transaction, or the one that superseded it.
func (s *store) Write(txn *registry.Txn) error {
	s.mu.Lock()
	client, unavailable, version := s.client, s.unavailable, s.version
	old := node{entry: registry.Entry{Node: txn.Node}}
	if n := s.nodes[txn.Node]; n != nil {
		old = *n
	}
	s.mu.Unlock()
	if other := (*versionError)(nil); client == nil && errors.As(unavailable, &other) {
		return other
	} else if client == nil {
		return fmt.Errorf("etcd does not answer: %w", unavailable)
	}
	ctx, cancel := context.WithTimeout(client.Ctx(), s.location.shorten(requestTime))
	defer cancel()

	serial, registration, lease := s.prefix+serialKey+txn.Node, s.prefix+registrationKey+txn.Node, s.prefix+leaseKey+txn.Node
	next := node{entry: registry.Entry{Node: txn.Node, Serial: txn.Serial, Resets: txn.Resets, ZoneSerial: txn.ZoneSerial, Registration: txn.Registration}}
	then := []clientv3.Op{clientv3.OpPut(serial, formatSerials(&next.entry))}
	if txn.Registration == nil {
		then = append(then, clientv3.OpDelete(registration))
	} else if old.entry.Registration == nil || !registry.SameContent(old.entry.Registration, txn.Registration) {
		encoded, err := registry.Encode(txn.Registration)
		if err != nil {
			return err
		}
		then = append(then, clientv3.OpPut(registration, string(encoded)))
	}
	if txn.Registration == nil || txn.Lease <= 0 {
		then = append(then, clientv3.OpDelete(lease))
	} else {
		next.entry.Lease = (txn.Lease + time.Second - 1).Truncate(time.Second)
		seconds := int64(next.entry.Lease / time.Second)
		var err error
		if next.leaseID, err = grant(ctx, client, seconds, &old); err != nil {
			return writeError(err)
		}
		then = append(then, clientv3.OpPut(lease, strconv.FormatInt(seconds, 10), clientv3.WithLease(next.leaseID)))
	}
	sameVersion := clientv3.Compare(clientv3.Value(s.prefix+versionKey), "=", version)
	if version == "" {
		version = newVersion()
		sameVersion = clientv3.Compare(clientv3.CreateRevision(s.prefix+versionKey), "=", 0)
		then = append(then, clientv3.OpPut(s.prefix+versionKey, version))
	}
	response, err := client.Txn(ctx).
		If(sameVersion, clientv3.Compare(clientv3.ModRevision(serial), "=", txn.Version)).
		Then(then...).
		Else(clientv3.OpGet(serial), clientv3.OpGet(registration), clientv3.OpGet(lease), clientv3.OpGet(s.prefix+versionKey)).
		Commit()
	if err != nil {
		return writeError(err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.client != client && response.Succeeded:
		return nil // all is read again, with this transaction
	case s.client != client:
		return errUnanswered
	case !response.Succeeded:
		return s.superseded(response, serial, registration, lease)
	}
	if err := s.adopt(version); err != nil {
		return err
	}
	revision := response.Header.Revision
	if n := s.nodes[txn.Node]; n != nil && n.seen >= revision { // the watch was faster
		return nil
	}
	next.seen, next.version, next.entry.LeaseEnd = revision, revision, old.entry.LeaseEnd
	if next.entry.Lease > 0 {
		next.renew(revision)
	}
	s.nodes[txn.Node] = &next
	s.replica.Merge([]registry.Entry{next.entry})
	return nil
}

// superseded takes what a failed transaction has found in these keys of a node,
// and then of the version, and returns the error of the transaction. mu is locked.
func (s *store) superseded(response *clientv3.TxnResponse, keys ...string) error {
	version := ""
	if kvs := response.Responses[len(keys)].GetResponseRange().Kvs; len(kvs) > 0 {
		version = string(kvs[0].Value)
	}
	if err := s.adopt(version); err != nil {
		return err
	}
	events := make([]*clientv3.Event, 0, len(keys))
	for i, found := range response.Responses[:len(keys)] {
		event := &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte(keys[i]), ModRevision: response.Header.Revision}}
		if kvs := found.GetResponseRange().Kvs; len(kvs) > 0 {
			event.Type, event.Kv = clientv3.EventTypePut, kvs[0]
		}
		events = append(events, event)
	}
	s.merge(events, response.Header.Revision)
	return registry.ErrSuperseded
}

// grant returns a lease of etcd for so many seconds: the one that the node has,
// renewed, or a new one. The one that is replaced ends by itself, and nothing
// with it.
func grant(ctx context.Context, client *clientv3.Client, seconds int64, old *node) (clientv3.LeaseID, error) {
	if old.leaseID != 0 && old.entry.Lease == time.Duration(seconds)*time.Second {
		_, err := client.KeepAliveOnce(ctx, old.leaseID)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return old.leaseID, err
		}
	}
	granted, err := client.Grant(ctx, seconds)
	if err != nil {
		return 0, err
	}
	return granted.ID, nil
}

// writeError returns the error of a transaction, such as the text of an extended
// error shows it.
func writeError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errUnanswered
	}
	return fmt.Errorf("etcd: %w", err)
}
