//go:build linux

package loop

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// unsentBytes is what the kernel takes of a connection beyond what the peer's window
// has room for (tcp(7), TCP_NOTSENT_LOWAT); what is more waits here. The kernel would
// take up to 4 MiB by default (net.ipv4.tcp_wmem), a copy a connection; here
// connections share it, and PendingBytes counts it.
const unsentBytes = 128 << 10

// Listen opens a TCP listener for [Engine.Start], as net.Listen does, without
// Multipath TCP (RFC 8684): a connection accepted with it costs a sixth more, and does
// not inherit all that the listener is set to.
func Listen(addr string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", addr)
}

// listener is the socket that loop 0 accepts from.
type listener struct {
	fd     int
	epfd   int
	paused bool   // accept(2) has failed for want of something; not in epoll
	since  uint32 // when it was paused
	open   bool
}

func (x *listener) take(ln net.Listener, epfd int) error {
	t, ok := ln.(*net.TCPListener)
	if !ok {
		return errors.New("not a TCP listener")
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var dup int
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return err
	}
	_ = ln.Close()
	// Accepted sockets inherit these: one setsockopt instead of one a connection.
	_ = unix.SetsockoptInt(dup, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(dup, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	x.fd, x.epfd, x.open = dup, epfd, true
	return x.watch()
}

func (x *listener) watch() error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: slotListen}
	return unix.EpollCtl(x.epfd, unix.EPOLL_CTL_ADD, x.fd, &ev)
}

func (x *listener) unwatch() { _ = unix.EpollCtl(x.epfd, unix.EPOLL_CTL_DEL, x.fd, nil) }

func (x *listener) close() {
	if x.open {
		x.open = false
		_ = unix.Close(x.fd)
	}
}

// acceptBatch bounds the connections that one turn accepts: a storm of new ones
// must not hold up those that are there.
const acceptBatch = 128

// accept takes new connections and gives each to the loop with the fewest.
func (l *Loop) accept() {
	x := &l.eng.listener
	for range acceptBatch {
		fd, sa, err := unix.Accept4(x.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			// The listener stays readable, so watching it would spin. The sweep
			// tries again; until then clients wait in the kernel's queue.
			x.unwatch()
			x.paused, x.since = true, l.sec
			l.stat.acceptErrors++
			if f := l.eng.opts.AcceptError; f != nil {
				f(err)
			}
			return
		default:
			continue // ECONNABORTED and other errors of a connection that is gone (accept(2))
		}
		l.stat.accepted++
		var addr [16]byte
		if !l.eng.opts.ProxyProtocol { // else the proxy tells it
			addr = addrOf(sa)
		}
		if response := l.eng.admit(addr); response != "" {
			l.stat.refused++
			_, _ = rawWrite(int32(fd), []byte(response))
			_ = unix.Close(fd)
			continue
		}
		to := l.eng.least()
		l.eng.load[to.index].Add(1)
		if to == l {
			l.add(fd, addr)
		} else if !to.Post(func() { to.add(fd, addr) }) {
			l.eng.load[to.index].Add(-1)
			l.eng.gone(addr)
			_ = unix.Close(fd)
		}
	}
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
