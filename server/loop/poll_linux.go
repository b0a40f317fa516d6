package loop

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file and poll_other.go hold all that depends on the system.

// pollEvent is a descriptor that is ready: its slot (Fd), and for what (Events).
type pollEvent = unix.EpollEvent

// What a socket is watched for, and what else an event may report.
const (
	readable = unix.EPOLLIN
	writable = unix.EPOLLOUT
	failed   = unix.EPOLLERR | unix.EPOLLHUP
)

// poller is the epoll set of a loop, with the eventfd by which other goroutines wake
// the loop.
type poller struct {
	epfd, eventfd int
}

func (p *poller) open() error {
	var err error
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if p.eventfd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(p.epfd)
		return err
	}
	// Edge-triggered: the counter need not be read back.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: slotInbox}
	if err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, p.eventfd, &ev); err != nil {
		p.close()
	}
	return err
}

func (p *poller) close() {
	_ = unix.Close(p.epfd)
	_ = unix.Close(p.eventfd)
}

// add watches fd for reading; its events carry slot.
func (p *poller) add(fd int, slot int32) error {
	ev := unix.EpollEvent{Events: readable, Fd: slot}
	return unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &ev)
}

// change sets what fd is watched for.
func (p *poller) change(fd, slot int32, events uint8) error {
	ev := unix.EpollEvent{Events: uint32(events), Fd: slot}
	return unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, int(fd), &ev)
}

func (p *poller) remove(fd int) { _ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, fd, nil) }

// wake ends a sleep in wait. Any goroutine may call it.
func (p *poller) wake() {
	one := uint64(1)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.eventfd), uintptr(unsafe.Pointer(&one)), 8)
}

// wait sleeps until a descriptor is ready, for at most that many milliseconds.
func (p *poller) wait(events []pollEvent, milliseconds int) int {
	n, err := unix.EpollWait(p.epfd, events, milliseconds)
	if err != nil {
		return 0 // EINTR: nothing was ready
	}
	return n
}

// The sockets are non-blocking, so these calls return at once and Go's scheduler need
// not know of them: RawSyscall saves its bookkeeping.

// poll returns what is ready now; it never waits.
func (p *poller) poll(events []pollEvent) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func readSocket(fd int32, p []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

func writeSocket(fd int32, p []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// isTooEarly says that there was nothing to read, or no room to write.
func isTooEarly(e syscall.Errno) bool { return e == unix.EAGAIN || e == unix.EINTR }

// shutdownWrite sends FIN.
func shutdownWrite(fd int32) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) }

func closeSocket(fd int32) { _ = unix.Close(int(fd)) }

// duplicate returns a second descriptor of a connection's or a listener's socket.
func duplicate(conn syscall.Conn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(was uintptr) { fd, dupErr = unix.FcntlInt(was, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dupErr)
}

// file returns a second descriptor of the epoll set as a file that Go's own poller
// watches, or nil when the system gives none.
func (p *poller) file() *os.File {
	fd, err := unix.FcntlInt(uintptr(p.epfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	_ = unix.SetNonblock(fd, true) // os.NewFile then uses Go's poller; epoll_wait ignores it
	return os.NewFile(uintptr(fd), "epoll")
}

// unsentBytes is what the kernel takes of a connection beyond what the peer's window
// has room for (tcp(7), TCP_NOTSENT_LOWAT); what is more waits here. The kernel would
// take up to 4 MiB by default (net.ipv4.tcp_wmem), a copy a connection; here
// connections share it, and PendingBytes counts it.
const unsentBytes = 128 << 10

// listenSocket returns a descriptor of ln's socket, which ln no longer holds.
func listenSocket(ln net.Listener) (int, error) {
	t, ok := ln.(*net.TCPListener)
	if !ok {
		return -1, errors.New("not a TCP listener")
	}
	fd, err := duplicate(t)
	if err != nil {
		return -1, err
	}
	_ = ln.Close()
	setInherited(fd) // somebody else may have made ln
	return fd, nil
}

// setInherited sets what accepted sockets inherit of a listener's: one setsockopt instead of one a connection. They do
// when the kernel has made the connection, which may be long before accept(2); so this comes before listen(2).
func setInherited(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
}

// limitUnacknowledged has the kernel give a connection up when its peer has not
// acknowledged for d what it was sent (tcp(7), TCP_USER_TIMEOUT).
func limitUnacknowledged(fd int, d time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}

// acceptSocket takes a new connection, as a non-blocking socket. err says what has
// run out when the result is acceptBlocked.
func acceptSocket(listener int) (fd int32, addr [16]byte, result acceptResult, err error) {
	s, sa, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch err {
	case nil:
		return int32(s), addrOf(sa), accepted, nil
	case unix.EAGAIN:
		return -1, addr, acceptedNone, nil
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return -1, addr, acceptBlocked, err
	}
	return -1, addr, acceptFailed, nil
}

// peerAddress is the address of a socket's other end; zero when it has gone.
func peerAddress(fd int32) [16]byte {
	sa, err := unix.Getpeername(int(fd))
	if err != nil {
		return [16]byte{}
	}
	return addrOf(sa)
}

func addrOf(sa unix.Sockaddr) (a [16]byte) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		a[10], a[11] = 0xff, 0xff
		copy(a[12:], sa.Addr[:])
	case *unix.SockaddrInet6:
		a = sa.Addr
	}
	return a
}
