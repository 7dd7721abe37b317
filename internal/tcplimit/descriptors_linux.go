package tcplimit

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors are the open descriptors of this process. It needs two of its own,
// and can do its work when no more are to be had.
type descriptors struct {
	dir *os.File // /proc/self/fd
	// slot refers to the same socket as the descriptor that is examined. What is
	// done to it hits that socket, even if the descriptor is closed and its
	// number used again meanwhile.
	slot int
}

func openDescriptors() (*descriptors, error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	slot, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		dir.Close()
		return nil, os.NewSyscallError("dup", err)
	}
	return &descriptors{dir, slot}, nil
}

func (d *descriptors) close() {
	unix.Close(d.slot)
	d.dir.Close()
}

// usage is what the descriptors of the process are in use for.
type usage struct {
	total     int
	others    int // neither connections nor what remains of them
	listeners []socket
	conns     []socket // that listeners accepted
}

// usage examines all descriptors. Connections are those to ports.
func (d *descriptors) usage(at ports) (usage, error) {
	all, err := d.list()
	if err != nil {
		return usage{}, err
	}
	u := usage{total: len(all)}
	for _, n := range all {
		if n == d.slot || !at[localPort(n)] {
			u.others++
			continue
		}
		s, ok := d.examine(n)
		switch {
		case !ok:
			u.others++ // DNS over UDP
		case s.state == stateListen:
			u.others++
			u.listeners = append(u.listeners, s)
		case s.state == stateEstablished || s.state == stateCloseWait:
			u.conns = append(u.conns, s)
		}
	}
	d.release()
	// A connection that this process opened can have the same port, though not
	// the same address.
	u.conns = slices.DeleteFunc(u.conns, func(c socket) bool {
		return !slices.ContainsFunc(u.listeners, func(l socket) bool {
			return l.local.Port() == c.local.Port() && (l.local.Addr().IsUnspecified() || l.local.Addr() == c.local.Addr())
		})
	})
	return u, nil
}

// list returns all descriptors.
func (d *descriptors) list() ([]int, error) {
	if _, err := d.dir.Seek(0, 0); err != nil {
		return nil, err
	}
	names, err := d.dir.Readdirnames(0)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// lowestFree returns the number that the next descriptor will have: all lower
// ones are in use. If there can be no more, full is true.
func (d *descriptors) lowestFree() (n int, full bool) {
	n, err := unix.FcntlInt(d.dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, true
	}
	unix.Close(n)
	return n, false
}

// States of TCP sockets in Linux.
const (
	stateEstablished = 1
	stateCloseWait   = 8 // the client has closed it
	stateListen      = 10
)

// localPort returns the port of a socket, 0 if the descriptor is none. It is
// cheap, and tells which descriptors are worth a closer look.
func localPort(descriptor int) uint16 {
	address, err := unix.Getsockname(descriptor)
	if err != nil {
		return 0
	}
	return addrPort(address).Port()
}

// examine returns the TCP socket that a descriptor stands for.
func (d *descriptors) examine(descriptor int) (s socket, ok bool) {
	if err := unix.Dup3(descriptor, d.slot, unix.O_CLOEXEC); err != nil {
		return s, false
	}
	info, err := unix.GetsockoptTCPInfo(d.slot, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return s, false
	}
	s = socket{
		descriptor: descriptor,
		state:      info.State,
		answered:   info.Data_segs_out > 0,
		idle:       time.Duration(info.Last_data_sent) * time.Millisecond,
	}
	address, err := unix.Getsockname(d.slot)
	if err != nil {
		return s, false
	}
	s.local = addrPort(address)
	if s.state == stateListen {
		return s, true
	}
	if address, err = unix.Getpeername(d.slot); err != nil {
		return s, false
	}
	s.peer = addrPort(address)
	return s, true
}

// shutdown ends connections and returns how many it ended.
func (d *descriptors) shutdown(conns []socket) int {
	n := 0
	for _, c := range conns {
		if d.again(c) && unix.Shutdown(d.slot, unix.SHUT_RDWR) == nil {
			n++
		}
	}
	d.release()
	return n
}

// dropAll is a socket filter (BPF).
var dropAll = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}

// refuse lets listeners drop all packets, or ends that, and reports whether it
// could. Clients send them again after a second. Connections that exist are not
// affected.
func (d *descriptors) refuse(listeners []socket, on bool) bool {
	done := true
	for _, l := range listeners {
		if !d.again(l) {
			continue
		}
		if on {
			done = unix.SetsockoptSockFprog(d.slot, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &dropAll}) == nil && done
		} else {
			_ = unix.SetsockoptInt(d.slot, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // an error: it has none
		}
	}
	d.release()
	return done
}

// again reports whether the descriptor of a socket still stands for it, and
// examines it.
func (d *descriptors) again(s socket) bool {
	now, ok := d.examine(s.descriptor)
	return ok && now.local == s.local && now.peer == s.peer
}

// release lets go of the socket that was examined last.
func (d *descriptors) release() { _ = unix.Dup3(int(d.dir.Fd()), d.slot, unix.O_CLOEXEC) }

// addrPort returns the zero value for other addresses than those of IP.
func addrPort(address unix.Sockaddr) netip.AddrPort {
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) // #nosec G115 -- ports have 16 bits
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)) // #nosec G115 -- ports have 16 bits
	}
	return netip.AddrPort{}
}
