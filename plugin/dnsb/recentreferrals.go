package dnsb

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// referralSample is how often the counters of referrals are read, and
	// maxReferralSamples how many readings are remembered: 5 minutes. For each
	// node that was named a reading takes some 150 bytes. Queries pay nothing: the
	// counters are those of Prometheus.
	referralSample     = time.Minute
	maxReferralSamples = 5
)

// recentReferrals tells the referrals of the last minutes. The zero value is ready.
type recentReferrals struct {
	mu      sync.Mutex
	samples []referralCounts // the oldest first
}

// referralCounts are the counters of referrals at one moment, by node.
type referralCounts struct {
	at    time.Time
	nodes map[string]layerCounts // those that were named
}

type layerCounts [layers]uint64

// readReferrals reads the counters of a zone, also those of nodes that are gone: when
// one comes back, its counters go on.
func readReferrals(zone string) referralCounts {
	counts := referralCounts{time.Now(), make(map[string]layerCounts)}
	metrics := make(chan prometheus.Metric, 256)
	go func() { defer close(metrics); referralCount.Collect(metrics) }()
	for metric := range metrics {
		var m dto.Metric
		if metric.Write(&m) != nil || m.GetCounter().GetValue() == 0 {
			continue
		}
		label := make(map[string]string, len(m.Label))
		for _, pair := range m.Label {
			label[pair.GetName()] = pair.GetValue()
		}
		if l := slices.Index(layerNames[:], label["layer"]); l >= 0 && label["zone"] == zone {
			ofNode := counts.nodes[label["node"]]
			ofNode[l] = uint64(m.GetCounter().GetValue())
			counts.nodes[label["node"]] = ofNode
		}
	}
	return counts
}

// sample remembers the counters of now.
func (r *recentReferrals) sample(zone string) {
	counts := readReferrals(zone)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, counts)
	r.samples = slices.Delete(r.samples, 0, max(0, len(r.samples)-maxReferralSamples))
}

// since returns the referrals since the oldest sample, and when that was.
func (r *recentReferrals) since(zone string) referralCounts {
	counts := readReferrals(zone)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) == 0 {
		return referralCounts{at: counts.at}
	}
	oldest := r.samples[0]
	for node, now := range counts.nodes {
		for l, before := range oldest.nodes[node] {
			now[l] -= before
		}
		counts.nodes[node] = now
	}
	counts.at = oldest.at
	return counts
}

// countReferrals takes samples until ctx ends. Of the instances of a zone the
// youngest one does.
func (d *DNSB) countReferrals(ctx context.Context) {
	ticker := time.NewTicker(referralSample)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if d.zone.youngest.Load() == d {
				d.zone.referrals.sample(d.conf.zone)
			}
		}
	}
}
