package loop

import (
	"time"

	"github.com/gobwas/ws"
)

func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

// sweep is the walk over all connections in which their deadlines are looked at. One
// begins every second and goes on in the turns that follow, some connections in each: when
// thousands came together, their pings and ends are due together as well, and nobody is to
// wait for all of them. There are no timers: to look at 10,000 connections costs about
// as much as 100 system calls.
type sweep struct {
	next, end int    // the slots that are still to be looked at
	begun     uint32 // sec of the last one
}

const (
	// sweepLooks is how many connections a turn looks at, some 10 ns each.
	sweepLooks = 4096
	// sweepActs is how many of them it pings or ends, some 5 to 20 µs each.
	sweepActs = 64
)

// due says whether the walk has not come to its end.
func (s *sweep) due() bool { return s.next < s.end }

// beginSweep begins a walk, unless the last one goes on still.
func (l *Loop) beginSweep() {
	if x := &l.eng.listener; l.index == 0 && x.open && x.paused && l.sec > x.since {
		if x.watch() == nil {
			x.paused = false
		}
	}
	if !l.sweep.due() {
		l.sweep.next, l.sweep.end = 0, len(l.conns)
	}
}

// sweepSome goes on with the walk.
func (l *Loop) sweepSome() {
	s := &l.sweep
	for looks, acts := 0, 0; s.due() && looks < sweepLooks && acts < sweepActs; looks++ {
		if c := l.conns[s.next]; c != nil && l.sweepOne(c) {
			acts++
		}
		s.next++
	}
}

// sweepOne does what is due for c by now, and reports whether that was anything.
func (l *Loop) sweepOne(c *Conn) (acted bool) {
	o := &l.eng.opts
	age := l.sec - c.since
	switch c.state {
	case stateProxy, stateHead:
		if age > seconds(o.HandshakeTimeout) {
			l.stat.timeouts++
			c.abort()
			return true
		}
	case stateClosing, stateLinger:
		// A peer that does not read is given as long as one that is silent to find out why,
		// but not by a server that ends.
		if age > seconds(o.CloseTimeout) && (c.out == nil || age > seconds(o.IdleTimeout) || l.drain.active) {
			c.abort()
			return true
		}
	case stateOpen:
		switch {
		case c.posts:
			return l.sweepPosts(c)
		case c.paused: // silent by our own will
		case c.since != 0 && age > seconds(o.MessageTimeout):
			l.stat.timeouts++
			c.fail(ws.StatusPolicyViolation, "message not complete in time")
			return true
		case l.sec-c.heard > seconds(o.IdleTimeout) && !c.stream: // a stream has nothing to say
			l.stat.timeouts++
			c.Close(ws.StatusGoingAway, "idle timeout")
			return true
		case l.sec-c.pinged >= seconds(o.PingInterval): // also when it sends: what is between us may want to hear from both sides
			c.pinged = l.sec
			c.Send(ws.OpPing, nil)
			return true
		}
	}
	return false
}

// drain is the state of an engine that ends.
type drain struct {
	active bool
	from   int64 // by Loop.mono
	window int64
	next   int // the connections in the slots before it are closed
}

// beginDrain stops accepting and starts to close connections.
func (l *Loop) beginDrain(window time.Duration) {
	if l.index == 0 {
		l.eng.listener.close()
	}
	l.drain = drain{active: true, from: l.mono, window: max(1, int64(window))}
}

// drainSome closes the share of connections that is due by now.
func (l *Loop) drainSome() {
	d := &l.drain
	if !d.active {
		return
	}
	due := len(l.conns)
	if passed := l.mono - d.from; passed < d.window {
		due = int(float64(due) * float64(passed) / float64(d.window))
	}
	if d.next < due {
		l.flush() // a close frame stands behind what was delivered
	}
	for ; d.next < due; d.next++ {
		c := l.conns[d.next]
		switch {
		case c == nil:
		case c.state <= stateHead:
			l.refuse(c, responseUnavailable, RefusedDraining)
		default:
			c.Close(ws.StatusCode(1012), "restart") // RFC 6455 §7.4.2, IANA registry
		}
	}
}
