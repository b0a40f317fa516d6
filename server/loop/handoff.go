package loop

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
)

// httpConn is a connection that net/http took over from a loop. It still
// counts towards the connection limits until it is closed.
type httpConn struct {
	net.Conn
	addr     [16]byte // by which it counts
	received []byte   // read by the loop, not yet by net/http
	remote   net.Addr // the client's address, from the proxy in front; nil without one
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
		eng.limits.release(addr)
		return nil
	}
	h := &httpConn{Conn: conn, addr: addr, received: received, release: func() { eng.limits.release(addr) }}
	if eng.opts.ProxyProtocol {
		h.remote = &net.TCPAddr{IP: c.Addr().AsSlice()}
	}
	return h
}

// RemoteAddr is the client's address. Behind a proxy that uses the PROXY protocol its
// port is 0, since the loops do not keep it.
func (c *httpConn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
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

// net/http writes its own refusal of a request that it cannot read at once: a status
// line, these headers and a body.
const ownHeaders = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// Write adds to such a refusal what lets a page read it, as in the loops' own.
func (c *httpConn) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(p, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(p, []byte("HTTP/1.1 5")) {
		return c.Conn.Write(p)
	}
	end := bytes.Index(p, []byte("\r\n"))
	if end < 0 || !bytes.HasPrefix(p[end:], []byte(ownHeaders)) {
		return c.Conn.Write(p)
	}
	readable := slices.Concat(p[:end], []byte("\r\nAccess-Control-Allow-Origin: *"), p[end:])
	if _, err := c.Conn.Write(readable); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite lets net/http end a response without losing it to RST.
func (c *httpConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c *httpConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}

// Adopt takes a connection back from net/http: one that [Options.HTTP] accepted,
// and that was hijacked because it asks for an upgrade behind other requests. head
// is that request and what came behind it. It is handled as if it were the first
// request of a new connection. The caller gives conn up, also when there is an
// error. Any goroutine may call it.
func (e *Engine) Adopt(conn net.Conn, head []byte) error {
	h, fd, err := takeBack(conn)
	if err != nil {
		return err
	}
	// Behind a request that was sent before this one, unread bytes may be left.
	head = append(head, h.received...)
	return e.assign(nil, fd, h.addr, func(to *Loop) { to.adopt(fd, h.addr, head) })
}

// takeBack ends net/http's part in a connection, which goes on counting towards the limits, and gives its socket.
func takeBack(conn net.Conn) (h *httpConn, fd int32, err error) {
	h, ok := conn.(*httpConn)
	if !ok {
		_ = conn.Close()
		return nil, -1, errors.New("not a connection of this engine")
	}
	socket, err := duplicate(h.Conn.(*net.TCPConn))
	if err != nil {
		_ = h.Close()
		return nil, -1, err
	}
	h.once.Do(func() {})
	_ = h.Conn.Close()
	return h, int32(socket), nil
}

// adopt goes on with a connection that has been net/http's.
func (l *Loop) adopt(fd int32, addr [16]byte, head []byte) {
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

// handoffRoom is how many connections may wait for net/http to accept them.
const handoffRoom = 128

// HandoffListener is a [net.Listener] for net/http. Its connections come from an
// engine that has it as [Options.HTTP].
type HandoffListener struct {
	conns chan net.Conn // has room for handoffRoom, so that a connection with a place need not wait

	mu     sync.Mutex
	places int  // guarded by mu: taken and not given back by Accept
	closed bool // guarded by mu; conns is closed then
}

// NewHandoffListener returns a listener for one engine.
func NewHandoffListener() *HandoffListener {
	return &HandoffListener{conns: make(chan net.Conn, handoffRoom)}
}

// takePlace takes a place for a connection, for handOff to use. It returns false when
// handoffRoom connections wait, or x is closed.
func (x *HandoffListener) takePlace() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.places == handoffRoom {
		return false
	}
	x.places++
	return true
}

func (x *HandoffListener) givePlaceBack() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.places--
}

// handOff gives conn, which has a place, to the server that accepts on x. It does not
// block. When x has been closed meanwhile, conn is closed; nil stands for a connection
// that has failed.
func (x *HandoffListener) handOff(conn net.Conn) {
	if conn == nil {
		x.givePlaceBack()
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		_ = conn.Close()
		return
	}
	x.conns <- conn
}

// Accept implements [net.Listener].
func (x *HandoffListener) Accept() (net.Conn, error) {
	if c, ok := <-x.conns; ok {
		x.givePlaceBack()
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close implements [net.Listener]. Connections that wait are closed.
func (x *HandoffListener) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	close(x.conns)
	for c := range x.conns {
		_ = c.Close()
	}
	return nil
}

// Addr implements [net.Listener]. The listener has no address of its own: its
// connections were accepted elsewhere, and each knows its own two.
func (x *HandoffListener) Addr() net.Addr { return handoffAddr{} }

type handoffAddr struct{}

func (handoffAddr) Network() string { return "handoff" }
func (handoffAddr) String() string  { return "handoff" }
