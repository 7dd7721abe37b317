package dnsb

import (
	"context"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// overlaps are those of one table.
type overlaps struct {
	table *prefixmap.Table
	total int
	list  []prefixmap.Overlap // the first ones, in the order of addresses
}

const (
	// overlapEvery is how often the overlaps of a changed table are counted. That
	// takes a fifth of a second for a million prefixes, for which neither queries
	// nor registrations wait.
	overlapEvery = 30 * time.Second
	// maxOverlaps bounds the list.
	maxOverlaps = 1000
)

// watchOverlaps counts overlaps, and logs their number when it has changed, until
// ctx ends.
func (d *DNSB) watchOverlaps(ctx context.Context) {
	ticker := time.NewTicker(overlapEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s, previous := d.snapshot.Load(), d.overlaps.Load()
		if previous != nil && previous.table == s.prefixes {
			continue
		}
		list, total := prefixmap.Overlaps(s.prefixes, s.names, maxOverlaps)
		d.overlaps.Store(&overlaps{s.prefixes, total, list})
		switch {
		case previous == nil && total == 0, previous != nil && previous.total == total:
		case total == 0:
			log.Info("Recovered: registered prefixes do not overlap")
		default:
			log.Warningf("Found %s registered by several nodes, or inside a prefix of another node, such as %s of %s",
				plural.Of(total, "prefix"), list[0].Prefix, strings.Join(list[0].Nodes, ", "))
		}
	}
}
