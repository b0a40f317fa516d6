//go:build linux

package rig

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is the id of a process on this machine.
type Process int

// CPU is the processor time that the process's threads have used, in user and
// system mode: what utime and stime of /proc/PID/stat add up to, read from the
// process's own clock, which counts nanoseconds and not hundredths of a second
// (clock_getcpuclockid(3)).
func (p Process) CPU() (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED, of a process
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^int(p)<<3|sched), &ts)
	return time.Duration(ts.Nano()), err
}

// RSS is the process's resident set in bytes.
func (p Process) RSS() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", int(p)))
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
