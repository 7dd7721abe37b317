package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// setUp sets up the plugins of the Corefile, and starts nothing. It returns the
// server blocks, and what is wrong with them.
func (c *command) setUp() (configs []*dnsserver.Config, problems []string, err error) {
	content, err := os.ReadFile(c.conf)
	if err != nil {
		return nil, nil, err
	}
	clog.SetOutput(io.Discard) // what is wrong with a file is not in the way
	_, configs, problems = setUp(caddy.CaddyfileInput{Contents: content, Filepath: c.conf, ServerTypeName: serverType})
	return configs, problems, nil
}

// registrationStore is the store of a zone, as the Corefile names it.
type registrationStore struct {
	zone  string
	at    registry.Location
	lease time.Duration // the longest one
}

// store returns the one store of the Corefile, or that of -zone.
func (c *command) store() (*registrationStore, error) {
	configs, problems, err := c.setUp()
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s has errors: %s", c.conf, strings.Join(problems, "; "))
	}
	zone := plugin.Name(c.zone).Normalize()
	stores := make(map[string]*registrationStore)
	for _, config := range configs {
		d, ok := config.Handler("dnsb").(*dnsb.DNSB)
		if !ok || c.zone != "" && d.Zone() != zone {
			continue
		}
		if at, lease := d.Store(); at != nil {
			stores[d.Zone()] = &registrationStore{d.Zone(), at, lease}
		}
	}
	switch {
	case len(stores) == 0:
		return nil, fmt.Errorf("%s has no store: add 'store db FILE' or 'store etcd URL...' to dnsb", c.conf)
	case len(stores) > 1:
		return nil, errors.New("there are several stores: choose one with -zone ZONE")
	}
	for _, s := range stores {
		return s, nil
	}
	return nil, nil
}

// exportStore writes what the store holds to a new file or, without one, prints it.
func (c *command) exportStore() error {
	if len(c.args) > 1 || c.dryRun {
		return errUsage
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	held, err := s.at.Read(s.zone)
	if err != nil {
		return err
	}
	// A server ignores these, too.
	maps.DeleteFunc(held.Survey, func(key string, value []byte) bool { return sitesurvey.Check(key, value) != nil })
	var text bytes.Buffer
	if err := registry.WriteExport(&text, s.zone, held); err != nil {
		return err
	}
	if len(c.args) == 0 {
		_, err := text.WriteTo(c.stdout)
		return err
	}
	f, err := os.OpenFile(c.args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = text.WriteTo(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(c.args[0]))
	}
	fmt.Fprintf(c.stdout, "%s: %s of %s from store %s%s\n", c.args[0], plural.Of(len(held.Entries), "node"), s.zone, s.at, andSurvey(len(held.Survey)))
	return nil
}

// importStore writes what a file holds to a store that is empty, or has the same.
func (c *command) importStore() error {
	if len(c.args) != 1 {
		return errUsage
	}
	path := c.args[0]
	f, err := os.Open(path) // #nosec G304 -- named by the operator
	if err != nil {
		return err
	}
	defer f.Close()
	zone, held, err := registry.ReadExport(f, sitesurvey.Check)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	if zone != s.zone {
		return fmt.Errorf("%s is of zone %s, and the store of zone %s", path, zone, s.zone)
	}
	stored, err := s.at.Read(s.zone)
	if err != nil {
		return err
	}
	missing, err := registry.Missing(stored, held)
	if err != nil {
		return fmt.Errorf("store %s: %w", s.at, err)
	}
	for _, e := range missing.Entries {
		what := "withdrawn"
		if e.Registration != nil {
			what = fmt.Sprintf("%s, %s, %s", plural.Of(len(e.Registration.Addresses), "address"), plural.Of(len(e.Registration.Prefixes), "prefix"), plural.Of(len(e.Registration.Cuts), "cut"))
		}
		fmt.Fprintf(c.stdout, "%s, serial %d: %s\n", e.Node, e.Serial, what)
	}
	if c.dryRun {
		fmt.Fprintf(c.stdout, "store %s: %s would be written, %d are there already; nothing was changed%s\n", s.at, plural.Of(len(missing.Entries), "node"), len(stored.Entries), andSurvey(len(missing.Survey)))
		return nil
	}
	if err := registry.Import(s.at, s.zone, missing, s.lease); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "store %s: %s written, %d were there already%s\n", s.at, plural.Of(len(missing.Entries), "node"), len(stored.Entries), andSurvey(len(missing.Survey)))
	return nil
}

// andSurvey is the end of a line that tells what was read or written.
func andSurvey(values int) string {
	if values == 0 {
		return ""
	}
	return fmt.Sprintf("; with %d resolver sites and nodes of the survey", values)
}
