package loop

import (
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a connected, non-blocking pair of stream sockets.
func pair(t testing.TB) (ours, theirs int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(p[1]) })
	return p[0], p[1]
}
