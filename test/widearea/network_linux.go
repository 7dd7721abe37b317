package widearea

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mtu is the usual one at the edge of the Internet, so that large answers
	// are fragmented or truncated as there.
	mtu = 1500
	// burst is the most packets that the router takes from one host in a row.
	burst = 64
	// nice is the priority of the router, above the programs on the hosts: on a
	// busy machine its delays must stay exact.
	nice = -10
)

// Network is a Router with its hosts. The namespaces have no names, so they end
// with this process and the processes in them, also when this process is
// killed.
type Network struct {
	*Router

	home   int         // namespace of this process
	wake   int         // eventfd that ends the router's loop
	starts chan func() // run by the thread that starts all processes
	hosts  []*Host
	ended  sync.WaitGroup
}

// Host is one machine of a Network: a namespace with one device.
type Host struct {
	Name  string
	City  string
	Addrs []netip.Addr

	network   *Network
	namespace int
	tun       int // the router's end of the device
	port      *Port
}

// CheckSupport returns an error if this process cannot make a Network.
func CheckSupport() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("find TUN devices: %w", err)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("find iproute2: %w", err)
	}
	return nil
}

// New returns a Network without hosts. Add hosts, then call Start. Call Close
// in any case.
func New(m *Matrix) (*Network, error) {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(home)
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	n := &Network{Router: NewRouter(m, 1), home: home, wake: wake, starts: make(chan func())}
	// A process gets a signal when the thread that started it ends (prctl,
	// PR_SET_PDEATHSIG), so one thread that lives as long as the network starts
	// all of them.
	n.ended.Go(func() {
		runtime.LockOSThread()
		for start := range n.starts {
			start()
		}
	})
	return n, nil
}

// Host adds a host in a city of the matrix.
func (n *Network) Host(name, city string, addrs ...netip.Addr) (*Host, error) {
	h := &Host{Name: name, City: city, Addrs: addrs, network: n, namespace: -1, tun: -1}
	n.hosts = append(n.hosts, h)
	err := n.inNamespace(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		var err error
		if h.namespace, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open the namespace: %w", err)
		}
		if h.tun, err = openTUN("wan0"); err != nil {
			return err
		}
		return h.configure("wan0")
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	h.port = n.Attach(city, func(packet []byte) {
		_, _ = unix.Write(h.tun, packet) // a full queue loses packets, as in any network
	}, addrs...)
	return h, nil
}

// inNamespace runs f in a namespace: enter moves the calling thread there.
func (n *Network) inNamespace(enter, f func() error) error {
	result := make(chan error)
	go func() {
		// A thread that could not return is not unlocked, so it ends with this
		// goroutine.
		runtime.LockOSThread()
		err := enter()
		if err == nil {
			err = f()
		}
		if back := unix.Setns(n.home, unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// openTUN makes a TUN device in the namespace of the calling thread and returns
// the end of the router.
func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("make a TUN device: %w", err)
	}
	return fd, nil
}

// configure sets up the interfaces. It runs in the namespace of the host.
func (h *Host) configure(device string) error {
	batch := []string{"link set lo up", fmt.Sprintf("link set %s mtu %d up", device, mtu)}
	var four, six bool
	for _, addr := range h.Addrs {
		line := fmt.Sprintf("address add %s/%d dev %s", addr, addr.BitLen(), device)
		if addr.Is6() {
			line += " nodad" // otherwise not usable for a second
		}
		batch = append(batch, line)
		four, six = four || addr.Is4(), six || addr.Is6()
	}
	if four {
		batch = append(batch, "route add 0.0.0.0/0 dev "+device)
	}
	if six {
		batch = append(batch, "route add ::/0 dev "+device)
	}
	ip := exec.Command("ip", "-batch", "-")
	ip.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	if out, err := ip.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}

// Start starts the router. No host can be added after that.
func (n *Network) Start() { n.ended.Go(n.run) }

// run moves packets until Close writes to wake.
func (n *Network) run() {
	runtime.LockOSThread()
	// Both make the delays more exact; errors are ignored.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)

	poll := make([]unix.PollFd, 0, 1+len(n.hosts))
	poll = append(poll, unix.PollFd{Fd: int32(n.wake), Events: unix.POLLIN})
	for _, h := range n.hosts {
		poll = append(poll, unix.PollFd{Fd: int32(h.tun), Events: unix.POLLIN})
	}
	packet := make([]byte, 65536)
	for {
		var timeout *unix.Timespec
		if next, ok := n.Deliver(time.Now()); ok {
			wait := unix.NsecToTimespec(max(0, time.Until(next)).Nanoseconds())
			timeout = &wait
		}
		if _, err := unix.Ppoll(poll, timeout, nil); err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("poll the hosts: %v", err))
		}
		if poll[0].Revents != 0 {
			return
		}
		for i, h := range n.hosts {
			if poll[i+1].Revents == 0 {
				continue
			}
			for range burst {
				size, err := unix.Read(h.tun, packet)
				if err != nil {
					break
				}
				n.Receive(time.Now(), h.port, packet[:size])
			}
		}
	}
}

// Close ends the network. Processes that still run on its hosts get SIGTERM.
func (n *Network) Close() {
	close(n.starts)
	_, _ = unix.Write(n.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	n.ended.Wait()
	for _, h := range n.hosts {
		_ = unix.Close(h.tun)
		_ = unix.Close(h.namespace)
	}
	_ = unix.Close(n.wake)
	_ = unix.Close(n.home)
}

// Cut disconnects the host, or connects it again.
func (h *Host) Cut(cut bool) { h.port.Cut(cut) }

// Sent returns the number of packets from this host to another one, including
// lost packets.
func (h *Host) Sent(to *Host) uint64 { return h.port.Sent(to.port) }

// Addr returns the first address.
func (h *Host) Addr() netip.Addr { return h.Addrs[0] }

// Do runs f on the host: the sockets and commands that f opens itself, and not
// in another goroutine, are in the namespace of the host.
func (h *Host) Do(f func() error) error {
	return h.network.inNamespace(h.enter, f)
}

func (h *Host) enter() error {
	if err := unix.Setns(h.namespace, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace of %s: %w", h.Name, err)
	}
	return nil
}

// Run starts a process on the host in a new process group. The process gets
// SIGTERM when this process ends or the network is closed.
func (h *Host) Run(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	result := make(chan error)
	h.network.starts <- func() {
		err := h.enter()
		if err == nil {
			err = cmd.Start()
		}
		if back := unix.Setns(h.network.home, unix.CLONE_NEWNET); back != nil {
			panic(fmt.Sprintf("leave the namespace of %s: %v", h.Name, back))
		}
		result <- err
	}
	return <-result
}

// Dial connects from the host to an address.
func (h *Host) Dial(ctx context.Context, network string, to netip.AddrPort) (conn net.Conn, err error) {
	err = h.Do(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

// Listen listens on all addresses of the host.
func (h *Host) Listen(network string, port uint16) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen(network, fmt.Sprintf(":%d", port))
		return err
	})
	return l, err
}
