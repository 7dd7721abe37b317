package widearea

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockStub is clock_gettime of a process whose wall clock is off, in the code
// of amd64. It asks the kernel and adds seconds to CLOCK_REALTIME, but not to
// the monotonic clock. The seconds are missing: setClock puts them before ret.
//
//	mov  eax, 228 (SYS_clock_gettime)
//	syscall
//	test edi, edi (CLOCK_REALTIME)
//	jne  ret
//	add  qword [rsi], seconds
//	ret
var clockStub = []byte{0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0x85, 0xff, 0x75, 0x07, 0x48, 0x81, 0x06}

const ret = 0xc3

// canSetClock reports whether setClock works on this machine.
const canSetClock = runtime.GOARCH == "amd64"

// setClock sets the wall clock of a running process off by a number of seconds.
// A program in Go reads the clock by the vDSO and not by the C library, so
// LD_PRELOAD (libfaketime) does not reach it, and time namespaces have no wall
// clock. So clock_gettime in the vDSO of the process is replaced, which the
// kernel copies for it on writing.
func setClock(d *daemon, off time.Duration) (err error) {
	seconds := int64(off / time.Second)
	if !canSetClock || seconds != int64(int32(seconds)) || seconds == math.MinInt32 {
		return errors.New("no clock of a process can be set so here")
	}
	pid := d.process().cmd.Process.Pid
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	start, size, err := clockFunction(pid, mem)
	if err != nil {
		return fmt.Errorf("find clock_gettime: %w", err)
	}
	code := append(binary.LittleEndian.AppendUint32(bytes.Clone(clockStub), uint32(seconds)), ret)
	if len(code) > size {
		return fmt.Errorf("clock_gettime has %d bytes, expected at least %d", size, len(code))
	}
	for range 100 {
		d.signal(syscall.SIGSTOP)
		time.Sleep(20 * time.Millisecond) // until all threads have stopped
		inside, err := executes(pid, start, size)
		if err == nil && !inside {
			_, err = mem.WriteAt(code, start)
		}
		d.signal(syscall.SIGCONT)
		if err != nil || !inside {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("a thread is always reading the clock")
}

// clockFunction returns where clock_gettime is in the memory of a process, and
// its size in bytes.
func clockFunction(pid int, mem *os.File) (start int64, size int, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if !strings.Contains(line, "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return 0, 0, err
		}
		image := make([]byte, to-from)
		if _, err := mem.ReadAt(image, from); err != nil {
			return 0, 0, err
		}
		file, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			return 0, 0, err
		}
		symbols, err := file.DynamicSymbols()
		if err != nil {
			return 0, 0, err
		}
		for _, s := range symbols {
			if s.Name == "__vdso_clock_gettime" {
				return from + int64(s.Value), int(s.Size), nil
			}
		}
	}
	return 0, 0, errors.New("the process has no such function")
}

// executes reports whether a thread of a stopped process is in a function, or
// not stopped yet.
func executes(pid int, start int64, size int) (bool, error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/syscall", pid, thread.Name()))
		if err != nil {
			return false, err
		}
		fields := strings.Fields(string(text)) // number, arguments, stack and program counter
		if len(fields) < 3 {
			return true, nil // running
		}
		counter, err := strconv.ParseInt(fields[len(fields)-1], 0, 64)
		if err != nil {
			return false, err
		}
		if counter >= start && counter < start+int64(size) {
			return true, nil
		}
	}
	return false, nil
}
