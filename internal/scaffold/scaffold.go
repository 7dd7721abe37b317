// Package scaffold writes the first configuration of a DNS-B or of a node. It
// overwrites nothing.
package scaffold

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/coredns-dnslb/coredns-dnslb/internal/operator"
)

// units is the directory whose subdirectories the systemd unit takes, and state the
// one for what their servers store.
const (
	units = "/etc/coredns-dnslb"
	state = "/var/lib/coredns-dnslb"
)

// secretSize is the length of a key in bytes, that of the hash.
const secretSize = 32

//go:embed templates
var templates embed.FS

// Server is what a DNS-B and a node have in common.
type Server struct {
	Dir     string     // for the files; it need not exist
	Zone    string     // of DNS-B, without the dot at the end
	Name    string     // a label
	Address netip.Addr // where resolvers find it
	Port    int        // of all servers
}

// DNSB is a DNS-B.
type DNSB struct {
	Server
	Nodes []string
}

// Node is a node.
type Node struct {
	Server
	DNSBs   []netip.Addr
	Near    []netip.Prefix // of resolvers; by default the network of its address
	Method  string         // of the 'rtt' line of latencyprobe
	Servers []Backend
}

// Registers returns the DNS-Bs as in a 'register' line.
func (n Node) Registers() []string {
	var all []string
	for _, addr := range n.DNSBs {
		if n.Port == 53 {
			all = append(all, addr.String())
		} else {
			all = append(all, netip.AddrPortFrom(addr, uint16(n.Port)).String()) // #nosec G115 -- a port
		}
	}
	return all
}

// Backend is a server of the service.
type Backend struct {
	Name    string
	Address netip.Addr
}

// KeyPort returns the port as it is in the key of a server block.
func (s Server) KeyPort() string {
	if s.Port == 53 {
		return ""
	}
	return fmt.Sprintf(":%d", s.Port)
}

// Self returns the prefix of the address alone.
func (s Server) Self() netip.Prefix { return netip.PrefixFrom(s.Address, s.Address.BitLen()) }

// Bind reports whether this machine has the address. It does not behind a
// translation of addresses.
func (s Server) Bind() bool {
	if s.Address.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(s.Address.AsSlice())
	})
}

// unit returns the name of the systemd unit that runs the server, "" if there is none.
func (s Server) unit() string {
	if dir, name := filepath.Split(s.Dir); filepath.Clean(dir) == units {
		return "coredns-dnslb@" + name
	}
	return ""
}

// State returns the directory for what the server stores, as a prefix of a path.
func (s Server) State() string {
	if s.unit() != "" {
		return filepath.Join(state, filepath.Base(s.Dir)) + "/"
	}
	return ""
}

// file is a file to be written.
type file struct {
	name    string
	mode    fs.FileMode
	content string
}

// secret marks a file that only the server may read.
const secret fs.FileMode = 0o600

// Write writes the files of a DNS-B, and returns what is to be done next. The keys
// of the nodes are beside it, to be moved to them.
func (b DNSB) Write() (next string, err error) {
	text, err := render("dnsb.corefile", b)
	if err != nil {
		return "", err
	}
	records := b.records()
	files := []file{{"Corefile", 0o644, text}, {"dns-a.zone", 0o644, records}}
	var keys strings.Builder
	for _, node := range b.Nodes {
		key := newKey(node + ".key." + b.Zone)
		keys.WriteString(key)
		files = append(files, file{node + ".key", secret, key})
	}
	files = append(files, file{"keys", secret, keys.String()}, file{"views.key", secret, newKey("views.key." + b.Zone)})
	if err := b.write(files); err != nil {
		return "", err
	}
	var w strings.Builder
	fmt.Fprintf(&w, "1. Add these records to the zone above %s at DNS-A (they are in %s, too):\n\n%s\n", b.Zone, filepath.Join(b.Dir, "dns-a.zone"), records)
	fmt.Fprintf(&w, "   and for each name that is to be steered an alias, such as www CNAME www.svc.%s.\n\n", b.Zone)
	fmt.Fprintf(&w, "2. Start: %s\n\n", b.start(""))
	fmt.Fprintf(&w, "3. At each node make a directory, move its key and a copy of views.key there, and run init:\n\n")
	for _, node := range b.Nodes {
		fmt.Fprintf(&w, "     %s\n", filepath.Join(b.Dir, node+".key"))
	}
	fmt.Fprintf(&w, "     %s\n\n", filepath.Join(b.Dir, "views.key"))
	port := ""
	if b.Port != 53 {
		port = fmt.Sprintf(" -port %d", b.Port)
	}
	fmt.Fprintf(&w, "     coredns-dnslb init node%s -zone %s -name %s -address ADDRESS -dnsb %s DIRECTORY SERVER=ADDRESS...\n", port, b.Zone, b.Nodes[0], b.Address)
	return w.String(), nil
}

// records returns the two records of the delegation.
func (b DNSB) records() string {
	rrtype := "A"
	if b.Address.Is6() {
		rrtype = "AAAA"
	}
	name := b.Name + "." + b.Zone + "."
	return fmt.Sprintf("%s. 3600 IN NS %s\n%s 3600 IN %s %s\n", b.Zone, name, name, rrtype, b.Address)
}

// Write writes the files of a node, and returns what is to be done next. Its keys
// are in the directory already.
func (n Node) Write() (next string, err error) {
	for _, key := range []string{n.Name + ".key", "views.key"} {
		path := filepath.Join(n.Dir, key)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: 'init dnsb' has made this key, move it from DNS-B to %s", err, n.Dir)
		}
	}
	text, err := render("node.corefile", n)
	if err != nil {
		return "", err
	}
	near := n.Near
	if len(near) == 0 {
		bits := 24
		if n.Address.Is6() {
			bits = 48
		}
		prefix, err := n.Address.Prefix(bits)
		if err != nil {
			return "", err
		}
		near = []netip.Prefix{prefix}
	}
	var prefixes, services strings.Builder
	prefixes.WriteString("# Prefixes of the resolvers near to this node, one a line.\n")
	for _, p := range near {
		fmt.Fprintln(&prefixes, p)
	}
	services.WriteString("# Servers and services, the same file at all nodes.\n")
	names := make([]string, 0, len(n.Servers))
	for _, s := range n.Servers {
		fmt.Fprintf(&services, "server  %s %s\n", s.Name, s.Address)
		names = append(names, s.Name)
	}
	fmt.Fprintf(&services, "service www.svc.%s %s\n", n.Zone, strings.Join(names, " "))
	environment := fmt.Sprintf("NODE=%s\nADDRESS=%s\n", n.Name, n.Address)
	files := []file{{"Corefile", 0o644, text}, {"environment", 0o644, environment}, {"near", 0o644, prefixes.String()}, {"services", 0o644, services.String()}}
	if err := n.write(files); err != nil {
		return "", err
	}
	var w strings.Builder
	fmt.Fprintf(&w, "1. Write the prefixes of the resolvers near to this node into %s.\n\n2. Start: %s\n\n", filepath.Join(n.Dir, "near"), n.start("env $(cat environment) "))
	fmt.Fprintf(&w, "3. At DNS-B, ask whether the node has registered: coredns-dnslb nodes @%s %s\n", netip.AddrPortFrom(n.DNSBs[0], uint16(n.Port)), n.Zone) // #nosec G115 -- a port
	return w.String(), nil
}

func render(name string, data any) (string, error) {
	t, err := template.ParseFS(templates, "templates/"+name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	err = t.Execute(&text, data)
	return text.String(), err
}

// start returns the command that starts the server, with the words before the
// program where no unit sets its environment.
func (s Server) start(environment string) string {
	if unit := s.unit(); unit != "" {
		return "systemctl enable --now " + unit
	}
	return fmt.Sprintf("cd %s && %scoredns-dnslb -conf Corefile", s.Dir, environment)
}

// newKey returns a key as tsig-keygen writes it.
func newKey(name string) string {
	secret := make([]byte, secretSize)
	_, _ = rand.Read(secret) // which never fails
	return fmt.Sprintf("key %q {\n\talgorithm hmac-sha256;\n\tsecret %q;\n};\n", name, base64.StdEncoding.EncodeToString(secret))
}

// write writes all files, or none if one exists. They get the owner of the
// directory, which a server that is not root must be able to read.
func (s Server) write(files []file) (err error) {
	for _, f := range files {
		path := filepath.Join(s.Dir, f.name)
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists, and nothing is overwritten: choose another directory, or move it away", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	owner, err := os.Stat(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.Dir, 0o750); err != nil {
			return err
		}
		if owner, err = os.Stat(filepath.Dir(s.Dir)); err == nil {
			operator.KeepOwner(s.Dir, owner)
		}
	}
	if err != nil {
		return err
	}
	var written []string
	defer func() {
		if err != nil {
			for _, path := range written {
				_ = os.Remove(path)
			}
		}
	}()
	for _, f := range files {
		path := filepath.Join(s.Dir, f.name)
		w, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.mode) // #nosec G304 -- named by the operator
		if err != nil {
			return err
		}
		written = append(written, path)
		_, err = w.WriteString(f.content)
		if err = errors.Join(err, w.Chmod(f.mode), w.Close()); err != nil {
			return err
		}
		operator.KeepOwner(path, owner)
	}
	return nil
}
