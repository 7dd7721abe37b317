// Package formerr gives replies over UDP to queries that cannot be read the OPT
// record that they lack (RFC 6891, section 7).
//
// Package dns answers a message that it cannot unpack FORMERR by itself, without an
// OPT record: it unpacks options with the message, and refuses it for a client subnet
// of another family, for one. No plugin sees such a message. But package dns shows it
// to a function (dns.MsgInvalidFunc), and then, in the same goroutine, writes the
// reply, which CoreDNS lets a plugin change if it goes by UDP. The two are matched by
// what the reply repeats of the query.
package formerr

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"
)

// Enable completes the replies of the server block of c over UDP. It is to be called
// in a setup function.
func Enable(c *caddy.Controller) {
	cfg := dnsserver.GetConfig(c)
	previous := cfg.UDPDecorateWriterFunc
	cfg.UDPDecorateWriterFunc = func(s *dnsserver.Server) dns.DecorateWriter {
		if previous == nil {
			return Writer
		}
		inner := previous(s)
		if inner == nil {
			return Writer
		}
		return func(w dns.Writer) dns.Writer { return Writer(inner(w)) }
	}
}

// Writer is a dns.DecorateWriter that completes replies.
func Writer(w dns.Writer) dns.Writer { return writer{w} }

type writer struct{ dns.Writer }

// Write implements the dns.Writer interface.
func (w writer) Write(reply []byte) (int, error) { return w.Writer.Write(complete(reply)) }

// Install has package dns show the messages that it cannot read. It is to be called
// before any server starts.
var Install = sync.OnceFunc(func() {
	previous := dns.DefaultMsgInvalidFunc
	dns.DefaultMsgInvalidFunc = func(message []byte, err error) {
		note(message)
		previous(message, err)
	}
})

// unread are queries with an OPT record that package dns could not read and is about
// to answer, by a hash of what the reply repeats. Those that come over TCP stay,
// until others have the same hash.
var unread [256]atomic.Pointer[unreadQuery]

type unreadQuery struct {
	id    [2]byte
	query query
}

var seed = maphash.MakeSeed()

func slot(id, question []byte) *atomic.Pointer[unreadQuery] {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.Write(id)
	_, _ = h.Write(question)
	return &unread[h.Sum64()%uint64(len(unread))]
}

// note notes a message that package dns could not read.
func note(message []byte) {
	q, ok := parse(message)
	if !ok || !q.edns {
		return
	}
	q.question = bytes.Clone(q.question) // package dns uses the buffer again
	u := &unreadQuery{id: [2]byte(message), query: q}
	slot(u.id[:], q.question).Store(u)
}

// complete returns a reply with an OPT record if it is one of package dns to a query
// that has one.
func complete(reply []byte) []byte {
	if len(reply) < headerSize || reply[3]&rcodes != dns.RcodeFormatError || count(reply, 4) != 1 ||
		binary.BigEndian.Uint32(reply[6:]) != 0 || count(reply, 10) != 0 {
		return reply
	}
	s := slot(reply[:2], reply[headerSize:])
	u := s.Load()
	if u == nil || !bytes.Equal(u.id[:], reply[:2]) || !bytes.Equal(u.query.question, reply[headerSize:]) || !s.CompareAndSwap(u, nil) {
		return reply
	}
	completed := u.query.appendOPT(bytes.Clone(reply))
	completed[11] = 1 // ARCOUNT
	return completed
}
