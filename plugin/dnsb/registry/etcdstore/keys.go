package etcdstore

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// The keys of a zone in etcd, each followed by the name of a node. The serial is
// written with every change, so that the version of its key is that of the node.
const (
	root = "/dnsb/" // followed by the zone and a slash

	serialKey       = "serials/"       // last serial of the node, serial of the zone, and resets of the first one if any, in decimal
	registrationKey = "registrations/" // as registry.Encode returns it; none of a node that withdrew
	leaseKey        = "leases/"        // seconds; etcd removes it when the lease ends
)

// node is what etcd holds of a node.
type node struct {
	entry   registry.Entry
	seen    int64 // revision of etcd as of which this is known
	version int64 // of the serial; 0: there is none
	leaseID clientv3.LeaseID
	renewed int64 // revision in which the lease was last renewed
}

// read takes one key of a node, as of a revision, into nodes. It returns the name of the
// node, "" if the key tells nothing new. It changes only the node of the key.
func (s *store) read(nodes map[string]*node, kv *mvccpb.KeyValue, exists bool, revision int64) string {
	key, _ := bytes.CutPrefix(kv.Key, []byte(s.prefix))
	i := bytes.IndexByte(key, '/') + 1
	kind, name := string(key[:i]), string(key[i:])
	if name == "" {
		return ""
	}
	n := nodes[name]
	if n == nil {
		n = &node{entry: registry.Entry{Node: name}}
	}
	if revision < n.seen {
		return ""
	}

	var err error
	switch kind {
	case serialKey:
		n.version = 0
		if exists {
			n.version = kv.ModRevision
			err = n.parseSerials(kv.Value)
		}
	case registrationKey:
		n.entry.Registration = nil
		if exists {
			n.entry.Registration, err = registry.Decode(kv.Value)
		}
	case leaseKey:
		err = n.parseLease(kv, exists)
	default:
		return ""
	}
	if err != nil {
		log.Errorf("Failed to read key %q of store %q, ignoring it: %v", kv.Key, s.location, err)
	}
	n.seen = revision
	nodes[name] = n
	return name
}

func formatSerials(e *registry.Entry) string {
	text := fmt.Sprintf("%d %d", e.Serial, e.ZoneSerial)
	if e.Resets > 0 {
		text += fmt.Sprintf(" %d", e.Resets)
	}
	return text
}

func (n *node) parseSerials(value []byte) error {
	first, rest, _ := strings.Cut(string(value), " ")
	second, third, more := strings.Cut(rest, " ")
	serial, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return err
	}
	zoneSerial, err := strconv.ParseUint(second, 10, 32)
	if err != nil {
		return err
	}
	resets := uint64(0)
	if more {
		if resets, err = strconv.ParseUint(third, 10, 32); err != nil {
			return err
		}
	}
	n.entry.Serial, n.entry.ZoneSerial, n.entry.Resets = serial, uint32(zoneSerial), uint32(resets) // #nosec G115 -- parsed as 32 bits
	return nil
}

func (n *node) parseLease(kv *mvccpb.KeyValue, exists bool) error {
	if !exists {
		if n.entry.Lease > 0 {
			n.entry.LeaseEnd = time.Now()
		}
		n.entry.Lease, n.leaseID = 0, 0
		return nil
	}
	seconds, err := strconv.ParseInt(string(kv.Value), 10, 32)
	if err != nil {
		return err
	}
	n.entry.Lease, n.leaseID = time.Duration(seconds)*time.Second, clientv3.LeaseID(kv.Lease)
	n.renew(kv.ModRevision)
	return nil
}

// renew notes that the lease was renewed in a revision.
func (n *node) renew(revision int64) {
	if n.renewed != revision {
		n.renewed, n.entry.LeaseEnd = revision, time.Now().Add(n.entry.Lease)
	}
}
