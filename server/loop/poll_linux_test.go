package loop

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal ends a sleep, and nothing is ready then.
func TestSignalEndsASleep(t *testing.T) {
	var p poller
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	thread, ready := make(chan int), make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		ready <- p.wait(make([]pollEvent, 4), 30_000)
	}()
	for tid := <-thread; ; {
		select {
		case n := <-ready:
			if n != 0 {
				t.Errorf("%d are ready", n)
			}
			return
		case <-time.After(time.Millisecond):
			if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil { // what Go's scheduler sends as well
				t.Fatal(err)
			}
		}
	}
}
