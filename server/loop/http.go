//go:build linux

package loop

import (
	"net"
	"os"
	"sync"
)

// httpConn is a connection that net/http took over from a loop. It still
// counts towards the connection limits until it is closed.
type httpConn struct {
	net.Conn
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
	h := &httpConn{Conn: conn, received: received, release: func() { eng.gone(addr) }}
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
