//go:build linux

package loop

import "github.com/gobwas/ws"

// Send appends a frame with this payload, unmasked and unfragmented, to what c
// is sent. Frames sent to one connection in a row leave in one write(2), at the
// latest at the end of the turn. Send copies payload. After c has begun to
// close it does nothing.
func (c *Conn) Send(op ws.OpCode, payload []byte) {
	if c.state != stateOpen {
		return
	}
	l := c.loop
	l.corkFor(c)
	l.cork = append(AppendHeader(l.cork, op, len(payload)), payload...)
	l.stat.framesOut++
	if len(l.cork) > l.eng.mergeBytes {
		l.uncork()
	}
}

// sendFrame is Send for a frame that is finished.
func (c *Conn) sendFrame(frame []byte) {
	c.loop.corkFor(c)
	c.loop.cork = append(c.loop.cork, frame...)
	c.loop.stat.framesOut++
}

// corkFor makes c the connection whose frames the cork holds.
func (l *Loop) corkFor(c *Conn) {
	if l.corked != c {
		l.uncork()
		l.corked = c
	}
}

// uncork writes what was sent to one connection since the last uncork.
func (l *Loop) uncork() {
	c := l.corked
	if c == nil {
		return
	}
	l.corked = nil
	p := l.cork
	l.cork = l.cork[:0]
	if c.state == stateDead {
		return
	}
	n := 0
	if c.out == nil {
		var ok bool
		if n, ok = c.write(p); !ok || n == len(p) {
			return
		}
	}
	b := NewBatch()
	b.B = append(b.B, p...)
	c.owe(b, n)
	b.Release()
}

// sendShared writes a batch that many connections receive. The caller keeps
// its reference.
func (c *Conn) sendShared(b *Batch) {
	if c.state != stateOpen {
		return
	}
	if c.loop.corked == c {
		c.loop.uncork()
	}
	n := 0
	if c.out == nil {
		var ok bool
		if n, ok = c.write(b.B); !ok || n == len(b.B) {
			return
		}
	}
	c.owe(b, n)
}

// write tries the socket once. It returns how much went, and false when the
// connection has failed.
func (c *Conn) write(p []byte) (int, bool) {
	st := &c.loop.stat
	st.writes++
	n, e := rawWrite(c.fd, p)
	if e != 0 && !retry(e) {
		c.kill()
		return 0, false
	}
	st.bytesOut += uint64(n)
	return n, true
}

// owe queues b from byte off on for when the socket has room, and closes c
// when that is more than it may be owed.
func (c *Conn) owe(b *Batch, off int) {
	if c.state == stateDead {
		return
	}
	if c.out == nil {
		c.out = &outbound{off: off}
	}
	b.Retain(1)
	c.out.queue = append(c.out.queue, b)
	c.out.bytes += len(b.B) - off
	c.loop.stat.pending += int64(len(b.B) - off)
	if c.out.bytes > c.loop.eng.opts.PendingBytes && c.state == stateOpen {
		c.slow()
		return
	}
	c.watch()
}

// slow closes a connection that does not read. Whole frames that it is owed
// are dropped; the rest of one that is half sent must go first, or the close
// frame would stand inside it.
func (c *Conn) slow() {
	l, o := c.loop, c.out
	l.stat.slow++
	code := ws.StatusCode(l.eng.opts.SlowCode)
	last := NewBatch()
	if o.off > 0 {
		first := o.queue[0].B
		last.B = append(last.B, first[o.off:frameEnd(first, o.off)]...)
	}
	last.B = appendClose(last.B, code, "slow consumer")
	c.disown()
	c.end(stateClosing, code)
	c.owe(last, 0)
	last.Release()
}

// disown drops all that c is owed.
func (c *Conn) disown() {
	if c.out == nil {
		return
	}
	c.loop.stat.pending -= int64(c.out.bytes)
	for _, b := range c.out.queue {
		b.Release()
	}
	c.out = nil
}

// writable goes on with what c is owed. It writes at most two batches an event,
// so that one connection that catches up does not hold up the others.
func (c *Conn) writable() {
	for range 2 {
		o := c.out
		if o == nil || c.state == stateDead {
			break
		}
		b := o.queue[0]
		n, ok := c.write(b.B[o.off:])
		if !ok {
			return
		}
		o.bytes -= n
		c.loop.stat.pending -= int64(n)
		o.off += n
		if o.off < len(b.B) {
			break
		}
		b.Release()
		o.queue[0] = nil
		o.queue = o.queue[1:]
		o.off = 0
		if len(o.queue) == 0 {
			c.out = nil
		}
	}
	c.shutIfSent()
	c.watch()
}
