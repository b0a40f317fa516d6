package loop

import (
	"net/netip"

	"github.com/gobwas/ws"
)

// The life of a connection:
//
//	accepted
//	   │
//	   ▼
//	stateProxy   only with Options.ProxyProtocol
//	   │ header
//	   ▼                 no upgrade
//	stateHead ───────────────────────────► net/http, which may bring it back (Adopt)
//	   │ 101: Handler.Open                    │ as a stream (AdoptStream): stateOpen
//	   ▼
//	stateOpen ────── Close, CloseSlow ───► stateClosing
//	   │                                       │ the peer's close frame
//	   │ fail, the peer's close frame          ▼
//	   ├───────────────────────────────────► stateLinger ◄── refuse (from Proxy, Head),
//	   │                                       │                  Close of a stream
//	   │                                       │ the peer's FIN, or CloseTimeout
//	   │ abort                                 ▼
//	   └───────────────────────────────────► stateDead ──► reap: the socket is closed
//
// abort leads from every state to stateDead. A state is never followed by an earlier
// one. [Handler.Closed] is called once, when stateOpen ends.
//
// What ends a connection:
//
//	refuse     an HTTP response instead of 101, then FIN
//	Close      a close frame behind all that waits; the peer's is awaited
//	CloseSlow  as Close, but what waits is dropped
//	fail       the peer broke the protocol: a close frame, FIN, nothing more is parsed
//	abort      the socket has failed, or a deadline has passed: nothing more is sent
type state uint8

const (
	stateProxy   state = iota // reading the proxy's header, with Options.ProxyProtocol
	stateHead                 // reading the handshake request
	stateOpen                 // frames flow
	stateClosing              // a close frame was sent; waiting for the peer's
	stateLinger               // nothing more is parsed: sending what is left, then waiting for the peer's FIN
	stateDead                 // the socket is to be closed at the end of this turn
)

// add makes a connection of an accepted socket.
func (l *Loop) add(fd int32, addr [16]byte) *Conn {
	c := &Conn{loop: l, fd: fd, addr: addr, heard: l.sec, since: l.sec, events: readable, state: stateHead}
	if l.eng.opts.ProxyProtocol {
		c.state = stateProxy
	}
	if k := len(l.free); k > 0 {
		c.slot = l.free[k-1]
		l.free = l.free[:k-1]
		l.conns[c.slot] = c
	} else {
		c.slot = int32(len(l.conns))
		l.conns = append(l.conns, c)
	}
	l.count++
	if err := l.poller.add(int(fd), c.slot); err != nil {
		c.abort()
		return c
	}
	if l.drain.active {
		l.refuse(c, responseUnavailable, RefusedDraining)
	}
	return c
}

// opened moves a connection whose request has been answered on.
func (l *Loop) opened(c *Conn) {
	c.state = stateOpen
	c.since = 0
	c.heard, c.pinged = l.sec, l.sec
	if c.posts {
		l.eng.posts.Add(1)
	} else {
		l.stat.open++
	}
}

// detach forgets a connection without closing its socket.
func (l *Loop) detach(c *Conn) {
	l.conns[c.slot] = nil
	l.free = append(l.free, c.slot)
	l.count--
	l.eng.load[l.index].Add(-1)
}

// Why the engine itself refuses a request ([Options.OnRefuse]).
const (
	RefusedHead        = "head_too_large"
	RefusedMalformed   = "malformed_request"
	RefusedPlain       = "not_an_upgrade"
	RefusedTLS         = "tls" // on a port that does not speak it
	RefusedNoProxy     = "proxy_header_missing"
	RefusedProxy       = "proxy_header_malformed"
	RefusedStrayProxy  = "proxy_header_unexpected" // where Options.ProxyProtocol is off
	RefusedConnections = "too_many_connections"
	RefusedPerIP       = "too_many_of_address"
	RefusedDraining    = "draining"
	RefusedHTTP        = "http_queue_full"
	byHandler          = "" // which knows why
)

// refuse answers a request that cannot become a WebSocket, and closes.
func (l *Loop) refuse(c *Conn, response, reason string) {
	if turnedAway(c.addr) != "" { // counted as refused already
		l.answer(c, response)
		return
	}
	l.refuseFrom(c, c.addr, response, reason)
}

// refuseFrom is refuse for a connection that does not count at the address to log.
func (l *Loop) refuseFrom(c *Conn, addr [16]byte, response, reason string) {
	l.refused(addr, reason)
	l.answer(c, response)
}

// answer sends an HTTP response, and closes.
func (l *Loop) answer(c *Conn, response string) {
	l.cork.hold(c)
	l.cork.frames = append(l.cork.frames, response...)
	c.since = l.sec
	c.linger()
}

// refused counts and reports a refusal.
func (l *Loop) refused(addr [16]byte, reason string) {
	l.stat.refused++
	if f := l.eng.opts.OnRefuse; f != nil && reason != byHandler {
		f(netip.AddrFrom16(addr).Unmap(), reason)
	}
}

// Close sends a close frame (RFC 6455 §5.5.1) behind what c has not been sent yet and
// waits, for at most [Options.CloseTimeout], for the peer's. reason must be at
// most 123 bytes. [Handler.Closed] is called before Close returns. A connection that
// carries HTTP requests is closed behind the answer to the one in hand.
func (c *Conn) Close(code ws.StatusCode, reason string) {
	if c.state != stateOpen {
		return
	}
	if c.posts {
		c.closePosts()
		return
	}
	c.sendFrame(c.appendEnd(make([]byte, 0, 127), code, reason))
	if c.stream { // nobody answers
		c.end(stateLinger, code)
		c.linger()
		return
	}
	c.end(stateClosing, code)
}

// CloseSlow closes a connection as one that takes less than it is due
// ([Options.SlowCode]). [Handler.Closed] is called at the end of the turn.
//
// Whole frames that wait are dropped; the rest of one that is half sent must go first,
// or the close frame would stand inside it.
func (c *Conn) CloseSlow() {
	if c.state != stateOpen {
		return
	}
	c.loop.stat.slow++
	code, next := ws.StatusCode(c.loop.eng.opts.SlowCode), stateClosing
	if c.stream {
		next, c.shut = stateLinger, true
	}
	if c.out == nil {
		c.sendFrame(c.appendEnd(make([]byte, 0, 127), code, slowReason))
		c.endAfterTurn(next, code)
		c.shutIfSent()
		return
	}
	last := c.appendEnd(c.rest(), code, slowReason)
	c.dropPending()
	c.endAfterTurn(next, code)
	c.keepPending(exactBatch(last, 0), 0, nil).Release()
}

const slowReason = "slow consumer"

// fail closes c because its peer broke the protocol. The peer's frames cannot be
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

// abort gives c up: its socket is closed at the end of this turn.
func (c *Conn) abort() {
	if c.state == stateDead {
		return
	}
	c.endAfterTurn(stateDead, ws.StatusAbnormalClosure)
	c.loop.endings.dead = append(c.loop.endings.dead, c)
}

// linger sends what is left, then FIN, and parses nothing more.
func (c *Conn) linger() {
	if c.state == stateDead {
		return
	}
	c.leaveOpen(stateLinger)
	c.in = nil
	c.shut = true
	c.shutIfSent()
}

// shutIfSent sends FIN once nothing waits to be sent.
func (c *Conn) shutIfSent() {
	l := c.loop
	if l.cork.conn == c {
		l.cork.release()
	}
	if c.shut && c.out == nil && c.state == stateLinger {
		c.shut = false
		shutdownWrite(c.fd)
	}
}

// end takes c out of the open state, and calls [Handler.Closed].
func (c *Conn) end(next state, code ws.StatusCode) {
	if c.leaveOpen(next) {
		c.loop.eng.handler.Closed(c, code)
	}
}

// endAfterTurn is end for what happens within a write. The handler may be in the
// middle of anything then, of a message of another connection or of a walk over
// a group, so it is called at the end of the turn.
func (c *Conn) endAfterTurn(next state, code ws.StatusCode) {
	if c.leaveOpen(next) {
		c.loop.endings.untold = append(c.loop.endings.untold, ending{c, code})
	}
}

// leaveOpen moves c on to state next and reports whether it was open.
func (c *Conn) leaveOpen(next state) (wasOpen bool) {
	wasOpen = c.state == stateOpen
	wasPending := c.state == stateHead && c.paused
	c.state = max(c.state, next)
	if wasOpen {
		c.since = c.loop.sec
		if c.posts {
			c.loop.eng.posts.Add(-1)
		} else {
			c.loop.stat.open--
		}
	}
	if wasPending {
		c.loop.eng.handler.Abandoned(c)
	}
	if c.paused { // the peer's answer to the end must be read
		c.paused = false
		c.watch()
	}
	return wasOpen
}

// endings are the connections that ended in this turn.
type endings struct {
	untold []ending // Handler.Closed is still to be called
	dead   []*Conn  // the sockets are open still
}

// ending is a connection that is no longer open, and why.
type ending struct {
	conn *Conn
	code ws.StatusCode
}

// reap sends what is corked, calls [Handler.Closed] for connections that ended, and
// closes the sockets of those that are dead. Until then they keep their slots,
// so that no event of this turn can reach a newer connection.
func (l *Loop) reap() {
	x := &l.endings
	l.cork.release()
	for i := 0; i < len(x.untold); i++ {
		e := x.untold[i]
		l.eng.handler.Closed(e.conn, e.code)
		l.cork.release() // may end another
	}
	clear(x.untold)
	x.untold = x.untold[:0]
	for i := 0; i < len(x.dead); i++ {
		c := x.dead[i]
		x.dead[i] = nil
		c.dropPending()
		c.in = nil
		l.detach(c)
		l.eng.limits.release(c.addr)
		closeSocket(c.fd)
	}
	x.dead = x.dead[:0]
}
