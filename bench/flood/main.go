// Command flood attacks a DNS-B or a DNS-LB on loopback and measures what the attack takes from
// resolvers and nodes: CPU time, memory, answers and registrations. It starts the
// program itself, and compares each attack with the seconds before it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const usage = `flood attacks a DNS-B or a DNS-LB on loopback, which it starts itself, and measures what resolvers and
nodes lose by that.

Usage:

	go build && go run ./bench/flood -program ./coredns-dnslb [-attack NAME,...] [-for 10s]

For each attack there are two lines, one without and one with it, of the same process:

	cpu          cores that the server takes
	memory       the most that it had resident, MB
	queries      that resolvers sent, 1,000 a second by UDP
	lost         share of them without a correct answer within a second
	p50, p99     time until an answer, ms
	updates      registrations that 10 other nodes sent, one a second each
	failed       share of them that was not accepted within two seconds
	wait         median time until one was accepted, ms
	longest      the longest such time, ms
	attack       messages of the attack, sent a second
	replies      of the server to them, a second
	factor       bytes of these replies for each byte of the messages

Attacks:

`

type options struct {
	program string
	attacks []attack
	length  time.Duration // of each measurement
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var (
		o     options
		names string
	)
	fs := flag.NewFlagSet("flood", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		for _, a := range attacks {
			fmt.Fprintf(stderr, "  %-20s %s\n", a.name, a.about)
		}
		fmt.Fprint(stderr, "\nFlags:\n\n")
		fs.PrintDefaults()
	}
	fs.StringVar(&o.program, "program", "./coredns-dnslb", "the program that is attacked")
	fs.StringVar(&names, "attack", "", "names of attacks, separated by commas; all without it")
	fs.DurationVar(&o.length, "for", 10*time.Second, "length of each measurement")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument '%s'", fs.Arg(0))
	}
	o.attacks = attacks
	if names != "" {
		o.attacks = nil
		for name := range strings.SplitSeq(names, ",") {
			i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
			if i < 0 {
				return o, fmt.Errorf("unknown attack '%s': see -help", name)
			}
			o.attacks = append(o.attacks, attacks[i])
		}
	}
	return o, nil
}

func run(args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if o.program, err = filepath.Abs(o.program); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%-20s %-4s %5s %7s %8s %6s %6s %6s %8s %7s %6s %8s %7s %8s %7s\n",
		"attack", "", "cpu", "memory", "queries", "lost", "p50", "p99", "updates", "failed", "wait", "longest", "attack", "replies", "factor")
	for _, a := range o.attacks {
		if err := measure(a, o, stdout); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	return nil
}

// measure starts a server and measures it twice, without and with an attack.
func measure(a attack, o options, stdout io.Writer) error {
	s, err := startServer(o.program, a)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, with := range []bool{false, true} {
		f, label := flood{}, "off"
		if with {
			label = "on"
			f.attack, f.all = &a, a.messages()
		}
		c := newClients(s)
		time.Sleep(o.length / 10) // what came before has ended
		u, err := s.observe(o.length, func(stop <-chan struct{}) {
			c.start(stop)
			f.start(s, stop)
		})
		if err != nil {
			return err
		}
		c.wait()
		f.wait()
		fmt.Fprintf(stdout, "%-20s %-4s %5.2f %7.0f %s %s\n", a.name, label, u.cores, float64(u.memory)/1e6, c, f.text(o.length))
	}
	return nil
}
