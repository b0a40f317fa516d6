package loop

import (
	"bytes"
	"net"
	"strconv"

	"github.com/gobwas/ws"
)

// A stream is a connection that net/http has accepted for Server-Sent Events (HTML
// Living Standard §9.2): it is sent events instead of frames, and what it sends is
// thrown away. Else it is a connection like the others: it joins groups, waits for
// room and is closed as slow in the same way.
//
//	ping    a comment; nobody answers it, so TCP finds out about a peer that is gone
//	Close   an event of the name close, with code and reason, and then FIN

// AdoptStream takes a connection back from net/http, as [Engine.Adopt] does, to send
// events to it. accept is called on the goroutine of its loop and returns the HTTP
// response that begins the stream, or refuses with another response. After a stream
// has begun, [Handler.Open] is called. The caller gives conn up, also when there is an
// error. Any goroutine may call it.
func (e *Engine) AdoptStream(conn net.Conn, accept func(c *Conn) (response []byte, ok bool)) error {
	h, fd, err := takeBack(conn)
	if err != nil {
		return err
	}
	limitUnacknowledged(int(fd), e.opts.IdleTimeout)
	return e.assign(nil, fd, h.addr, func(to *Loop) { to.adoptStream(fd, h.addr, accept) })
}

func (l *Loop) adoptStream(fd int32, addr [16]byte, accept func(c *Conn) ([]byte, bool)) {
	c := l.add(fd, addr)
	if c.state > stateHead {
		return
	}
	c.state, c.stream = stateHead, true
	response, ok := accept(c)
	if !ok {
		l.refuse(c, string(response), byHandler)
		return
	}
	l.cork.hold(c)
	l.cork.frames = append(l.cork.frames, response...)
	l.opened(c)
	l.eng.handler.Open(c)
}

// IsStream reports whether c is sent events instead of frames.
func (c *Conn) IsStream() bool { return c.stream }

// appendMessage appends a message of op as c is sent it.
func (c *Conn) appendMessage(dst []byte, op ws.OpCode, payload []byte) []byte {
	switch {
	case !c.stream:
		return append(appendHeader(dst, op, len(payload)), payload...)
	case op != ws.OpText:
		return append(dst, ":\n\n"...) // a ping: a comment
	}
	var name []byte
	if f := c.loop.eng.opts.EventName; f != nil {
		name = f(payload)
	}
	return appendEvent(dst, name, nil, payload)
}

// appendEnd appends the last that c is sent.
func (c *Conn) appendEnd(dst []byte, code ws.StatusCode, reason string) []byte {
	if !c.stream {
		return appendClose(dst, code, reason)
	}
	data := strconv.AppendInt([]byte(`{"code":`), int64(code), 10)
	data = append(data, `,"reason":`...)
	data = strconv.AppendQuote(data, reason) // ours, and plain
	return appendEvent(dst, []byte("close"), nil, append(data, '}'))
}

// messageEnd returns the end of the message in b that byte off lies in, or off when a
// message begins there; b is whole messages as c is sent them.
func (c *Conn) messageEnd(b []byte, off int) int {
	if !c.stream {
		return frameEnd(b, off)
	}
	if off == 0 || bytes.HasSuffix(b[:off], eventEnd) {
		return off
	}
	if i := bytes.Index(b[off-1:], eventEnd); i >= 0 {
		return off - 1 + i + len(eventEnd)
	}
	return len(b)
}

var eventEnd = []byte("\n\n")

// appendEvent appends an event, of this name and with this last event ID if it has them. A
// line break in data, which JSON may have between its tokens, is one for the receiver too.
func appendEvent(dst, name, id, data []byte) []byte {
	if len(id) > 0 {
		dst = append(dst, "id: "...)
		dst = append(append(dst, id...), '\n')
	}
	if len(name) > 0 {
		dst = append(dst, "event: "...)
		dst = append(append(dst, name...), '\n')
	}
	for {
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			break
		}
		dst = append(dst, "data: "...)
		dst = append(append(dst, data[:i]...), '\n')
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
	dst = append(dst, "data: "...)
	return append(append(dst, data...), "\n\n"...)
}

// AppendEvent appends a message for streams, as an event of this name and with this last
// event ID; nil: it has none. It copies all three. The batch must be delivered to streams
// alone.
func (b *Batch) AppendEvent(name, id, data []byte) {
	b.b = appendEvent(b.b, name, id, data)
	b.n++
}
