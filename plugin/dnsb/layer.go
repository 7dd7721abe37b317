package dnsb

import "github.com/coredns-dnslb/coredns-dnslb/internal/nodemap"

// layer is where the node of a referral comes from.
type layer uint8

const (
	layerPin          layer = iota // a pin of the admin file
	layerOperator                  // an operator prefix
	layerRegistration              // a registered prefix
	layerSurvey                    // nodes measured the resolver site
	layerASN                       // a geo rule for the AS number of the resolver
	layerCountry                   // a geo rule for its country
	layerContinent                 // a geo rule for its continent
	layerDefault                   // the default nodes
	layerLocation                  // the nearest node by coordinates
	layerHash                      // rendezvous hashing over the nodes of the cut
	layerLast                      // no node of the cut answers
	layers
)

var layerNames = [layers]string{
	nodemap.LayerPin, nodemap.LayerOperator, nodemap.LayerRegistration, nodemap.LayerSurvey, "asn", "country", "continent", "default", "location", "hash", "last",
}

func (l layer) String() string { return layerNames[l] }
