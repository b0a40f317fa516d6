package loop

import (
	"bytes"

	"github.com/gobwas/ws"
)

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
	} else if last := c.out.queue[len(c.out.queue)-1]; last.member == nil && last.refs.Load() == 1 && len(last.B)+len(p) <= l.eng.mergeBytes {
		// Nobody else holds it. A peer that asks for many small answers and reads
		// none must not cost a batch each.
		last.B = append(last.B, p...)
		c.owes(len(p))
		return
	}
	c.owe(exactBatch(p, 0), n, nil).Release()
}

// sendShared writes a batch that many connections receive to one of them. The
// caller's reference goes in, and comes back for the batch to carry on with.
func (m *Member) sendShared(b *Batch) *Batch {
	c := m.Conn
	if c.loop.corked == c {
		c.loop.uncork()
	}
	if c.state != stateOpen {
		return b
	}
	n := 0
	if c.out == nil {
		var ok bool
		if n, ok = c.write(b.B); !ok || n == len(b.B) {
			return b
		}
	}
	return c.owe(b, n, m)
}

// write tries the socket once. It returns how much went, and false when the
// connection has failed.
func (c *Conn) write(p []byte) (int, bool) {
	st := &c.loop.stat
	st.writes++
	n, e := writeSocket(c.fd, p)
	if e != 0 && !isTooEarly(e) {
		c.kill()
		return 0, false
	}
	st.bytesOut += uint64(n)
	return n, true
}

// owe queues b from byte off on for when the socket has room. m is the member
// that it is for, if any. The caller's reference goes in and comes back, as with
// sendShared.
func (c *Conn) owe(b *Batch, off int, m *Member) *Batch {
	if c.out == nil {
		c.out = &outbound{off: off}
	}
	b = b.fit()
	b.Retain(1)
	c.out.queue = append(c.out.queue, owed{b, m})
	c.owes(len(b.B) - off)
	return b
}

// owes counts n more bytes that c is owed, and closes it when that is more than
// it may be. One message that is larger than that by itself is not counted: it
// alone makes nobody slow.
func (c *Conn) owes(n int) {
	o, limit := c.out, c.loop.eng.opts.PendingBytes
	o.bytes += n
	c.loop.stat.pending += int64(n)
	if n > limit && o.large == 0 {
		o.large = n
	}
	if o.bytes-o.large > limit && c.state == stateOpen {
		c.slow()
		return
	}
	c.watch()
}

// CloseSlow closes a connection as one that takes less than it is due
// ([Options.SlowCode]). [Handler.Closed] is called at the end of the turn.
func (c *Conn) CloseSlow() {
	switch {
	case c.state != stateOpen:
	case c.out == nil:
		c.loop.stat.slow++
		code := ws.StatusCode(c.loop.eng.opts.SlowCode)
		c.sendFrame(appendClose(make([]byte, 0, 127), code, slowReason))
		c.endLater(stateClosing, code)
	default:
		c.slow()
	}
}

const slowReason = "slow consumer"

// slow closes a connection that does not read. Whole frames that it is owed
// are dropped; the rest of one that is half sent must go first, or the close
// frame would stand inside it.
func (c *Conn) slow() {
	l, o := c.loop, c.out
	l.stat.slow++
	code := ws.StatusCode(l.eng.opts.SlowCode)
	first := o.queue[0].B
	last := appendClose(bytes.Clone(first[o.off:frameEnd(first, o.off)]), code, slowReason)
	c.disown()
	c.endLater(stateClosing, code)
	c.owe(exactBatch(last, 0), 0, nil).Release()
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
		end := len(b.B)
		if b.stale(c.loop, c.state == stateOpen) {
			// No event after its token's end, but no half a frame either.
			end = frameEnd(b.B, o.off)
		}
		n := 0
		if o.off < end {
			var ok bool
			if n, ok = c.write(b.B[o.off:end]); !ok {
				return
			}
		}
		o.off += n
		if o.off >= end {
			n += len(b.B) - o.off // dropped, if anything is left
		}
		o.bytes -= n
		c.loop.stat.pending -= int64(n)
		if o.off < end {
			break
		}
		if len(b.B) > c.loop.eng.opts.PendingBytes {
			o.large = 0
		}
		b.Release()
		o.queue[0] = owed{}
		o.queue = o.queue[1:]
		o.off = 0
		if len(o.queue) == 0 {
			c.out = nil
		}
	}
	c.shutIfSent()
	c.watch()
}
