//go:build linux

package hub

import (
	"context"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// floor is what Go and epoll can do at best: one loop on one thread, no
// authentication, no bus, no JSON, no timeouts. What all publishers sent since the
// last wake-up is gathered into one contiguous batch per topic, which is written
// to each subscriber with one write(2).
type floor struct {
	epfd, listener int
	conns          []*floorConn // by descriptor
	grown          bool         // connections came since memory was given back
	topics         map[string]*floorTopic
	due            []*floorTopic // those with a batch
	buf            []byte
}

// floorConn holds no buffers while nothing waits.
type floorConn struct {
	in, out []byte // what is incomplete, and what the socket did not take
	topics  []*floorTopic
	up      bool // shaken hands
}

// quietMS is for how long nothing must happen before memory is given back.
const quietMS = 1000

type floorTopic struct {
	subs  []int32 // descriptors
	batch []byte
}

// maxPending is what may wait for a subscriber that does not read.
const maxPending = 64 << 20

func serveFloor(addr string) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // it costs
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	f := &floor{topics: map[string]*floorTopic{}, buf: make([]byte, 256<<10), listener: int(file.Fd())}
	defer runtime.KeepAlive(file)
	if f.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if err = unix.SetNonblock(f.listener, true); err != nil {
		return err
	}
	if err = f.watch(unix.EPOLL_CTL_ADD, f.listener, unix.EPOLLIN); err != nil {
		return err
	}
	return f.run()
}

func (f *floor) watch(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(f.epfd, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (f *floor) run() error {
	events := make([]unix.EpollEvent, 512)
	for {
		timeout := ^uintptr(0) // forever
		if f.grown {
			timeout = quietMS
		}
		// No other goroutine has anything to do, so the scheduler is not told even of a call that waits.
		n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(f.epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), timeout, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		if n == 0 {
			debug.FreeOSMemory()
			f.grown = false
		}
		for _, ev := range events[:n] {
			f.event(int(ev.Fd), ev.Events)
		}
		f.flush()
	}
}

func (f *floor) event(fd int, events uint32) {
	if fd == f.listener {
		f.accept()
		return
	}
	if events&unix.EPOLLOUT != 0 {
		f.resume(fd)
	}
	if events&^unix.EPOLLOUT != 0 {
		f.read(fd)
	}
}

func (f *floor) accept() {
	for range 64 {
		fd, _, err := unix.Accept4(f.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		for fd >= len(f.conns) {
			f.conns = append(f.conns, nil)
		}
		f.conns[fd], f.grown = &floorConn{}, true
		if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) != nil || f.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN) != nil {
			_ = unix.Close(fd)
		}
	}
}

func (f *floor) read(fd int) {
	c := f.conns[fd]
	n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&f.buf[0])), uintptr(len(f.buf)))
	if e == unix.EAGAIN || e == unix.EINTR {
		return
	}
	if e != 0 || n == 0 {
		f.close(fd)
		return
	}
	b := f.buf[:n]
	if len(c.in) > 0 {
		b = append(c.in, b...)
		c.in = nil
	}
	rest, ok := f.consume(fd, c, b)
	if !ok {
		f.close(fd)
		return
	}
	if len(rest) > 0 {
		c.in = slices.Clone(rest)
	}
}

// consume handles what is complete in b.
func (f *floor) consume(fd int, c *floorConn, b []byte) (rest []byte, ok bool) {
	if !c.up {
		answer, size, err := upgrade(b)
		if err != nil || size == 0 {
			return b, err == nil
		}
		c.up, b = true, b[size:]
		f.write(fd, answer)
	}
	for {
		opcode, payload, size, err := nextFrame(b)
		if err != nil || size == 0 {
			return b, err == nil
		}
		b = b[size:]
		switch opcode {
		case opcodeClose:
			return nil, false
		case opcodePing:
			f.write(fd, appendPong(nil, payload))
			continue
		}
		switch op, name, data := parse(payload); op {
		case opSubscribe:
			t := f.topic(name)
			t.subs = append(t.subs, int32(fd))
			c.topics = append(c.topics, t)
			f.write(fd, appendFrame(nil, []byte(subscribed)))
		case opPublish:
			t := f.topic(name)
			if len(t.batch) == 0 {
				f.due = append(f.due, t)
			}
			t.batch = appendFrame(t.batch, data)
		}
	}
}

func (f *floor) topic(name []byte) *floorTopic {
	t := f.topics[string(name)]
	if t == nil {
		t = &floorTopic{}
		f.topics[string(name)] = t
	}
	return t
}

func (f *floor) flush() {
	for _, t := range f.due {
		for _, fd := range t.subs {
			f.write(int(fd), t.batch)
		}
		t.batch = t.batch[:0]
	}
	f.due = f.due[:0]
}

// write gives b to the socket and keeps a copy of what it does not take. A
// connection that failed is closed when epoll reports it: closing it here would
// change the list that flush walks.
func (f *floor) write(fd int, b []byte) {
	c := f.conns[fd]
	if len(c.out) == 0 {
		n, _, e := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if e == 0 {
			b = b[n:]
		} else if e != unix.EAGAIN && e != unix.EINTR {
			return
		}
		if len(b) == 0 {
			return
		}
		_ = f.watch(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN|unix.EPOLLOUT) // an open descriptor of ours
	}
	if len(c.out)+len(b) > maxPending {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		return
	}
	c.out = append(c.out, b...)
}

// resume writes what waited.
func (f *floor) resume(fd int) {
	c := f.conns[fd]
	for len(c.out) > 0 {
		n, _, e := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(c.out))), uintptr(len(c.out)))
		if e != 0 {
			return
		}
		c.out = c.out[n:]
	}
	c.out = nil
	_ = f.watch(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN) // an open descriptor of ours
}

func (f *floor) close(fd int) {
	for _, t := range f.conns[fd].topics {
		if i := slices.Index(t.subs, int32(fd)); i >= 0 {
			t.subs = slices.Delete(t.subs, i, i+1)
		}
	}
	f.conns[fd] = nil
	_ = unix.Close(fd)
}
