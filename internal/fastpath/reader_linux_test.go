package fastpath

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestFullBufferLosesNoReply sends replies by a socket whose buffer is full: they wait.
func TestFullBufferLosesNoReply(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fds[0]), "socket")
	defer socket.Close()
	defer unix.Close(fds[1])
	r := newReader(&listener{results: newResults("full buffer")}, socket)
	for i := range batchSize {
		r.outVecs[i].SetLen(1)
		r.outBuffers[i][0] = byte(i)
	}
	before := 0
	for {
		sent, errno := r.sendFrom(0, batchSize, unix.MSG_DONTWAIT, unix.RawSyscall6)
		if errno == unix.EAGAIN {
			break
		}
		if errno != 0 {
			t.Fatalf("Expected the buffer to be filled, got %v after %d replies", errno, before)
		}
		before += sent
	}
	done := make(chan struct{})
	go func() {
		r.send(batchSize)
		close(done)
	}()
	for i := range before + batchSize {
		var b [2]byte
		n, err := unix.Read(fds[1], b[:])
		if want := byte(i - before); n != 1 || err != nil || i >= before && b[0] != want {
			t.Fatalf("Expected reply %d, got %d bytes, %d, %v", want, n, b[0], err)
		}
	}
	<-done
	if lost := testutil.ToFloat64(r.listener.results.lost); lost != 0 {
		t.Errorf("Expected no lost reply, got %v", lost)
	}
}
