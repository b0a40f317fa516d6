//go:build linux

package server

import (
	"math"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Expired implements [loop.Handler]: an event came for a subscription whose
// token has expired. The event was not delivered.
func (s *Server) Expired(m *loop.Member) {
	c := m.Conn
	ses := c.Data.(*session)
	ses.each(func(x *sub) {
		if &x.Member == m {
			s.expire(c, ses, x)
		}
	})
}

// Tick implements [loop.Handler]: once a second it warns of tokens that expire
// soon and ends the subscriptions of those that have. No timers: a connection
// is looked into when the earliest of its subscriptions is due.
func (s *Server) Tick(l *loop.Loop) {
	now := l.Now()
	l.Conns(func(c *loop.Conn) bool {
		if ses := c.Data.(*session); now >= ses.due {
			s.notice(c, ses, now)
		}
		return true
	})
}

func (s *Server) notice(c *loop.Conn, ses *session, now int64) {
	due, open := s.deadlines(c, ses, now)
	if !open {
		return
	}
	st := c.Loop().Data.(*loopState)
	ses.each(func(x *sub) {
		if now >= x.Until {
			s.expire(c, ses, x)
			return
		}
		if x.relies {
			return // the connection is warned, not each of its subscriptions
		}
		next := x.Until
		if warn := x.Until - int64(s.opts.ExpiryNotice); !x.warned && now >= warn {
			x.warned = true
			st.reply = wire.AppendExpiring(st.reply[:0], x.topic.name, x.token.ExpSeconds())
			c.Send(ws.OpText, st.reply)
		} else if !x.warned {
			next = warn
		}
		due = min(due, next)
	})
	ses.due = due
}

// expire ends a subscription and tells its client. One that relies on the
// connection's credential ends with the connection.
func (s *Server) expire(c *loop.Conn, ses *session, x *sub) {
	if x.relies {
		s.close(c, wire.CloseUnauthenticated)
		return
	}
	st := c.Loop().Data.(*loopState)
	st.reply = wire.AppendExpired(st.reply[:0], x.topic.name)
	c.Send(ws.OpText, st.reply)
	s.drop(c, ses, x)
}

// recheck ends the subscriptions of a connection whose tokens are no longer
// valid, for whatever reason, and the connection when its credential is one.
func (s *Server) recheck(c *loop.Conn) {
	ses := c.Data.(*session)
	now := c.Loop().Now()
	ses.each(func(x *sub) {
		if code := x.token.Check(now); code != wire.OK {
			// What was queued for it must not go out either.
			x.Until = math.MinInt64
			if !x.relies {
				s.drop(c, ses, x)
				s.tell(c, x.topic.name, code, "")
			}
		}
	})
	if ses.credential != nil && ses.credential.token.Check(now) != wire.OK {
		s.close(c, wire.CloseUnauthenticated)
	}
}

// tell sends an error that answers no envelope: a subscription has ended.
func (s *Server) tell(c *loop.Conn, topic string, code wire.Code, detail string) {
	st := c.Loop().Data.(*loopState)
	st.refused[code]++
	st.reply = wire.AppendError(st.reply[:0], nil, []byte(topic), code, detail)
	c.Send(ws.OpText, st.reply)
}
