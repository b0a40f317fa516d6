//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that this process has started, and what the generator asks
// of it.
type process struct {
	addr    string
	cmd     *exec.Cmd
	stderr  bytes.Buffer // to be read after the process has ended
	settles bool         // CPU waits until the server has nothing to do
	nats    *process     // that it uses; its costs count, too
	stays   []stay       // guarded by mu
	mu      sync.Mutex
}

// stay is the resident set at one reading, and its peak since the one before.
type stay struct{ rss, peak int64 }

// start runs the program whose command line args gives for the address to listen
// on, and waits until it accepts connections.
func start(args func(addr string) []string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		return nil, err
	}
	p := &process{addr: l.Addr().String()}
	if err = l.Close(); err != nil {
		return nil, err
	}
	line := args(p.addr)
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err = p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			return p, c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("%s did not start:\n%s", strings.Join(line, " "), p.stderr.String())
}

func (p *process) stop() {
	if p.nats != nil {
		defer p.nats.stop()
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
}

const (
	// calmFor is how long a server must do next to nothing, which is calmCPU, to
	// have done all that it had to; calmIn is the longest wait for that.
	calmFor = 10 * time.Millisecond
	calmCPU = 100 * time.Microsecond
	calmIn  = 5 * time.Second
)

// CPU is the processor time of the server. Where that leaves latencies alone, it
// waits until the server has finished what was published before, while the
// generator, which asks this, publishes nothing more. Otherwise it would be luck
// whether a window's work, which may be half of all, counts.
func (p *process) CPU() (time.Duration, error) {
	used, err := p.cpu()
	for began := time.Now(); err == nil && p.settles && time.Since(began) < calmIn; {
		time.Sleep(calmFor)
		before := used
		if used, err = p.cpu(); used-before < calmCPU {
			break
		}
	}
	return used, err
}

// cpu is the processor time of the process's threads, in user and system mode:
// what utime and stime of /proc/PID/stat add up to, read from the process's own
// clock, which counts nanoseconds and not hundredths of a second
// (clock_getcpuclockid(3)).
func (p *process) cpu() (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, of a process
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|sched), &ts)
	used := time.Duration(ts.Nano())
	if err == nil && p.nats != nil {
		var of time.Duration
		of, err = p.nats.cpu()
		used += of
	}
	return used, err
}

// RSS is the resident set in bytes. It may be called by several goroutines.
func (p *process) RSS() (int64, error) {
	s, err := p.stay()
	if err != nil {
		return 0, err
	}
	if p.nats != nil {
		of, err := p.nats.stay()
		if err != nil {
			return 0, err
		}
		s.rss += of.rss
		s.peak += of.peak
	}
	p.mu.Lock()
	p.stays = append(p.stays, s)
	p.mu.Unlock()
	return s.rss, nil
}

// stay reads the resident set and its peak, and begins a new one.
func (p *process) stay() (s stay, err error) {
	status, err := os.ReadFile(p.file("status"))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(status)) {
		for name, bytes := range map[string]*int64{"VmRSS:": &s.rss, "VmHWM:": &s.peak} {
			if v, ok := strings.CutPrefix(line, name); ok {
				if *bytes, err = strconv.ParseInt(strings.Fields(v)[0], 10, 64); err != nil {
					return s, err
				}
				*bytes <<= 10
			}
		}
	}
	if s.rss == 0 {
		return s, errors.New("no VmRSS")
	}
	return s, os.WriteFile(p.file("clear_refs"), []byte("5"), 0) // begin a new peak (proc_pid_clear_refs(5))
}

func (p *process) file(name string) string {
	return fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)
}

// growth is how far the resident set rose while connections stalled. The
// generator reads it before and after it connects, and when the measurement
// begins and ends: four times while all read, and four times with stalled ones.
func (p *process) growth() (int64, error) {
	const pass = 4
	if len(p.stays) != 2*pass {
		return 0, fmt.Errorf("the resident set was read %d times, not %d", len(p.stays), 2*pass)
	}
	before := p.stays[pass].rss
	var peak int64
	for _, s := range p.stays[pass+1:] {
		peak = max(peak, s.peak)
	}
	return peak - before, nil
}
