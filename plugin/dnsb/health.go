package dnsb

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// answer is what is known of a node by asking it.
type answer uint8

const (
	answersMaybe answer = iota // nobody asks it, or not yet
	answersYes
	answersNo
)

// prober asks nodes whether they answer.
type prober interface {
	// watch makes these the addresses that are asked.
	watch(addresses []watched)
	// answers returns what is known of an address, and why it does not answer.
	answers(w watched) (answer, string)
	// changed is written to when one of the answers changed.
	changed() <-chan struct{}
	close()
}

// watched is an address of a node, to be asked for the SOA of a cut.
type watched struct {
	node string
	addr netip.Addr
	cut  string
}

// watchedOf returns what to ask of a node: all its addresses, for one cut.
func watchedOf(n *registration.Registration) []watched {
	if len(n.Cuts) == 0 {
		return nil
	}
	out := make([]watched, len(n.Addresses))
	for i, addr := range n.Addresses {
		out[i] = watched{n.Node, addr, n.Cuts[0]}
	}
	return out
}

// answersOf sums up a node: it answers if one of its addresses does, and does
// not if none of them does.
func answersOf(p prober, n *registration.Registration) (sum answer, why string) {
	if p == nil {
		return answersMaybe, ""
	}
	sum = answersNo
	asked := watchedOf(n)
	if len(asked) == 0 {
		return answersMaybe, ""
	}
	for _, w := range asked {
		switch a, reason := p.answers(w); {
		case a == answersYes:
			return answersYes, ""
		case a == answersMaybe:
			sum = answersMaybe
		case why == "":
			why = reason
		}
	}
	return sum, why
}
