package corefile

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// Path returns the path of a file whose name may be relative to the 'root' of the
// server block.
func Path(c *caddy.Controller, name string) string {
	if root := dnsserver.GetConfig(c).Root; root != "" && !filepath.IsAbs(name) {
		return filepath.Join(root, name)
	}
	return name
}

// InputPath returns the path of a file, which is the one argument of the line. It
// is returned beside an error, too, if there is no such file.
func InputPath(c *caddy.Controller, l Line) (string, error) {
	if len(l.Args) != 1 {
		return "", ErrUsage
	}
	path := Path(c, l.Args[0])
	if err := inputfile.Check(path); err != nil {
		return path, fmt.Errorf("invalid file for '%s': %w", l.Property, err)
	}
	return path, nil
}

// OutputPath returns the path of a file to write: name, in a directory that must
// exist. What is at the path must be a regular file.
func OutputPath(c *caddy.Controller, property, name string) (string, error) {
	path := Path(c, name)
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	if info, err := inputfile.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("invalid file '%s' for '%s': no directory '%s', create it and make it writable for this server", name, property, dir)
	}
	if err := inputfile.Check(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("invalid file for '%s': %w", property, err)
	}
	return path, nil
}
