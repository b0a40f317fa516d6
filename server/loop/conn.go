package loop

import (
	"net/netip"

	"github.com/gobwas/ws"
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
	stream bool  // sent events instead of frames
	posts  bool  // carries HTTP requests instead of frames
	last   bool  // closed behind the answer to the request in hand
	events uint8 // the low byte of what epoll watches the socket for
	shut   bool  // send FIN once everything is sent
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
	need      int       // bytes of the request that tail begins with; 0: its head has not come whole
}

// outbound is what a connection has not been sent yet: batches, the first from byte
// off on.
type outbound struct {
	queue []pendingBatch
	off   int
	bytes int
	large int // bytes of a batch that is larger than Options.PendingBytes by itself, if one waits
}

// pendingBatch is a batch that waits for room in the socket, and the member that it is
// for; nil for what was sent to the connection as such.
type pendingBatch struct {
	*Batch
	member *Member
}

// stale says that the member may not receive the batch any more: its Until has passed,
// or it has left its group. A connection that is closed in good order still receives
// what waited at that time.
func (x pendingBatch) stale(l *Loop, open bool) bool {
	m := x.member
	return m != nil && (l.now >= m.Until || open && m.group == nil)
}

// Loop returns the loop that c belongs to.
func (c *Conn) Loop() *Loop { return c.loop }

// Open reports whether messages, or responses, can be sent to c.
func (c *Conn) Open() bool { return c.state == stateOpen }

// Addr is the address of the socket's other end or, with
// [Options.ProxyProtocol], the one in the proxy's header; "::" when it holds none.
func (c *Conn) Addr() netip.Addr { return netip.AddrFrom16(c.addr).Unmap() }

// SetAddr says where the client is whose proxy the socket's other end is. The
// connection counts at that address from then on. It returns false, and changes
// nothing, when there are too many of it already.
func (c *Conn) SetAddr(addr netip.Addr) bool {
	to := addr.As16()
	if to != c.addr {
		if !c.loop.eng.limits.move(c.addr, to) {
			return false
		}
		c.addr = to
	}
	return true
}

// Pending is the number of bytes that wait because the socket had no room.
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

// watch sets what epoll watches c for, when that has changed.
func (c *Conn) watch() {
	var want uint8
	if !c.paused && (c.out == nil || !c.posts) { // requests are read as fast as their answers are
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
		c.abort()
	}
}
