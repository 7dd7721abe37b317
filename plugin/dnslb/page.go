package dnslb

import (
	"embed"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status"
)

//go:embed page.html
var pageFiles embed.FS

// look is how the server block looks in the status page.
var look = status.NewLook(pageFiles, nil)
