package fastpath

import (
	"bytes"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// batchSize is how many datagrams one system call receives or sends at most.
const batchSize = 64

// message is struct mmsghdr of the kernel.
type message struct {
	header unix.Msghdr
	size   uint32 // bytes received or sent
}

// reader is the goroutine of one socket, and its buffers: those of the datagrams of a
// batch, and those of the replies.
type reader struct {
	listener *listener
	fd       uintptr

	received, replies [batchSize]message
	buffers           [batchSize][maxQuery]byte
	outBuffers        [batchSize][MaxReply]byte
	vecs, outVecs     [batchSize]unix.Iovec
	peers             [batchSize]unix.RawSockaddrInet6
	controls          [batchSize][controlSize]byte

	query    Query
	answered []answered // of this batch, by zones with counts

	state   *state    // of the last batch
	first   int       // comparisons of this state that are due at once
	compare time.Time // of the next comparison
}

func newReader(l *listener, socket *os.File) *reader {
	r := &reader{listener: l, fd: socket.Fd(), answered: make([]answered, 0, batchSize)}
	for i := range batchSize {
		r.vecs[i].Base, r.outVecs[i].Base = &r.buffers[i][0], &r.outBuffers[i][0]
		r.vecs[i].SetLen(maxQuery)
		r.received[i].header.Iov, r.replies[i].header.Iov = &r.vecs[i], &r.outVecs[i]
		r.received[i].header.SetIovlen(1)
		r.replies[i].header.SetIovlen(1)
		r.received[i].header.Name = (*byte)(unsafe.Pointer(&r.peers[i])) // #nosec G103 -- for the kernel
		r.received[i].header.Control = &r.controls[i][0]
	}
	r.prepare(batchSize)
	return r
}

// prepare makes the first n messages ready to be received into.
func (r *reader) prepare(n int) {
	for i := range n {
		r.received[i].header.Namelen = unix.SizeofSockaddrInet6
		r.received[i].header.SetControllen(controlSize)
	}
}

// run answers until the listener stops and all that came is answered.
func (r *reader) run() {
	runtime.LockOSThread() // it blocks in the kernel
	var end time.Time      // zero: not yet
	for end.IsZero() || time.Now().Before(end) {
		flags := unix.MSG_WAITFORONE
		stopping := r.listener.stopping.Load()
		if stopping {
			flags = unix.MSG_DONTWAIT
			if end.IsZero() {
				end = time.Now().Add(graceTime)
			}
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, r.fd, uintptr(unsafe.Pointer(&r.received)), batchSize, uintptr(flags), 0, 0) // #nosec G103 G115 -- a system call
		switch {
		case errno == 0:
			r.serve(int(n)) // #nosec G115 -- up to batchSize
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !stopping: // readTimeout has passed
		case stopping:
			return
		default:
			time.Sleep(time.Millisecond) // do not turn in circles
		}
	}
}

// serve answers n datagrams, or hands them over.
func (r *reader) serve(n int) {
	l := r.listener
	l.mu.RLock()
	replies, handed := r.handle(l.state, n)
	l.mu.RUnlock()
	l.results.answered.Add(float64(replies))
	l.results.chain.Add(float64(handed))
	r.send(replies)
	r.prepare(n)
}

// handle writes the replies to n datagrams, and returns how many there are, and how
// many datagrams were handed over.
func (r *reader) handle(st *state, n int) (replies, handed int) {
	begin, test := time.Now(), r.listener.test.Load()
	if st != r.state {
		r.state, r.first = st, compareFirst
	}
	r.answered = r.answered[:0]
	for i := range n {
		in := &r.received[i]
		packet := r.buffers[i][:in.size]
		if test != nil && test.receive(packet) {
			continue
		}
		size, ok := r.answer(st, i, packet, r.outBuffers[replies][:], begin)
		switch {
		case !ok && r.handOver(st, i, packet, nil):
			handed++
		case ok && r.query.Trial:
			// The fast path could answer; the chain does.
			r.handOver(st, i, packet, bytes.Clone(r.outBuffers[replies][:size]))
		case ok:
			r.address(replies, i, size)
			replies++
		}
	}
	took := time.Since(begin)
	for i := range r.answered {
		r.answered[i].count(took)
	}
	return replies, handed
}

// answer writes the reply to datagram i into out.
func (r *reader) answer(st *state, i int, packet, out []byte, now time.Time) (n int, ok bool) {
	q := &r.query
	if r.received[i].header.Flags&unix.MSG_TRUNC != 0 || !q.Parse(packet) {
		return 0, false
	}
	z := st.site.zones.of(q)
	if z == nil {
		return 0, false
	}
	from := source(&r.peers[i]).Addr().Unmap()
	q.Server = st.site.server.Addr
	q.From, q.Trial = resolver.Normalize(from), r.first > 0 || !now.Before(r.compare)
	n, ok = r.listener.answer(st, z, q, out)
	switch {
	case ok && q.Trial:
		r.first, r.compare = max(0, r.first-1), now.Add(compareInterval)
	case ok && z.counts != nil:
		a := answered{counts: z.counts, qtype: q.Type, v6: from.Is6(), do: q.DO, rcode: out[3] & 0xf, received: len(packet), sent: n}
		if q.opt && !q.echoed { // else the plugin makes the OPT record, so that *prometheus* sees it
			a.sent -= optSize
		}
		r.answered = append(r.answered, a)
	}
	return n, ok
}

// address makes reply k go to where datagram i came from.
func (r *reader) address(k, i, size int) {
	r.outVecs[k].SetLen(size)
	in, out := &r.received[i].header, &r.replies[k].header
	out.Name, out.Namelen = in.Name, in.Namelen
	out.Control, out.Controllen = nil, 0
	if used := int(in.Controllen); used > 0 { // #nosec G115 -- up to controlSize
		releaseInterface(r.controls[i][:])
		out.Control, out.Controllen = in.Control, in.Controllen
	}
}

// handOver hands datagram i over to the chain, whose reply is compared with one if
// there is one. It reports false if the chain is too slow for that.
func (r *reader) handOver(st *state, i int, packet, reply []byte) bool {
	s := &session{packet: bytes.Clone(packet), route: route{peer: r.peers[i], control: r.controls[i]}}
	s.addr = *net.UDPAddrFromAddrPort(source(&r.peers[i]))
	if s.route.size = int(r.received[i].header.Controllen); s.route.size > 0 { // #nosec G115 -- up to controlSize
		releaseInterface(s.route.control[:])
	}
	if reply != nil {
		s.trial = &trial{listener: r.listener, state: st, packet: s.packet, from: r.query.From, basis: r.query.basis, reply: reply}
	}
	if !st.handover.pass(s) {
		r.listener.results.lost.Inc()
		return false
	}
	if reply != nil {
		r.listener.results.compared.Inc()
	}
	return true
}

// send sends n replies. One that cannot be sent is lost, as by an ordinary socket.
func (r *reader) send(n int) {
	for i := 0; i < n; {
		sent, errno := r.sendFrom(i, n, unix.MSG_DONTWAIT, unix.RawSyscall6)
		if errno == unix.EAGAIN { // the buffer of the socket is full
			sent, errno = r.sendFrom(i, n, 0, unix.Syscall6)
		}
		switch errno {
		case 0:
			i += sent
		case unix.EINTR:
		default:
			i++
			r.listener.results.lost.Inc()
		}
	}
}

// sendFrom sends replies i to n by one call. A batch takes so long that the scheduler
// of Go would take it for a call that waits, and wake another thread to look for
// other work: a sixth of the CPU time. So it is told only of those that may wait.
func (r *reader) sendFrom(i, n, flags int, call systemCall) (sent int, errno unix.Errno) {
	at := uintptr(unsafe.Pointer(&r.replies[i]))                                            // #nosec G103 -- of the reader, which lives
	done, _, errno := call(unix.SYS_SENDMMSG, r.fd, at, uintptr(n-i), uintptr(flags), 0, 0) // #nosec G115 -- small
	return int(done), errno                                                                 // #nosec G115 -- up to batchSize
}

// systemCall is unix.Syscall6 or unix.RawSyscall6.
type systemCall func(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, errno unix.Errno)
