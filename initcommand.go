package main

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/scaffold"
)

const initUsage = `usage:
  init dnsb -zone ZONE -address ADDRESS [-name NAME] [-port PORT] DIRECTORY NODE...
  init node -zone ZONE -address ADDRESS -name NAME -dnsb ADDRESS[,ADDRESS...] [-near PREFIX[,PREFIX...]] [-rtt "METHOD..."] [-port PORT]
            DIRECTORY SERVER=ADDRESS...

writes a Corefile, keys and what else a DNS-B or a node needs into DIRECTORY, and says what to do next.
`

// runInit runs the command init and returns the exit status.
func runInit(args []string, stdout, stderr io.Writer) int {
	next, dir, err := initialize(args, stderr)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	fmt.Fprintf(stdout, "The configuration is in %s. Next:\n\n%s", dir, next)
	return 0
}

// initialize writes a configuration. It returns what is to be done next.
func initialize(args []string, stderr io.Writer) (next, dir string, err error) {
	if len(args) == 0 || args[0] != "dnsb" && args[0] != "node" {
		return "", "", fmt.Errorf("expected 'init dnsb' or 'init node'\n%s", initUsage)
	}
	var s scaffold.Server
	flags := flag.NewFlagSet("init", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, initUsage) }
	zone := flags.String("zone", "", "")
	name := flags.String("name", "", "")
	address := flags.String("address", "", "")
	dnsbs := flags.String("dnsb", "", "")
	near := flags.String("near", "", "")
	method := flags.String("rtt", "tcp 443", "")
	flags.IntVar(&s.Port, "port", 53, "")
	if err := flags.Parse(args[1:]); err != nil {
		return "", "", err
	}
	rest := flags.Args()
	if len(rest) < 2 {
		return "", "", fmt.Errorf("expected a directory, and the %s\n%s", map[string]string{"dnsb": "names of nodes", "node": "servers"}[args[0]], initUsage)
	}
	if s.Dir, err = filepath.Abs(rest[0]); err != nil {
		return "", "", err
	}
	rest = rest[1:]
	s.Zone = strings.ToLower(strings.TrimSuffix(*zone, "."))
	if _, ok := dns.IsDomainName(s.Zone); !ok || !strings.Contains(s.Zone, ".") || strings.ContainsAny(s.Zone, " \\\"{}#;") {
		return "", "", fmt.Errorf("invalid zone '%s' for -zone: expected that of DNS-B, such as gslb.example.org", *zone)
	}
	if s.Address, err = parseHost("-address", *address); err != nil {
		return "", "", err
	}
	if s.Port < 1 || s.Port > 65535 {
		return "", "", fmt.Errorf("invalid port %d for -port: expected 1 to 65535", s.Port)
	}
	if s.Name = strings.ToLower(*name); s.Name == "" && args[0] == "dnsb" {
		s.Name = "b1"
	}
	for _, label := range append([]string{s.Name}, names(args[0], rest)...) {
		if !registration.IsLabel(label) {
			return "", "", fmt.Errorf("invalid name '%s': expected one label of lower-case letters, digits and hyphens, such as par1", label)
		}
	}
	if args[0] == "dnsb" {
		next, err = scaffold.DNSB{Server: s, Nodes: rest}.Write()
		return next, s.Dir, err
	}

	n := scaffold.Node{Server: s, Method: *method}
	for text := range strings.SplitSeq(*dnsbs, ",") {
		addr, err := parseHost("-dnsb", text)
		if err != nil {
			return "", "", err
		}
		n.DNSBs = append(n.DNSBs, addr)
	}
	for text := range strings.SplitSeq(*near, ",") {
		if text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix != prefix.Masked() {
			return "", "", fmt.Errorf("invalid prefix '%s' for -near: expected an address prefix such as 192.0.2.0/24 or 2001:db8::/48", text)
		}
		n.Near = append(n.Near, prefix)
	}
	for _, text := range rest {
		server, addr, _ := strings.Cut(text, "=")
		parsed, err := parseHost(server, addr)
		if err != nil {
			return "", "", err
		}
		n.Servers = append(n.Servers, scaffold.Backend{Name: server, Address: parsed})
	}
	if strings.ContainsAny(n.Method, "\n{}#") {
		return "", "", fmt.Errorf("invalid method '%s' for -rtt: expected the words of an 'rtt' line, such as 'tcp 443'", n.Method)
	}
	next, err = n.Write()
	return next, s.Dir, err
}

// names returns the labels among the arguments after the directory.
func names(role string, args []string) []string {
	labels := make([]string, len(args))
	for i, arg := range args {
		labels[i] = arg
		if role == "node" {
			labels[i], _, _ = strings.Cut(arg, "=")
		}
	}
	return labels
}

// parseHost returns the address that an argument states.
func parseHost(argument, text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || !registration.IsNodeAddress(addr) {
		return netip.Addr{}, fmt.Errorf("invalid address '%s' for %s: expected the IP address of a host, such as 192.0.2.53 or 2001:db8::53", text, argument)
	}
	return addr, nil
}
