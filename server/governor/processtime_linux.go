package governor

import "golang.org/x/sys/unix"

// processTime is the processor time that the process has used, in nanoseconds.
func processTime() (nanos int64, ok bool) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return ts.Nano(), err == nil
}
