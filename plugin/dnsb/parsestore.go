package dnsb

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

func (p *parser) store(l corefile.Line) (err error) {
	switch args := l.Args; {
	case len(args) == 2 && args[0] == "db":
		p.conf.store.db, err = corefile.OutputPath(p.c, l.Property, args[1])
		return err
	case len(args) >= 2 && args[0] == "etcd":
		return p.etcd(args[1:])
	}
	return corefile.ErrUsage
}

const etcdUsage = "etcd URL... [tls CA | tls CERT KEY CA] [user NAME PASSWORD]"

func (p *parser) etcd(args []string) error {
	urls := args
	if i := slices.IndexFunc(args, func(arg string) bool { return arg == "tls" || arg == "user" }); i >= 0 {
		urls = args[:i]
	}
	at, rest := storage{urls: strings.Join(urls, " ")}, args[len(urls):]
	if i := len(rest) - 3; i >= 0 && rest[i] == "user" {
		at.user, at.password, rest = rest[i+1], rest[i+2], rest[:i]
	}
	switch {
	case len(rest) == 2 && rest[0] == "tls":
		at.ca = p.path(rest[1])
	case len(rest) == 4 && rest[0] == "tls":
		at.cert, at.key, at.ca = p.path(rest[1]), p.path(rest[2]), p.path(rest[3])
	case len(rest) > 0 || len(urls) == 0:
		return corefile.ErrUsage
	}

	secure := 0
	for _, arg := range urls {
		u, err := url.Parse(arg)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Path != "" || u.User != nil {
			return fmt.Errorf("invalid URL '%s': expected the URL of an etcd server, such as https://192.0.2.7:2379", arg)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch {
	case secure > 0 && secure < len(urls):
		return errors.New("only some of the URLs begin with https://: use https:// in all of them")
	case secure == 0 && at.ca != "":
		return errors.New("'tls' needs URLs that begin with https://")
	}
	if _, err := at.tls(); err != nil {
		return fmt.Errorf("store: tls: %w", err)
	}
	p.conf.store = at
	return nil
}

func (p *parser) path(name string) string { return corefile.Path(p.c, name) }
