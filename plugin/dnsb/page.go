package dnsb

import (
	"embed"
	"html/template"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
)

//go:embed page.html
var pageFiles embed.FS

// look is how the zone looks in the status page.
var look = status.NewLook(pageFiles, template.FuncMap{"nodeBadge": nodeBadge})

// badgeKinds are those of the states of nodes and candidates.
var badgeKinds = map[string]string{
	string(nodeLive): "good", string(nodeStale): "warn", string(nodeDead): "bad", string(nodeDrained): "idle",
	stateDenied: "idle", stateAbsent: "bad", stateOther: "idle",
}

// nodeBadge returns the state of a node.
func nodeBadge(state string) (template.HTML, error) { return status.Badge(badgeKinds[state], state) }
