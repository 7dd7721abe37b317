package testport

import (
	"fmt"
	"net"
	"testing"
)

func TestFree(t *testing.T) {
	port := Free(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	last.Store(uint32(port - first - 1)) // #nosec G115 -- it is a port
	if again := Free(t); again == port {
		t.Errorf("Expected another port than %d, which is in use", port)
	}
	last.Store(count - 1)
	if port := Free(t); port < first || port >= first+count {
		t.Errorf("Expected a port from %d to %d, got %d", first, first+count-1, port)
	}
}
