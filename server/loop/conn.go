package loop

import (
	"net/netip"

	"github.com/gobwas/ws"
)

type state uint8

const (
	stateProxy   state = iota // reading the proxy's header, with Options.ProxyProtocol
	stateHead                 // reading the handshake request
	stateOpen                 // frames flow
	stateClosing              // a close frame was sent; waiting for the peer's
	stateLinger               // nothing more is parsed: sending what is left, then waiting for the peer's FIN
	stateDead                 // the socket is to be closed at the end of this turn
)

// Conn is one connection. Its loop's goroutine alone may use it; another
// goroutine that holds a *Conn hands work to that loop by [Loop.Post].
//
// A server may hold very many, so the record is small: buffers exist only
// while there is something in them.
type Conn struct {
	// Data is the handler's.
	Data any

	loop *Loop
	in   *inbound  // an incomplete head, frame or message; nil when there is none
	out  *outbound // what the socket had no room for; nil when there is nothing

	addr [16]byte // the peer's address, IPv4 mapped; zero while it is not known
	fd   int32
	slot int32 // index in loop.conns

	// Seconds since the engine started.
	heard  uint32 // when bytes last came
	pinged uint32 // when a ping was last sent
	since  uint32 // when the current state or message began; 0: no deadline runs

	state  state
	paused bool
	events uint8 // the low byte of what epoll watches the socket for
	shut   bool  // close the socket once everything is sent
}

// inbound is what a connection has sent so far of something incomplete.
type inbound struct {
	tail      []byte // received, not yet consumed: tail[off:]
	off       int
	message   []byte // the fragments so far, unmasked
	fragments int    // how many; 0: no fragmented message is under way
	op        ws.OpCode
	text      textCheck // of the message under way
	unmasked  int       // bytes of the frame that tail begins with, which text has seen if it is for text
}

// outbound is what a connection is owed: batches, the first from byte off on.
type outbound struct {
	queue []owed
	off   int
	bytes int
	large int // bytes of a batch that is larger than Options.PendingBytes by itself, if one waits
}

// owed is a batch that waits for room, and the member that it is for; nil for
// what was sent to the connection as such.
type owed struct {
	*Batch
	member *Member
}

// stale says that a member has lost its right to what it is still owed: its
// Until has passed, or it has left its group. What a connection that is closed
// in good order was owed when it was, it keeps.
func (x owed) stale(l *Loop, open bool) bool {
	m := x.member
	return m != nil && (l.now >= m.Until || open && m.group == nil)
}

// Loop returns the loop that c belongs to.
func (c *Conn) Loop() *Loop { return c.loop }

// Open reports whether messages can be sent to c.
func (c *Conn) Open() bool { return c.state == stateOpen }

// Addr is the address of the socket's other end or, with
// [Options.ProxyProtocol], the one that the proxy told; "::" when it told none.
func (c *Conn) Addr() netip.Addr { return netip.AddrFrom16(c.addr).Unmap() }

// Pending is the number of bytes that the peer is owed and the socket had no
// room for.
func (c *Conn) Pending() int {
	if c.out == nil {
		return 0
	}
	return c.out.bytes
}

// Pause stops reading from c, and parsing what was read, after the message in
// hand. Resume goes on where Pause stopped; the order of messages holds.
// A connection that closes is read again.
func (c *Conn) Pause() { c.paused = c.state == stateOpen }

// Resume undoes Pause. It must not be called from within [Handler.Message] of
// the same connection.
func (c *Conn) Resume() {
	if !c.paused {
		return
	}
	c.paused = false
	c.heard = c.loop.sec // nobody listened meanwhile
	if c.since != 0 && c.state > stateHead {
		c.since = c.loop.sec
	}
	c.loop.parseTail(c)
	if !c.paused {
		c.watch()
	}
}

// Closing a connection

// Close sends a close frame (RFC 6455 §5.5.1) behind what c is still owed and
// waits, for at most [Options.CloseTimeout], for the peer's. reason must be at
// most 123 bytes. [Handler.Closed] is called before Close returns.
func (c *Conn) Close(code ws.StatusCode, reason string) {
	if c.state != stateOpen {
		return
	}
	c.sendFrame(appendClose(make([]byte, 0, 127), code, reason))
	c.end(stateClosing, code)
}

// fail closes c for what its peer did wrong. The peer's frames cannot be
// trusted from here on, so none is read: the close frame is sent, then FIN,
// and what still comes is thrown away until the peer's FIN. Closing the socket
// at once would send RST and could lose the close frame on its way.
func (c *Conn) fail(code ws.StatusCode, reason string) {
	if c.state == stateOpen {
		c.loop.eng.handler.Violation(c, code)
	}
	if c.state == stateOpen { // the handler may have closed it
		c.sendFrame(appendClose(make([]byte, 0, 127), code, reason))
		c.end(stateLinger, code)
	}
	c.linger()
}

// linger sends what is left, then FIN, and parses nothing more.
func (c *Conn) linger() {
	if c.state == stateDead {
		return
	}
	c.state = stateLinger
	c.in = nil
	c.shut = true
	c.shutIfSent()
}

// end takes c out of the open state, and tells the handler.
func (c *Conn) end(next state, code ws.StatusCode) {
	if c.leaveOpen(next) {
		c.loop.eng.handler.Closed(c, code)
	}
}

// endLater is end for what happens within a write. The handler may be in the
// middle of anything then, of a message of another connection or of a walk over
// a group, so it is told at the end of the turn.
func (c *Conn) endLater(next state, code ws.StatusCode) {
	if c.leaveOpen(next) {
		c.loop.ended = append(c.loop.ended, ending{c, code})
	}
}

// leaveOpen moves c on to state next and reports whether it was open.
func (c *Conn) leaveOpen(next state) bool {
	open := c.state == stateOpen
	c.state = max(c.state, next)
	if open {
		c.since = c.loop.sec
		c.loop.stat.open--
	}
	if c.paused { // what the peer has to say about the end must be heard
		c.paused = false
		c.watch()
	}
	return open
}

// kill gives the connection up: its socket is closed at the end of this turn.
func (c *Conn) kill() {
	if c.state == stateDead {
		return
	}
	c.endLater(stateDead, ws.StatusAbnormalClosure)
	c.loop.dead = append(c.loop.dead, c)
}

// appendClose appends a close frame. Without a status there is no body
// (RFC 6455 §7.1.5).
func appendClose(dst []byte, code ws.StatusCode, reason string) []byte {
	if code == ws.StatusNoStatusRcvd {
		return AppendHeader(dst, ws.OpClose, 0)
	}
	dst = AppendHeader(dst, ws.OpClose, 2+len(reason))
	return append(append(dst, byte(code>>8), byte(code)), reason...)
}

// shutIfSent ends the sending side once nothing is owed.
func (c *Conn) shutIfSent() {
	l := c.loop
	if l.corked == c {
		l.uncork()
	}
	if c.shut && c.out == nil && c.state == stateLinger {
		c.shut = false
		shutdownWrite(c.fd)
	}
}

// watch tells epoll what c waits for, when that has changed.
func (c *Conn) watch() {
	var want uint8
	if !c.paused {
		want = readable
	}
	if c.out != nil {
		want |= writable
	}
	if want == c.events || c.state == stateDead {
		return
	}
	c.events = want
	if err := c.loop.poller.change(c.fd, c.slot, want); err != nil {
		c.kill()
	}
}
