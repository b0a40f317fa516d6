package loop

import (
	"time"

	"github.com/gobwas/ws"
)

func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

// sweep looks at every connection's deadlines, once a second. There are no
// timers: 10,000 connections cost about as much as 100 system calls.
func (l *Loop) sweep() {
	o := &l.eng.opts
	handshake, message, closing := seconds(o.HandshakeTimeout), seconds(o.MessageTimeout), seconds(o.CloseTimeout)
	ping, idle := seconds(o.PingInterval), seconds(o.IdleTimeout)
	if x := &l.eng.listener; l.index == 0 && x.open && x.paused && l.sec > x.since {
		if x.watch() == nil {
			x.paused = false
		}
	}
	for _, c := range l.conns {
		if c == nil {
			continue
		}
		age := l.sec - c.since
		switch c.state {
		case stateProxy, stateHead:
			if age > handshake {
				l.stat.timeouts++
				c.abort()
			}
		case stateClosing, stateLinger:
			// A peer that does not read is given as long as one that is silent to find out why,
			// but not by a server that ends.
			if age > closing && (c.out == nil || age > idle || l.drain.active) {
				c.abort()
			}
		case stateOpen:
			switch {
			case c.paused: // silent by our own will
			case c.since != 0 && age > message:
				l.stat.timeouts++
				c.fail(ws.StatusPolicyViolation, "message not complete in time")
			case l.sec-c.heard > idle && !c.stream: // a stream has nothing to say
				l.stat.timeouts++
				c.Close(ws.StatusGoingAway, "idle timeout")
			case l.sec-c.pinged >= ping: // also when it sends: what is between us may want to hear from both sides
				c.pinged = l.sec
				c.Send(ws.OpPing, nil)
			}
		}
	}
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
