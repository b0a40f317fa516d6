//go:build linux

package loop

import (
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// httpConn is a connection that net/http took over from a loop. It still
// counts towards the connection limits until it is closed.
type httpConn struct {
	net.Conn
	addr     [16]byte // by which it counts
	received []byte   // read by the loop, not yet by net/http
	client   net.Addr // what the proxy in front has told; nil: nothing
	once     sync.Once
	release  func()
}

// newHTTPConn moves c's socket to the runtime's poller. When there is no
// descriptor left for that it closes the socket and returns nil.
func newHTTPConn(c *Conn, received []byte) net.Conn {
	eng, addr := c.loop.eng, c.addr
	f := os.NewFile(uintptr(c.fd), "")
	conn, err := net.FileConn(f) // duplicates the descriptor
	_ = f.Close()
	if err != nil {
		eng.gone(addr)
		return nil
	}
	h := &httpConn{Conn: conn, addr: addr, received: received, release: func() { eng.gone(addr) }}
	if eng.opts.ProxyProtocol {
		h.client = &net.TCPAddr{IP: c.Addr().AsSlice()}
	}
	return h
}

// RemoteAddr is the client's address. Behind the PROXY protocol its port is not
// kept and is 0.
func (c *httpConn) RemoteAddr() net.Addr {
	if c.client != nil {
		return c.client
	}
	return c.Conn.RemoteAddr()
}

// Read serves what the loop had received before it reads the socket.
func (c *httpConn) Read(p []byte) (int, error) {
	if len(c.received) > 0 {
		n := copy(p, c.received)
		c.received = c.received[n:]
		return n, nil
	}
	c.received = nil
	return c.Conn.Read(p)
}

// CloseWrite lets net/http end a response without losing it to RST.
func (c *httpConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c *httpConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}

// Adopt takes a connection back from net/http: one that [Options.HTTP] was given,
// and that was hijacked because it asks for an upgrade behind other requests. head
// is that request and what came behind it. It is handled as if it were the first
// request of a new connection. The caller gives conn up, also when there is an
// error. Any goroutine may call it.
func (e *Engine) Adopt(conn net.Conn, head []byte) error {
	h, ok := conn.(*httpConn)
	if !ok {
		_ = conn.Close()
		return errors.New("not a connection of this engine")
	}
	raw, err := h.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		_ = h.Close()
		return err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(was uintptr) { fd, dupErr = unix.FcntlInt(was, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dupErr); err != nil {
		_ = h.Close()
		return err
	}
	// Behind a request that was sent before this one, unread bytes may be left.
	head = append(head, h.received...)
	h.once.Do(func() {}) // it goes on counting towards the limits
	_ = h.Conn.Close()
	to := e.least()
	e.load[to.index].Add(1)
	if !to.Post(func() { to.adopt(fd, h.addr, head) }) {
		e.load[to.index].Add(-1)
		e.gone(h.addr)
		_ = unix.Close(fd)
		return net.ErrClosed
	}
	return nil
}

// adopt goes on with a connection that has been net/http's.
func (l *Loop) adopt(fd int, addr [16]byte, head []byte) {
	c := l.add(fd, addr)
	if c.state == stateProxy {
		c.state = stateHead // the proxy's header was the first that came
	}
	if c.state != stateHead {
		return
	}
	c.in = &inbound{tail: head}
	l.parseTail(c)
}

// Hand is a [net.Listener] for net/http whose connections are handed to it
// rather than accepted.
type Hand struct {
	addr  net.Addr
	conns chan net.Conn

	mu     sync.Mutex
	closed bool // guarded by mu; conns is closed then
}

// NewHand returns a listener that reports addr as its own.
func NewHand(addr net.Addr) *Hand {
	return &Hand{addr: addr, conns: make(chan net.Conn, 128)}
}

// Give hands conn to the server that accepts on h. It does not block: when 128
// connections already wait, or h is closed, conn is closed.
func (h *Hand) Give(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		select {
		case h.conns <- conn:
			return
		default:
		}
	}
	_ = conn.Close()
}

// Accept implements [net.Listener].
func (h *Hand) Accept() (net.Conn, error) {
	if c, ok := <-h.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close implements [net.Listener]. Connections that wait are closed.
func (h *Hand) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	close(h.conns)
	for c := range h.conns {
		_ = c.Close()
	}
	return nil
}

// Addr implements [net.Listener].
func (h *Hand) Addr() net.Addr { return h.addr }
