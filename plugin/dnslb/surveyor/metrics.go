package surveyor

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

var probes = promauto.NewCounterVec(prometheus.CounterOpts{
	Namespace: plugin.Namespace,
	Subsystem: pluginName,
	Name:      "survey_probes_total",
	Help:      "Counter of probes for the survey by method and result: answer, none, or local (this machine could not send it).",
}, []string{"node", "method", "result"})

// Values of the label "result".
const (
	answered = "answer"
	silent   = "none"
	local    = "local"
)

// startCounters makes the counters of a node begin with 0, so that the first probe of
// each result is an increase.
func startCounters(node string) {
	for _, method := range append(surveymsg.Methods[:], surveymsg.Router) {
		for _, result := range []string{answered, silent, local} {
			probes.WithLabelValues(node, method.String(), result)
		}
	}
}

// count counts a probe. To a router on the way, only that is an answer.
func count(node string, method surveymsg.Method, err error) {
	result := answered
	switch {
	case err == nil:
	case prober.LocalReasonOf(err) != "":
		result = local
	default:
		result = silent
	}
	probes.WithLabelValues(node, method.String(), result).Inc()
}
