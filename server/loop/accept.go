package loop

import (
	"context"
	"net"
	"syscall"
)

// Listen opens a TCP listener for [Engine.Start], as net.Listen does, without
// Multipath TCP (RFC 8684): a connection accepted with it costs a sixth more, and does
// not inherit all that the listener is set to. Connections that come before Start wait in
// the kernel.
func Listen(addr string) (net.Listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) { setInherited(int(fd)) })
	}}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", addr)
}

// listener is the socket that loop 0 accepts from.
type listener struct {
	fd     int
	poller *poller // loop 0's
	open   bool
	paused bool   // descriptors or memory have run out; the socket is not watched
	since  uint32 // when it was paused
}

func (x *listener) take(ln net.Listener, p *poller) error {
	fd, err := listenSocket(ln)
	if err != nil {
		return err
	}
	x.fd, x.poller, x.open = fd, p, true
	return x.watch()
}

func (x *listener) watch() error { return x.poller.add(x.fd, slotListen) }

func (x *listener) close() {
	if x.open {
		x.open = false
		closeSocket(int32(x.fd))
	}
}

// acceptBatch bounds the connections that one turn accepts: a storm of new ones
// must not hold up those that are there.
const acceptBatch = 128

// acceptResult is what accept(2) came to.
type acceptResult uint8

const (
	accepted      acceptResult = iota
	acceptedNone               // no connection waits
	acceptFailed               // the connection has failed (accept(2)); there may be others
	acceptBlocked              // descriptors or memory have run out
)

// accept takes new connections and gives each to the loop with the fewest.
func (l *Loop) accept() {
	x := &l.eng.listener
	for range acceptBatch {
		fd, addr, result, err := acceptSocket(x.fd)
		switch result {
		case accepted:
		case acceptedNone:
			return
		case acceptFailed:
			continue
		case acceptBlocked:
			// The listener stays readable, so watching it would spin. The sweep
			// tries again; until then clients wait in the kernel's queue.
			x.poller.remove(x.fd)
			x.paused, x.since = true, l.sec
			l.stat.acceptErrors++
			if f := l.eng.opts.AcceptError; f != nil {
				f(err)
			}
			return
		}
		l.stat.accepted++
		if l.eng.opts.ProxyProtocol {
			addr = [16]byte{} // the proxy's; its header brings the client's
		}
		if over, ok := l.eng.limits.admit(addr); !ok {
			l.turnAway(fd, addr, over)
			continue
		}
		_ = l.eng.assign(l, fd, addr, func(to *Loop) { to.add(fd, addr) })
	}
}

// turnAway refuses a socket that is over a limit. A proxy makes a 502 of an answer that
// comes before its request, and of one that is lost on its way because the socket was
// closed at once and sent RST for what still came (RFC 9112 §9.6). So a few of them
// are answered when their request has come, and linger, like others that are refused.
// When there are more, it is a flood, and must not use up descriptors.
func (l *Loop) turnAway(fd int32, addr, over [16]byte) {
	reason := RefusedConnections
	if over == overPerIP {
		reason = RefusedPerIP
	}
	l.refused(addr, reason)
	if !l.eng.limits.mayLinger() {
		_, _ = writeSocket(fd, []byte(turnedAway(over)))
		closeSocket(fd)
		return
	}
	l.eng.load[l.index].Add(1)
	l.add(fd, over)
}

// assign has the loop with the fewest connections take a socket that was counted
// in: it calls take on that loop's goroutine, at once when that is the caller's own.
// from is the caller's loop, or nil. When the loop has stopped, the socket is closed
// and counted out.
func (e *Engine) assign(from *Loop, fd int32, addr [16]byte, take func(to *Loop)) error {
	to := e.leastLoaded()
	e.load[to.index].Add(1)
	if to == from {
		take(to)
		return nil
	}
	if !to.Post(func() { take(to) }) {
		e.load[to.index].Add(-1)
		e.limits.release(addr)
		closeSocket(fd)
		return net.ErrClosed
	}
	return nil
}

// leastLoaded returns the loop with the fewest connections.
func (e *Engine) leastLoaded() *Loop {
	best := 0
	for i := range e.load {
		if e.load[i].Load() < e.load[best].Load() {
			best = i
		}
	}
	return e.loops[best]
}
