package bus

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A queuedConn is a connection to an external NATS whose Write never waits for NATS. nats.go holds a lock while it
// writes, and a publish needs that lock: behind a NATS that hangs or is slow each loop would stand still. What the
// socket does not take at once is queued here and written by a goroutine; while more than linkBytes wait,
// hasRoom holds publishers back.
type queuedConn struct {
	net.Conn
	out *outbox

	mu      sync.Mutex
	now     instantWriter
	queue   []byte
	writing bool // drain runs
	err     error
}

// An outbox says whether the queue of the connection is full. Connections follow one another.
type outbox struct {
	full atomic.Bool
	room func() // called when it is full no more
}

func (o *outbox) empty() {
	if o.full.Swap(false) {
		o.room()
	}
}

// dialer dials for nats.go.
type dialer struct{ out *outbox }

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	q := &queuedConn{Conn: c, out: d.out}
	return q, q.now.open(c)
}

// Write implements net.Conn. It takes all of p unless the connection has failed.
func (c *queuedConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if !c.writing {
		if n, err = c.now.write(p); err != nil || n == len(p) {
			return n, err
		}
		c.writing = true
		go c.drain()
	}
	c.queue = append(c.queue, p[n:]...)
	if len(c.queue) > linkBytes {
		c.out.full.Store(true)
	}
	return len(p), nil
}

// drain writes the queue until there is none.
func (c *queuedConn) drain() {
	var p []byte
	for {
		c.mu.Lock()
		p, c.queue = c.queue, p[:0]
		if len(p) == 0 || c.err != nil {
			c.queue, c.writing = nil, false
			_ = c.Conn.SetWriteDeadline(time.Time{})
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.out.empty()
		for rest := p; len(rest) > 0; {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			n, err := c.Conn.Write(rest[:min(len(rest), 64<<10)])
			if err != nil {
				c.fail(err)
				break
			}
			rest = rest[n:]
		}
	}
}

// fail makes nats.go notice that the connection is of no use any more.
func (c *queuedConn) fail(err error) {
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	_ = c.Conn.Close()
	c.out.empty()
}

// Close implements net.Conn.
func (c *queuedConn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// SetDeadline implements net.Conn; the deadline of writes is this type's own.
func (c *queuedConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn: a Write does not wait.
func (c *queuedConn) SetWriteDeadline(time.Time) error { return nil }
