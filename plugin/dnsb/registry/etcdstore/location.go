package etcdstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

func init() { registry.RegisterDriver("etcd", parse) }

// Location says how to reach an etcd.
type Location struct {
	URLs          string // of its members, separated by blanks
	Cert, Key, CA string // paths of PEM files, of URLs that are https; may be empty

	User, Password string // may be empty

	// Haste makes all waiting for etcd so many times shorter, for tests of
	// outages; 0 is 1. No line states it.
	Haste int
}

func (l Location) shorten(d time.Duration) time.Duration { return d / time.Duration(max(l.Haste, 1)) }

var _ registry.Shared = Location{}

func parse(c *caddy.Controller, args []string) (registry.Location, error) {
	urls := args
	if i := slices.IndexFunc(args, func(arg string) bool { return arg == "tls" || arg == "user" }); i >= 0 {
		urls = args[:i]
	}
	l, rest := Location{URLs: strings.Join(urls, " ")}, args[len(urls):]
	if i := len(rest) - 3; i >= 0 && rest[i] == "user" {
		l.User, l.Password, rest = rest[i+1], rest[i+2], rest[:i]
	}
	switch {
	case len(rest) == 2 && rest[0] == "tls":
		l.CA = corefile.Path(c, rest[1])
	case len(rest) == 4 && rest[0] == "tls":
		l.Cert, l.Key, l.CA = corefile.Path(c, rest[1]), corefile.Path(c, rest[2]), corefile.Path(c, rest[3])
	case len(rest) > 0 || len(urls) == 0:
		return nil, corefile.ErrUsage
	}

	secure := 0
	for _, arg := range urls {
		u, err := url.Parse(arg)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Path != "" || u.User != nil {
			return nil, fmt.Errorf("invalid URL '%s': expected the URL of an etcd server, such as https://192.0.2.7:2379", arg)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch {
	case secure > 0 && secure < len(urls):
		return nil, errors.New("only some of the URLs begin with https://: use https:// in all of them")
	case secure == 0 && l.CA != "":
		return nil, errors.New("'tls' needs URLs that begin with https://")
	}
	if _, err := l.tls(); err != nil {
		return nil, fmt.Errorf("read the files of 'tls': %w", err)
	}
	return l, nil
}

// String implements the fmt.Stringer interface.
func (l Location) String() string { return "etcd " + l.URLs }

// Follow implements the registry.Shared interface. It waits a moment for the
// first read.
func (l Location) Follow(zone string, replica registry.Replica) registry.Store {
	s := newStore(l, zone, replica)
	s.start()
	return s
}

// config returns what a client needs. The files are read again for each client,
// the certificate even for each connection.
func (l Location) config(ctx context.Context) (clientv3.Config, error) {
	conf := clientv3.Config{
		Endpoints:            strings.Fields(l.URLs),
		DialTimeout:          l.shorten(requestTime),
		DialKeepAliveTime:    10 * time.Second, // gRPC allows no less
		DialKeepAliveTimeout: requestTime,
		Username:             l.User,
		Password:             l.Password,
		Context:              ctx,
		Logger:               zap.NewNop(), // the errors tell all that matters
	}
	if !strings.HasPrefix(l.URLs, "https://") {
		return conf, nil
	}
	var err error
	conf.TLS, err = l.tls()
	return conf, err
}

// tls returns the TLS configuration for https.
func (l Location) tls() (*tls.Config, error) {
	for _, path := range []string{l.Cert, l.Key, l.CA} {
		if path == "" {
			continue
		}
		if err := inputfile.Check(path); err != nil {
			return nil, err
		}
	}
	return transport.TLSInfo{CertFile: l.Cert, KeyFile: l.Key, TrustedCAFile: l.CA}.ClientConfig()
}
