package sitesurvey

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
)

// Servers that write to one store share the sites: each site belongs to one of them,
// by rendezvous hashing, and only that one has nodes measure it. So nothing is
// measured twice. Each server tells the others by a value in the store that it lives
// and that nodes ask it for work; its sites go to the others when it does not any
// more.

const (
	// announceEvery is how often a server tells that it lives, and liveFor how long
	// that holds: a write that fails once does not matter.
	announceEvery = 30 * time.Second
	liveFor       = 90 * time.Second
	// serverMark begins the keys of servers in the store. Neither the name of a node
	// nor a prefix does.
	serverMark = "_"
)

// server is another one that writes to the same store.
type server struct {
	hash  uint64
	said  uint32    // what it wrote last, in seconds since 1970
	heard time.Time // when that was new
}

// newServerName returns the name of this process in the store.
func newServerName() string { return fmt.Sprintf("%s%016x", serverMark, rand.Uint64()) } // #nosec G404 -- no secret

func (o *server) live(now time.Time) bool { return now.Sub(o.heard) < liveFor }

// isMine reports whether this server has a site measured. mu is locked.
func (s *Survey) isMine(id resolver.Site) bool {
	mine := uint64(0)
	if s.working {
		mine = resolver.Score(id.Hash(), s.hash)
	}
	for _, o := range s.servers {
		if o.live(s.ticked) && resolver.Score(id.Hash(), o.hash) > mine {
			return false
		}
	}
	return true
}

// announcement returns what tells the other servers that this one lives, nil if it is
// not due. A server that no node asks for work cannot have anything measured. mu is
// locked.
func (s *Survey) announcement() []byte {
	if !s.shared || !s.working || s.ticked.Sub(s.announced) < announceEvery {
		return nil
	}
	s.announced = s.ticked
	return []byte(storedVersion + " " + strconv.FormatUint(uint64(unix(s.ticked)), 10))
}

// takeServer takes what another server said. mu is locked.
func (s *Survey) takeServer(name, value string) error {
	version, at, _ := strings.Cut(value, " ")
	said, err := strconv.ParseUint(at, 10, 32)
	if version != storedVersion || err != nil {
		return fmt.Errorf("invalid value '%.80s'", value)
	}
	if name == s.name {
		return nil
	}
	now := s.ticked
	if now.IsZero() {
		now = time.Now()
	}
	o := s.servers[name]
	known := o != nil
	if !known {
		o = &server{hash: resolver.Hash(name)}
		s.servers[name] = o
	}
	switch {
	case said == 0: // it has ended
		o.heard = time.Time{}
	case known && uint32(said) != o.said, !known && age(uint32(said), now) < liveFor:
		o.heard = now // whatever its clock says
	}
	o.said = uint32(said)
	return nil
}

// formerServers returns servers that have not been heard of for a long time, and
// forgets them. mu is locked.
func (s *Survey) formerServers() (names []string) {
	for name, o := range s.servers {
		if s.ticked.Sub(o.heard) > daily && age(o.said, s.ticked) > daily {
			delete(s.servers, name)
			names = append(names, name)
		}
	}
	return names
}

// Leave tells the other servers that this one ends: they take its sites at once.
func (s *Survey) Leave(write func(map[string][]byte) error) error {
	s.mu.Lock()
	shared := s.shared && !s.announced.IsZero()
	s.announced = time.Time{}
	s.mu.Unlock()
	if !shared {
		return nil
	}
	return write(map[string][]byte{s.name: []byte(storedVersion + " 0")})
}
