package loop

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

const (
	// readBytes is how much one event reads at most: a busy peer gets its share
	// of a turn and no more (epoll is level-triggered, the rest comes again).
	readBytes = 64 << 10
	// smallTail is up to where an incomplete tail is copied in front of the next
	// read instead of being grown in place: a peer that sends a byte at a time
	// costs no more than this copy each.
	smallTail = 4 << 10
)

// readable reads once from c and parses what came.
func (l *Loop) readable(c *Conn) {
	b, have := l.room(c)
	n, e := readSocket(c.fd, b[have:min(len(b), have+readBytes)])
	switch {
	case e != 0 && isTooEarly(e):
		return
	case n == 0 && e == 0 && c.posts && c.state == stateOpen:
		l.cutPost(c)
		return
	case e != 0 || n == 0:
		c.abort()
		return
	}
	c.heard = l.sec
	l.stat.bytesIn += uint64(n)
	if c.state == stateLinger || c.stream {
		return
	}
	l.received(c, b[:have+n])
}

// room returns a buffer that begins with the have bytes of c's incomplete tail
// and has room behind them.
func (l *Loop) room(c *Conn) (b []byte, have int) {
	if c.in == nil {
		return l.buf, 0
	}
	in := c.in
	tail := in.tail[in.off:]
	have = len(tail)
	if have <= smallTail {
		copy(l.buf, tail)
		return l.buf, have
	}
	// Grown by what arrived, never by what was announced.
	if cap(tail)-have < have/2 {
		in.tail = append(make([]byte, 0, 2*have), tail...)
		in.off = 0
	}
	return in.tail[in.off:cap(in.tail)], have
}

// received acts on b, which room returned and a read has filled.
func (l *Loop) received(c *Conn, b []byte) { l.keep(c, b, l.consume(c, b)) }

// parseTail goes on with what c had received when it was paused.
func (l *Loop) parseTail(c *Conn) {
	in := c.in
	if in == nil {
		return
	}
	used := in.off + l.consume(c, in.tail[in.off:])
	if c.paused {
		in.off = used
		return
	}
	l.keep(c, in.tail, used)
}

// consume hands b to what c is in the middle of and returns how many bytes of
// it are done with.
func (l *Loop) consume(c *Conn, b []byte) int {
	used := 0
	if c.state == stateProxy {
		if used = l.proxyHeader(c, b); c.state != stateHead {
			return used
		}
	}
	if c.state == stateHead {
		n := l.head(c, b[used:])
		if used += n; c.state == stateHead {
			return used
		}
	}
	if c.posts && c.state == stateOpen {
		return used + l.posts(c, b[used:])
	}
	return used + l.frames(c, b[used:])
}

// keep stores b[used:] until more comes. b is the loop's buffer or c's own tail.
func (l *Loop) keep(c *Conn, b []byte, used int) {
	rest := b[used:]
	in := c.in
	if c.state >= stateLinger {
		c.in = nil
		return
	}
	if len(rest) == 0 {
		if in != nil {
			in.tail, in.off = nil, 0
			if in.fragments == 0 {
				c.in = nil
			}
		}
		return
	}
	if in == nil {
		in = new(inbound)
		c.in = in
	}
	if cap(in.tail) > 2*len(rest)+smallTail {
		in.tail = nil // a large message has gone through
	}
	in.tail, in.off = append(in.tail[:0], rest...), 0
	if c.state == stateOpen && c.since == 0 && !c.paused {
		c.since = l.sec
	}
}

// frames parses complete frames from b and returns how many bytes they took.
// It stops behind a message whose handler paused the connection.
func (l *Loop) frames(c *Conn, b []byte) int {
	at := 0
	for c.state <= stateClosing && !c.paused {
		h, n, err := parseHeader(b[at:])
		if err == nil && n > 0 && c.state == stateOpen {
			err = ws.CheckHeader(h, c.wsState())
		}
		if err != nil {
			c.fail(ws.StatusProtocolError, err.Error())
			return len(b)
		}
		if n == 0 {
			break
		}
		if !l.fits(c, h) {
			c.fail(ws.StatusMessageTooBig, "message too big")
			return len(b)
		}
		if int64(len(b)-at-n) < h.Length {
			l.part(c, h, b[at+n:])
			break
		}
		payload := b[at+n : at+n+int(h.Length)]
		at += n + int(h.Length)
		l.stat.framesIn++
		if c.in == nil {
			ws.Cipher(payload, h.Mask, 0)
			l.frame(c, h, payload, 0)
		} else {
			seen := c.in.unmasked
			c.in.unmasked = 0
			ws.Cipher(payload[seen:], h.Mask, seen)
			l.frame(c, h, payload, seen)
		}
		if c.state == stateOpen && (c.in == nil || c.in.fragments == 0) {
			c.since = 0
		}
	}
	if c.state >= stateLinger {
		return len(b)
	}
	return at
}

// part looks at what has come of a frame: the server fails a connection at the
// first byte that makes a text wrong, not only when all of it has come.
func (l *Loop) part(c *Conn, h ws.Header, payload []byte) {
	if len(payload) == 0 || h.OpCode.IsControl() || c.state != stateOpen {
		return
	}
	if c.in == nil {
		c.in = new(inbound)
	}
	in := c.in
	seen := in.unmasked
	in.unmasked = len(payload)
	ws.Cipher(payload[seen:], h.Mask, seen)
	if (h.OpCode == ws.OpText || h.OpCode == ws.OpContinuation && in.op == ws.OpText) && !in.text.next(payload[seen:]) {
		c.notUTF8()
	}
}

func (c *Conn) notUTF8() { c.fail(ws.StatusInvalidFramePayloadData, "text is not UTF-8") }

// wsState is what [ws.CheckHeader] needs to know of c.
func (c *Conn) wsState() ws.State {
	if c.in != nil && c.in.fragments > 0 {
		return ws.StateServerSide | ws.StateFragmented
	}
	return ws.StateServerSide
}

// fits says whether a frame keeps its message within the limits.
func (l *Loop) fits(c *Conn, h ws.Header) bool {
	limit := int64(max(l.eng.opts.MessageBytes, ws.MaxControlFramePayloadSize))
	if h.OpCode == ws.OpContinuation && c.state == stateOpen {
		return h.Length <= limit-int64(len(c.in.message)) && c.in.fragments < l.eng.opts.Fragments
	}
	return h.Length <= limit
}

// frame acts on one frame whose header has been checked and whose payload is
// unmasked. Of that part has seen the first bytes.
func (l *Loop) frame(c *Conn, h ws.Header, payload []byte, seen int) {
	switch h.OpCode {
	case ws.OpPing:
		c.Send(ws.OpPong, payload) // RFC 6455 §5.5.3
	case ws.OpPong:
	case ws.OpClose:
		l.closeFrame(c, payload)
	default:
		if c.state != stateOpen {
			return // after our close frame data has no meaning
		}
		if h.Fin && h.OpCode != ws.OpContinuation {
			if h.OpCode == ws.OpText && !validText(c.in, payload, seen) {
				c.notUTF8() // RFC 6455 §8.1
				return
			}
			l.message(c, h.OpCode, payload)
			return
		}
		l.fragment(c, h, payload, seen)
	}
}

// validText checks a text of one frame.
func validText(in *inbound, payload []byte, seen int) bool {
	if seen == 0 {
		return utf8.Valid(payload)
	}
	ok := in.text.next(payload[seen:]) && in.text.whole()
	in.text = textCheck{}
	return ok
}

// fragment collects a fragmented message (RFC 6455 §5.4).
func (l *Loop) fragment(c *Conn, h ws.Header, payload []byte, seen int) {
	if c.in == nil {
		c.in = new(inbound)
	}
	in := c.in
	if h.OpCode != ws.OpContinuation {
		in.op = h.OpCode
		if c.since == 0 {
			c.since = l.sec
		}
	}
	in.fragments++
	if in.op == ws.OpText && (!in.text.next(payload[seen:]) || h.Fin && !in.text.whole()) {
		c.notUTF8()
		return
	}
	in.message = append(in.message, payload...)
	if !h.Fin {
		return
	}
	op, message := in.op, in.message
	in.message, in.fragments = nil, 0
	l.message(c, op, message)
}

// message hands a complete message over.
func (l *Loop) message(c *Conn, op ws.OpCode, payload []byte) {
	l.stat.messages++
	l.eng.handler.Message(c, op, payload)
}

// closeFrame answers the peer's close frame, or ends the handshake that ours
// began (RFC 6455 §5.5.1, §7.1).
func (l *Loop) closeFrame(c *Conn, body []byte) {
	code, ok := closeStatus(body)
	if !ok {
		c.fail(ws.StatusProtocolError, "malformed close frame")
		return
	}
	if c.state == stateOpen {
		c.sendFrame(appendClose(make([]byte, 0, 127), code, ""))
		c.end(stateLinger, code)
	}
	c.linger()
}

// closeStatus reads the body of a close frame: empty, or a status that may
// stand in a frame and a UTF-8 reason (RFC 6455 §7.4).
func closeStatus(body []byte) (ws.StatusCode, bool) {
	if len(body) == 0 {
		return ws.StatusNoStatusRcvd, true
	}
	if len(body) == 1 {
		return 0, false
	}
	code := ws.StatusCode(binary.BigEndian.Uint16(body))
	known := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
	return code, known && utf8.Valid(body[2:])
}
