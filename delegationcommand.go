package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/delegation"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/operator"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
)

const delegationUsage = `usage:
  check-delegation [-json] [-from ADDRESS] ZONE [NAME] [@DNSA...]

checks the way of a resolver from DNS-A by the DNS-Bs of ZONE to the nodes. NAME is a name of a service, or an alias of it at DNS-A.
ADDRESS is that of the resolver. @DNSA is @ADDRESS or @ADDRESS:PORT of a server of DNS-A, without it the resolver of this system finds them.
Exit status: 0 no problems, 1 problems, 2 wrong arguments.
`

// delegationVersion grows when a field of the output of -json goes away or changes its
// meaning.
const delegationVersion = 1

// resolvConf names the resolvers of this system.
const resolvConf = "/etc/resolv.conf"

// runCheckDelegation runs the command check-delegation and returns the exit status.
func runCheckDelegation(args []string, stdout, stderr io.Writer) int {
	options, asJSON, err := delegationOptions(args)
	if err != nil {
		fmt.Fprintf(stderr, "%v\n", err)
		return 2
	}
	checks := delegation.Run(context.Background(), options)
	count := make(map[delegation.Result]int)
	for _, c := range checks {
		count[c.Result]++
	}
	problems := count[delegation.Problem]
	if asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(struct {
			Version   int                `json:"version"`
			Zone      string             `json:"zone"`
			Problems  int                `json:"problems"`
			Unchecked int                `json:"unchecked"`
			Checks    []delegation.Check `json:"checks"`
		}{delegationVersion, dns.CanonicalName(options.Zone), problems, count[delegation.Unchecked], checks})
		if err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
	} else {
		for _, c := range checks {
			fmt.Fprintf(stdout, "%-12s %s\n", c.Result, inputfile.Printable(c.String()))
		}
		closing := plural.Of(len(checks), "check") + ", no problems"
		if problems > 0 {
			closing = plural.Of(len(checks), "check") + ", " + plural.Of(problems, "problem")
		}
		if n := count[delegation.Unchecked]; n > 0 {
			closing += fmt.Sprintf(", %d not checked", n)
		}
		fmt.Fprintln(stdout, closing)
	}
	if problems > 0 {
		return 1
	}
	return 0
}

// delegationOptions parses the arguments of check-delegation.
func delegationOptions(args []string) (options delegation.Options, asJSON bool, err error) {
	flags := flag.NewFlagSet("check-delegation", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&asJSON, "json", false, "")
	from := flags.String("from", "", "")
	if err := flags.Parse(args); err != nil {
		return options, false, fmt.Errorf("%w\n%s", err, delegationUsage)
	}
	var names []string
	for _, arg := range flags.Args() {
		if text, ok := strings.CutPrefix(arg, "@"); ok {
			s, err := operator.ParseServer(text)
			if err != nil {
				return options, false, err
			}
			if len(options.Parents) > 0 && options.Parents[0].Port() != s.Address.Port() {
				return options, false, fmt.Errorf("'@%s' has another port than '@%s': all servers are asked at one port", text, options.Parents[0])
			}
			options.Parents = append(options.Parents, s.Address)
			continue
		}
		if _, ok := dns.IsDomainName(arg); !ok || strings.HasPrefix(arg, "-") {
			return options, false, fmt.Errorf("invalid name '%s': expected that of a zone or service, such as gslb.example.org\n%s", arg, delegationUsage)
		}
		names = append(names, arg)
	}
	if len(names) == 0 || len(names) > 2 {
		return options, false, fmt.Errorf("expected a zone, such as gslb.example.org, and at most one name below it\n%s", delegationUsage)
	}
	options.Zone = names[0]
	if len(names) == 2 {
		options.Name = names[1]
	}
	if dns.CanonicalName(options.Zone) == "." {
		return options, false, fmt.Errorf("invalid zone '%s': nothing delegates the root", options.Zone)
	}
	if *from != "" {
		if options.From, err = netip.ParseAddr(*from); err != nil {
			return options, false, fmt.Errorf("invalid address '%s' for -from: expected that of a resolver, such as 192.0.2.1", *from)
		}
	}
	if conf, err := dns.ClientConfigFromFile(resolvConf); err == nil {
		for _, text := range conf.Servers {
			if addr, err := netip.ParseAddrPort(net.JoinHostPort(text, conf.Port)); err == nil {
				options.Resolvers = append(options.Resolvers, addr)
			}
		}
	}
	return options, asJSON, nil
}
