package dnsb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// exportEvery is how often the exported file is written at most: people and other
// servers read it only now and then, and a large map takes a while.
const exportEvery = time.Minute

// exportChanges keeps the exported file up to date with the map, until ctx ends.
// As long as nodes may come back after a start, the existing file knows more.
func (d *DNSB) exportChanges(ctx context.Context) {
	ticker := time.NewTicker(exportEvery)
	defer ticker.Stop()
	var (
		last    *snapshot
		failure reminder.Failure
	)
	for {
		if s := d.snapshot.Load(); !time.Now().Before(s.coldUntil) && !s.sameMap(last) {
			result, err := "ok", s.exportFile(d.conf.export)
			if err == nil {
				last = s
				if failure.Recovered() {
					log.Infof("Recovered: export of the map to %q", d.conf.export)
				}
			} else {
				result = "error"
				if failure.Failed("") {
					log.Errorf("Failed to export the map to %q, keeping the previous file: %v", d.conf.export, err)
				}
			}
			exportCount.WithLabelValues(d.conf.zone, result).Inc()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// sameMap reports whether other would be exported to the same lines.
func (s *snapshot) sameMap(other *snapshot) bool {
	return s.sameWritten(other) && s.sites == other.sites
}

// sameWritten is sameMap without what nodes measured.
func (s *snapshot) sameWritten(other *snapshot) bool {
	if other == nil || s.prefixes != other.prefixes || s.geo != other.geo || (s.overrides.pins == nil) != (other.overrides.pins == nil) {
		return false
	}
	if s.overrides.pins == nil {
		return true
	}
	for prefix, p := range s.overrides.pins.All() {
		if previous, ok := other.overrides.pins.Get(prefix); !ok || !slices.Equal(previous.nodes, p.nodes) {
			return false
		}
	}
	return s.overrides.pins.Size() == other.overrides.pins.Size()
}

// exportFile replaces a file by the exported map, as a whole.
func (s *snapshot) exportFile(path string) (err error) {
	if err := inputfile.Check(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails after the rename
	err = s.export(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// export writes a map file by which resolvers are referred as by this snapshot, as
// far as prefixes decide: pins, claims, the survey, and geo rules for what the databases have.
func (s *snapshot) export(w io.Writer) error {
	_, err := fmt.Fprintf(w, "# The map of %s with serial %d, written by dnsb.\n# The comments name the layers that the nodes are from.\n", s.conf.zone, s.serial)
	if err != nil {
		return err
	}
	return prefixmap.Export(w, s.names, s.allPrefixes(), s.exportedFor)
}

// exportedFor is namedFor for the export, whose comments tell where the latencies are
// those of a router on the way.
func (s *snapshot) exportedFor(prefix netip.Prefix) (nodes []prefixmap.Named, denied []nodeID) {
	nodes, denied = s.namedFor(prefix, nil, nil)
	if s.sites == nil {
		return nodes, denied
	}
	if site := s.sites.Over(prefix); site != nil && site.Routed {
		for i, n := range nodes {
			if n.Source == layerSurvey.String() {
				nodes[i].Source = "survey-router"
			}
		}
	}
	return nodes, denied
}

// allPrefixes returns the prefixes for which a pin, a claim, the survey or a geo rule
// names nodes.
func (s *snapshot) allPrefixes() iter.Seq[netip.Prefix] {
	all := prefixmap.Prefixes(s.prefixes.AllSorted())
	if s.sites != nil {
		all = prefixmap.Merge(all, prefixmap.Prefixes(s.sites.All()))
	}
	if s.geo != nil {
		all = prefixmap.Merge(all, prefixmap.Prefixes(s.geo.AllSorted()))
	}
	if s.overrides.pins != nil {
		all = prefixmap.Merge(all, prefixmap.Prefixes(s.overrides.pins.AllSorted()))
	}
	return all
}

// namedFor returns the nodes that pins, claims, the survey and geo rules name for all of a
// prefix, in the order of the search, and the nodes that are denied for it. They are appended
// to the empty lists.
func (s *snapshot) namedFor(prefix netip.Prefix, nodes []prefixmap.Named, denied []nodeID) ([]prefixmap.Named, []nodeID) {
	add := func(id nodeID, l layer) {
		if !slices.Contains(denied, id) && !slices.ContainsFunc(nodes, func(n prefixmap.Named) bool { return n.Node == id }) {
			nodes = append(nodes, prefixmap.Named{Node: id, Source: l.String()})
		}
	}
	if s.overrides.pins != nil {
		for _, pin := range s.overrides.pins.Supernets(prefix) {
			for _, id := range pin.nodes {
				add(id, layerPin)
			}
		}
	}
	for _, e := range s.prefixes.Supernets(prefix) {
		for _, c := range e.Claims {
			switch {
			case c.Negated:
				denied = append(denied, c.Node)
			case c.Operator:
				add(c.Node, layerOperator)
			default:
				add(c.Node, layerRegistration)
			}
		}
	}
	if s.sites != nil {
		if site := s.sites.Over(prefix); site != nil {
			for _, m := range site.Measured {
				if id := s.surveyNodes[m.Node]; id != noNode {
					add(id, layerSurvey)
				}
			}
		}
	}
	if s.geo == nil {
		return nodes, denied
	}
	if geo, ok := s.geo.LookupPrefix(prefix); ok {
		for i, rule := range rulesOf(geo) {
			if rule == nil {
				continue
			}
			for _, id := range rule.nodes {
				add(id, layerASN+layer(i)) // #nosec G115 -- three
			}
		}
	}
	return nodes, denied
}
