//go:build linux

package server

import (
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
	due := int64(never)
	st := c.Loop().Data.(*loopState)
	ses.each(func(x *sub) {
		if now >= x.Until {
			s.expire(c, ses, x)
			return
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

// expire ends a subscription and tells its client.
func (s *Server) expire(c *loop.Conn, ses *session, x *sub) {
	st := c.Loop().Data.(*loopState)
	st.reply = wire.AppendExpired(st.reply[:0], x.topic.name)
	c.Send(ws.OpText, st.reply)
	s.drop(c, ses, x)
}

// recheck ends the subscriptions of a connection whose tokens are no longer
// valid, for whatever reason.
func (s *Server) recheck(c *loop.Conn) {
	ses := c.Data.(*session)
	ses.each(func(x *sub) {
		if code := x.token.Check(c.Loop().Now()); code != wire.OK {
			env := wire.Envelope{Topic: []byte(x.topic.name)}
			s.drop(c, ses, x)
			st := c.Loop().Data.(*loopState)
			st.refused[code]++
			st.reply = wire.AppendError(st.reply[:0], nil, env.Topic, code, "")
			c.Send(ws.OpText, st.reply)
		}
	})
}
