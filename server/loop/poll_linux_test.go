package loop

import (
	"io"
	"net"
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

// What the kernel has connected before Start is set like what comes later: with Nagle's algorithm (RFC 9293 §3.7.4)
// small events would wait for the peer's delayed acknowledgement, for 40 ms.
func TestEarlyConnectionsAreSetLikeOthers(t *testing.T) {
	type options struct{ noDelay, unsent int }
	seen := make(chan options, 2)
	h := &hooks{open: func(c *Conn) {
		var o options
		var err error
		if o.noDelay, err = unix.GetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil {
			t.Error(err)
		}
		if o.unsent, err = unix.GetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); err != nil {
			t.Error(err)
		}
		seen <- o
	}}
	e, err := New(Options{Loops: 1}, h)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	early, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ln); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Drain(t.Context(), 0) }() // when both have gone
	defer func() { _ = early.Close() }()
	late, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Close() }()
	for _, c := range []net.Conn{early, late} {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got != (options{1, unsentBytes}) {
			t.Errorf("%+v", got)
		}
	}
}
