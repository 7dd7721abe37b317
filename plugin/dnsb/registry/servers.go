package registry

import "time"

// Server is a server that uses a shared store, as a Go value and as JSON.
type Server struct {
	Name    string    `json:"name"`    // of the server in the zone: the first one of its 'ns' lines
	Host    string    `json:"host"`    // name of the machine
	Version string    `json:"version"` // of the program
	Started time.Time `json:"started_at"`
}

// ServerStore is implemented by shared stores that tell the servers of each other.
type ServerStore interface {
	// Announce tells the others who uses the store, from now on until it is closed.
	Announce(Server)

	// Others returns the other servers that use the store, and when they were read:
	// zero if the store cannot be read.
	Others() ([]Server, time.Time)
}

// SetServer says which server this is, for the others that use its store. It is to be
// called before SetStore.
func (r *Registry) SetServer(s Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = s
}

// announce tells the store which server uses it.
func (r *Registry) announce(s Store) {
	shared, _ := s.(ServerStore)
	r.mu.Lock()
	r.servers = shared
	self := r.server
	r.mu.Unlock()
	if shared != nil && self != (Server{}) {
		shared.Announce(self)
	}
}

// Others returns the other servers that use the store, and when they were read: zero if
// the store cannot be read. shared is false if no other server can use it.
func (r *Registry) Others() (others []Server, read time.Time, shared bool) {
	r.mu.Lock()
	servers := r.servers
	r.mu.Unlock()
	if servers == nil {
		return nil, time.Time{}, false
	}
	others, read = servers.Others()
	return others, read, true
}
