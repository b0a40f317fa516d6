package loop

import (
	"bytes"

	"github.com/gobwas/ws"
)

// Send appends a message with this payload, as one unmasked frame or as an event, to
// what c is sent. Frames sent to one connection in a row leave in one write(2), at the
// latest at the end of the turn. Send copies payload. After c has begun to
// close it does nothing.
func (c *Conn) Send(op ws.OpCode, payload []byte) {
	if c.state != stateOpen {
		return
	}
	l := c.loop
	k := &l.cork
	k.hold(c)
	k.frames = c.appendMessage(k.frames, op, payload)
	l.stat.framesOut++
	if len(k.frames) > l.eng.mergeBytes {
		k.release()
	}
}

// sendFrame is Send for a frame that is finished.
func (c *Conn) sendFrame(frame []byte) {
	k := &c.loop.cork
	k.hold(c)
	k.frames = append(k.frames, frame...)
	c.loop.stat.framesOut++
}

// cork holds back what is sent to one connection, so that it leaves in one write(2).
type cork struct {
	loop   *Loop
	conn   *Conn // nil: nothing is held back
	frames []byte
}

// hold makes c the connection whose frames are held back.
func (k *cork) hold(c *Conn) {
	if k.conn != c {
		k.release()
		k.conn = c
	}
}

// release writes what is held back.
func (k *cork) release() {
	c := k.conn
	if c == nil {
		return
	}
	k.conn = nil
	p := k.frames
	k.frames = k.frames[:0]
	if c.state == stateDead {
		return
	}
	n := 0
	if c.out == nil {
		var ok bool
		if n, ok = c.write(p); !ok || n == len(p) {
			return
		}
	} else if last := c.out.queue[len(c.out.queue)-1]; last.member == nil && last.refs.Load() == 1 && len(last.b)+len(p) <= k.loop.eng.mergeBytes {
		// No other queue has this batch. A peer that asks for many small answers and
		// reads none must not cost a batch each.
		last.b = append(last.b, p...)
		c.countPending(len(p))
		return
	}
	c.keepPending(exactBatch(p, 0), n, nil).Release()
}

// sendShared writes a batch that many connections receive to one of them. The
// caller's reference goes in, and comes back for the batch to carry on with.
func (m *Member) sendShared(b *Batch) *Batch {
	c := m.Conn
	if c.loop.cork.conn == c {
		c.loop.cork.release()
	}
	if c.state != stateOpen {
		return b
	}
	n := 0
	if c.out == nil {
		var ok bool
		if n, ok = c.write(b.b); !ok || n == len(b.b) {
			return b
		}
	}
	return c.keepPending(b, n, m)
}

// write tries the socket once. It returns how much went, and false when the
// connection has failed.
func (c *Conn) write(p []byte) (int, bool) {
	st := &c.loop.stat
	st.writes++
	n, e := writeSocket(c.fd, p)
	if e != 0 && !isTooEarly(e) {
		c.abort()
		return 0, false
	}
	st.bytesOut += uint64(n)
	return n, true
}

// keepPending queues b, from byte off on, until the socket has room. m is the member
// that it is for, if any. The caller's reference goes in and comes back, as with
// sendShared.
func (c *Conn) keepPending(b *Batch, off int, m *Member) *Batch {
	if c.out == nil {
		c.out = &outbound{off: off}
	}
	b = b.Fit()
	b.Retain(1)
	c.out.queue = append(c.out.queue, pendingBatch{b, m})
	c.countPending(len(b.b) - off)
	return b
}

// countPending counts n more bytes that wait for c, and closes it when they are more
// than may wait. One message that is larger than that by itself is not counted: a
// connection is not slow because of it alone.
func (c *Conn) countPending(n int) {
	o, limit := c.out, c.loop.eng.opts.PendingBytes
	o.bytes += n
	c.loop.stat.pending += int64(n)
	if n > limit && o.large == 0 {
		o.large = n
	}
	if o.bytes-o.large > limit && c.state == stateOpen && !c.posts {
		c.CloseSlow()
		return
	}
	c.watch()
}

// dropPending drops all that waits for c.
func (c *Conn) dropPending() {
	if c.out == nil {
		return
	}
	c.loop.stat.pending -= int64(c.out.bytes)
	for _, b := range c.out.queue {
		b.Release()
	}
	c.out = nil
}

// rest returns a copy of what is left of the message that is half sent.
func (c *Conn) rest() []byte {
	first, off := c.out.queue[0].b, c.out.off
	return bytes.Clone(first[off:c.messageEnd(first, off)])
}

// sendPending goes on with what waits for c. It writes at most two batches an event,
// so that one connection that catches up does not hold up the others.
func (c *Conn) sendPending() {
	for range 2 {
		o := c.out
		if o == nil || c.state == stateDead {
			break
		}
		b := o.queue[0]
		end := len(b.b)
		if b.stale(c.loop, c.state == stateOpen) {
			// No event after its token's end, but no half a frame either.
			end = c.messageEnd(b.b, o.off)
		}
		n := 0
		if o.off < end {
			var ok bool
			if n, ok = c.write(b.b[o.off:end]); !ok {
				return
			}
		}
		o.off += n
		if o.off >= end {
			n += len(b.b) - o.off // dropped, if anything is left
		}
		o.bytes -= n
		c.loop.stat.pending -= int64(n)
		if o.off < end {
			break
		}
		if len(b.b) > c.loop.eng.opts.PendingBytes {
			o.large = 0
		}
		b.Release()
		o.queue[0] = pendingBatch{}
		o.queue = o.queue[1:]
		o.off = 0
		if len(o.queue) == 0 {
			c.out = nil
		}
	}
	c.shutIfSent()
	c.watch()
	if c.posts {
		c.answersRead()
		return
	}
	if f := c.loop.eng.opts.OnDrained; f != nil && c.out == nil && c.state == stateOpen {
		f(c)
	}
}

// Send writes a batch to m alone, now, behind what its connection was sent before. It is
// held to m.Until and dropped when m has left its group, like what comes by the group: m
// must be in one. It takes over a reference of b.
func (m *Member) Send(b *Batch) {
	l := m.Conn.loop
	if l.now < m.Until {
		b = m.sendShared(b)
		l.stat.batch(b.n)
		l.stat.served(b.n, 1)
	}
	b.Release()
}
