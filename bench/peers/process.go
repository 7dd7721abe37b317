//go:build linux

package main

import (
	"bytes"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running server.
type process struct {
	cmd  *exec.Cmd
	addr netip.AddrPort
	dir  string // of its files

	started time.Duration // until its first right answer
	cpu     time.Duration // by then
	rss     int           // by then, bytes
}

// startProcess starts a command on some cores.
func startProcess(cores, dir string, addr netip.AddrPort, command []string) (*process, error) {
	output, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p := &process{cmd: exec.Command("taskset", append([]string{"-c", cores}, command...)...), addr: addr, dir: dir} // #nosec G204 -- from the list of peers
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // of the main thread
	return p, p.cmd.Start()
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	killed := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	killed.Stop()
}

// logged returns how often a text is in the log.
func (p *process) logged(text string) int { return bytes.Count(p.log(), []byte(text)) }

func (p *process) log() []byte {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		log.Fatal(err)
	}
	return text
}

// usage returns the CPU time that the process has used, and its resident memory in
// bytes (proc(5)).
func (p *process) usage() (cpu time.Duration, rss int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		log.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	number := func(i int) int {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			log.Fatal(err)
		}
		return n
	}
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(number(11)+number(12)) * tick, number(21) * os.Getpagesize()
}

// resetPeak begins the peak of the resident memory anew.
func (p *process) resetPeak() {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		log.Fatal(err)
	}
}

// peak returns the peak of the resident memory in bytes.
func (p *process) peak() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		log.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(after, &kib); err != nil {
		log.Fatalf("peak of memory: %v", err)
	}
	return kib << 10
}
