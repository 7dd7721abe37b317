package fastpath

import (
	"context"
	"net"
	"os"
	"time"
	"unsafe"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/formerr"
)

// maxWaiting is how many datagrams wait for the server of CoreDNS at most; more are
// lost, as in the buffer of a socket.
const maxWaiting = 1024

// handover passes datagrams to a server of CoreDNS as if that had read them from its
// own socket. It is the net.PacketConn of a dns.Server.
type handover struct {
	queue  chan *session
	local  net.Addr
	socket *os.File      // that replies are sent by
	done   chan struct{} // closed when all queries have been answered
}

// session is a datagram that is handed over. Its address is that of the sender.
type session struct {
	addr   net.UDPAddr // first, for sessionOf
	packet []byte
	route  route
	trial  *trial // nil: the reply is not compared
}

var _ net.PacketConn = (*handover)(nil)

func newHandover(s *dnsserver.Server, local net.Addr, socket *os.File) *handover {
	h := &handover{queue: make(chan *session, maxWaiting), local: local, socket: socket, done: make(chan struct{})}
	server := &dns.Server{
		PacketConn: h, Net: "udp", TsigSecret: s.TsigSecret, MsgAcceptFunc: acceptMessage, DecorateWriter: formerr.Writer,
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			ctx := context.WithValue(context.Background(), dnsserver.Key{}, s)
			s.ServeDNS(context.WithValue(ctx, dnsserver.LoopKey{}, 0), w, r)
		}),
	}
	go func() {
		defer close(h.done)
		_ = server.ActivateAndServe() // it returns the error of ReadFrom, once all is answered
	}()
	return h
}

// acceptMessage accepts what CoreDNS does. Whether a server block takes UPDATEs is
// decided in ServeDNS.
func acceptMessage(h dns.Header) dns.MsgAcceptAction {
	action := dns.DefaultMsgAcceptFunc(h)
	if opcode := int(h.Bits>>11) & 0xf; action == dns.MsgRejectNotImplemented && opcode == dns.OpcodeUpdate && h.Qdcount == 1 {
		return dns.MsgAccept
	}
	return action
}

// pass hands a datagram over, and reports whether there was room for it.
func (h *handover) pass(s *session) bool {
	select {
	case h.queue <- s:
		return true
	default:
		return false
	}
}

// close ends the handover when all that was passed is answered. Nothing must be
// passed any more.
func (h *handover) close() { close(h.queue) }

// ReadFrom implements the net.PacketConn interface.
func (h *handover) ReadFrom(b []byte) (int, net.Addr, error) {
	s, ok := <-h.queue
	if !ok {
		return 0, nil, net.ErrClosed
	}
	return copy(b, s.packet), &s.addr, nil
}

// WriteTo implements the net.PacketConn interface.
func (h *handover) WriteTo(b []byte, addr net.Addr) (int, error) {
	s := sessionOf(addr)
	if s.trial != nil {
		s.trial.compare(b)
	}
	if err := send(h.socket, &s.route, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// LocalAddr implements the net.PacketConn interface.
func (h *handover) LocalAddr() net.Addr { return h.local }

// Close and the deadlines implement the net.PacketConn interface. The server of miekg/dns
// needs none of them: it ends with the error of ReadFrom.
func (h *handover) Close() error                     { return nil }
func (h *handover) SetDeadline(time.Time) error      { return nil }
func (h *handover) SetReadDeadline(time.Time) error  { return nil }
func (h *handover) SetWriteDeadline(time.Time) error { return nil }

// sessionOf returns the session with an address that ReadFrom returned.
func sessionOf(addr net.Addr) *session {
	return (*session)(unsafe.Pointer(addr.(*net.UDPAddr))) // #nosec G103 -- its first field
}
