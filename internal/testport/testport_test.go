package testport

import "testing"

// TestFree takes the ports of two blocks, one of which is in use.
func TestFree(t *testing.T) {
	used := Free(t)
	l, err := listen(used + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := map[int]bool{used: true, used + 1: true}
	for range 2 * blockSize {
		port := Free(t)
		if seen[port] || port < first || port >= first+blocks*blockSize {
			t.Errorf("Expected a port from %d to %d that is free and not taken, got %d", first, first+blocks*blockSize-1, port)
		}
		seen[port] = true
	}
}

// TestBlockHasOneOwner has another process want the block of a port.
func TestBlockHasOneOwner(t *testing.T) {
	block := (Free(t) - first) / blockSize
	var other allocator
	if other.own(block) {
		t.Errorf("Expected block %d to have an owner", block)
	}
}
