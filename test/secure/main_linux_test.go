package secure

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inside is an environment variable of the process in the namespace.
const inside = "COREDNS_DNSLB_SECURE"

// addresses are all on the loopback interface of the namespace, with the IPv6
// addresses of the same hosts.
var addresses = hostAddresses()

func hostAddresses() []string {
	addrs := []string{
		rootAddr, dnsbAddr, nodeAddr, plainAddr, unboundAddr, bindAddr, knotAddr, powerDNSAddr, bindSecondary, nsdSecondary, serverAddr,
		checkerHost.IPv4,
	}
	for _, h := range delegationHosts {
		addrs = append(addrs, h.IPv4)
	}
	return addrs
}

var binary string // path of the built program

// TestMain runs the tests again in a network namespace, in which port 53 is
// free.
func TestMain(m *testing.M) { os.Exit(enter(m)) }

func enter(m *testing.M) int {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		return m.Run() // all tests are skipped
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...) // #nosec G204 -- this test
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "Failed to start in a network namespace:", err)
			return 1
		}
		return cmd.ProcessState.ExitCode()
	}

	dir, err := os.MkdirTemp("", "coredns-dnslb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "coredns-dnslb")
	commands := [][]string{{"go", "build", "-o", binary, "../.."}, {"ip", "link", "set", "lo", "up"}}
	for _, addr := range addresses {
		commands = append(commands,
			[]string{"ip", "addr", "add", addr + "/32", "dev", "lo"},
			[]string{"ip", "addr", "add", toIPv6(addr) + "/128", "dev", "lo", "nodad"})
	}
	for _, h := range delegationHosts {
		commands = append(commands,
			[]string{"ip", "route", "replace", "local", h.IPv4, "dev", "lo", "table", "local", "src", checkerHost.IPv4},
			[]string{"ip", "route", "add", "local", h.IPv6, "dev", "lo", "table", "local", "src", checkerHost.IPv6},
			[]string{"ip", "route", "del", "local", h.IPv6, "dev", "lo", "table", "local", "proto", "kernel"}) // of that address itself
	}
	for _, c := range commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil { // #nosec G204 -- those above
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", strings.Join(c, " "), err, out)
			return 1
		}
	}
	return m.Run()
}

// needs skips the test if it does not run as root or a program is missing; in
// CI the test fails.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if os.Getenv(inside) == "" {
		skip("A network namespace needs root and the program ip (iproute2)")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			skip("%s is not installed: test/README.md names the packages", p)
		}
	}
}
