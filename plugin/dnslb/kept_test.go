package dnslb

import (
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

// TestKeptKey checks that blocks of one Corefile that rank the same zone do so
// each for itself, and that a node is one wherever it listens.
func TestKeptKey(t *testing.T) {
	listeners := []dnsserver.Config{
		{Transport: "dns", Port: "53"},
		{Transport: "https", Port: "443"},
		{Transport: "quic", Port: "443"},
		{Transport: "dns", Port: "53", ListenHosts: []string{"192.0.2.1"}},
		{Transport: "dns", Port: "53", ViewName: "inside"},
	}
	keys, nodes := make(map[string]bool), make(map[string]bool)
	for _, cfg := range listeners {
		keys[keptKey(config{Zones: []string{testZone}}, &cfg)] = true
		nodes[keptKey(nodeConfig(t, "203.0.113.1:53"), &cfg)] = true
	}
	if len(keys) != len(listeners) || len(nodes) != 1 {
		t.Errorf("Expected %d keys and one for a node, got %v and %v", len(listeners), keys, nodes)
	}
}
