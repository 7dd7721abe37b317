package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

var _ registry.SurveyStore = (*store)(nil)

const (
	// surveyRoot begins the keys of the survey, followed by the zone and a slash. They
	// are apart from registrations, which must not wait until they are read.
	surveyRoot = "/dnsb-survey/"
	// surveyPage is how many of them are read at once, and surveyWrite how many are
	// written in one transaction: etcd takes 128.
	surveyPage  = 1000
	surveyWrite = 100
)

// errAway is the error of a write while there is no session with etcd.
var errAway = errors.New("etcd does not answer")

// FollowSurvey implements the registry.SurveyStore interface.
func (s *store) FollowSurvey(survey registry.Survey) {
	s.done.Go(func() {
		for {
			if client := s.connected(); client != nil {
				survey.Moved(true) // while etcd was away
				_ = s.followSurvey(s.ctx, client, survey)
			}
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(s.location.shorten(checkInterval)):
			}
		}
	})
}

// connected returns the client of the current session, nil if there is none.
func (s *store) connected() *clientv3.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client
}

// followSurvey tells the survey what etcd holds, and then what changes, until the
// session of the client ends.
func (s *store) followSurvey(ctx context.Context, client *clientv3.Client, survey registry.Survey) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(client.Ctx(), cancel)()
	revision, err := s.readSurvey(ctx, client, survey.Take)
	if err != nil {
		return err
	}
	prefix := surveyRoot + s.zone + "/"
	for response := range client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := response.Err(); err != nil {
			return err
		}
		values := make(map[string][]byte, len(response.Events))
		for _, event := range response.Events {
			if event.Type == clientv3.EventTypePut {
				values[strings.TrimPrefix(string(event.Kv.Key), prefix)] = event.Kv.Value
			}
		}
		survey.Take(values)
	}
	return ctx.Err()
}

// readSurvey tells all that etcd holds of the survey, page by page, and returns the
// revision as of which.
func (s *store) readSurvey(ctx context.Context, client *clientv3.Client, take func(map[string][]byte)) (revision int64, err error) {
	prefix := surveyRoot + s.zone + "/"
	for key := prefix; ; {
		page, err := bounded(ctx, s.location.shorten(pageTime), func(ctx context.Context) (*clientv3.GetResponse, error) {
			return client.Get(ctx, key, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(surveyPage), clientv3.WithRev(revision))
		})
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = page.Header.Revision
		}
		values := make(map[string][]byte, len(page.Kvs))
		for _, kv := range page.Kvs {
			values[strings.TrimPrefix(string(kv.Key), prefix)] = kv.Value
		}
		take(values)
		if !page.More {
			return revision, nil
		}
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// WriteSurvey implements the registry.SurveyStore interface.
func (s *store) WriteSurvey(values map[string][]byte) error {
	client := s.connected()
	if client == nil {
		return errAway
	}
	prefix := surveyRoot + s.zone + "/"
	for keys := range slices.Chunk(slices.Collect(maps.Keys(values)), surveyWrite) {
		ops := make([]clientv3.Op, len(keys))
		for i, key := range keys {
			if ops[i] = clientv3.OpPut(prefix+key, string(values[key])); values[key] == nil {
				ops[i] = clientv3.OpDelete(prefix + key)
			}
		}
		if _, err := bounded(client.Ctx(), s.location.shorten(pageTime), func(ctx context.Context) (*clientv3.TxnResponse, error) {
			return client.Txn(ctx).Then(ops...).Commit()
		}); err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
	}
	return nil
}
