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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that this process has started.
type process struct {
	addr   string
	cmd    *exec.Cmd
	stderr bytes.Buffer // to be read after the process has ended
}

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
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
}

// cpu is the processor time of the process's threads, in user and system mode:
// what utime and stime of /proc/PID/stat add up to, read from the process's own
// clock, which counts nanoseconds and not hundredths of a second
// (clock_getcpuclockid(3)).
func (p *process) cpu() (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, of a process
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|sched), &ts)
	return time.Duration(ts.Nano()), err
}

// rss is the resident set in bytes.
func (p *process) rss() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}
