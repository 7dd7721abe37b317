//go:build linux

// Command reaction measures how long this program takes to react: from when a server or
// a node fails until an answer or a referral names another one, from when a server
// gets slower, and from when a node registers. It starts the program with its default
// times, and servers and nodes beside it, in a network namespace of its own, in which
// nftables makes machines silent. It needs root, iproute2 and nftables.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/bench/internal/plot"
)

type options struct {
	program string
	trials  int
	only    string
	svg     string
	stderr  io.Writer
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "reaction:", err)
		os.Exit(1)
	}
}

// inside is the environment variable of a process that is in the namespace.
const inside = "REACTION_NAMESPACE"

func run(args []string, stdout, stderr io.Writer) error {
	o := options{stderr: stderr}
	flags := flag.NewFlagSet("reaction", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.program, "program", "./coredns-dnslb", "the program")
	flags.IntVar(&o.trials, "trials", 100, "trials of each event, up to 200")
	flags.StringVar(&o.only, "only", "", "measure the events whose names begin with it")
	flags.StringVar(&o.svg, "svg", "", "draw a chart into this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.trials < 1 || o.trials > 200 {
		return fmt.Errorf("invalid -trials %d: expected 1 to 200", o.trials)
	}
	if os.Getenv(inside) == "" {
		return again(args, stdout, stderr)
	}
	for _, command := range []string{"ip link set lo up", "ip route add local 0.0.0.0/0 dev lo"} {
		if err := execute(command); err != nil {
			return err
		}
	}
	return o.measure(stdout)
}

// again runs this program in a network namespace. What it starts ends with it.
func again(args []string, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, args...) // #nosec G204 -- this program
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run in a network namespace: %w", err)
	}
	return nil
}

// execute runs a command of words without spaces.
func execute(command string) error {
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil { // #nosec G204 -- of this package
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

func (o *options) measure(stdout io.Writer) error {
	dir, err := os.MkdirTemp("", "reaction")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "time to react, s\ttrials\tleast\tp50\tp99\tmost")
	chart := plot.Bars{Title: "Time to react", Axis: fmt.Sprintf("seconds: least, median and most of %d trials", o.trials)}
	for i, e := range events {
		if !strings.HasPrefix(e.name, o.only) {
			continue
		}
		at := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		took, err := e.measure(o, at)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		slices.Sort(took)
		quantile := func(q float64) float64 { return took[int(q*float64(len(took)-1))].Seconds() }
		fmt.Fprintf(w, "%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\n", e.name, len(took), quantile(0), quantile(.5), quantile(.99), quantile(1))
		chart.Bars = append(chart.Bars, plot.Bar{Label: e.name, Low: quantile(0), Middle: quantile(.5), High: quantile(1)})
	}
	if err := w.Flush(); err != nil || o.svg == "" {
		return err
	}
	return os.WriteFile(o.svg, []byte(chart.SVG()), 0o644) // #nosec G306 -- it is to be published
}

func (o *options) progress(format string, args ...any) {
	fmt.Fprintf(o.stderr, "%s  %s\n", time.Now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}
