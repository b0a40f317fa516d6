package server

import (
	"math"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Expired implements [loop.Handler]: an event came for a subscription whose
// token has expired. The event was not delivered.
func (s *Server) Expired(m *loop.Member) {
	sessionOf(m.Conn).each(func(x *sub) {
		if &x.Member == m {
			s.expire(x)
		}
	})
}

// Tick implements [loop.Handler]: once a second it warns of tokens that expire
// soon and ends the subscriptions of those that have. No timers: a connection
// is looked into when the earliest of its subscriptions is due.
func (s *Server) Tick(l *loop.Loop) {
	now := l.Now()
	if s.governor != nil && l.Index() == 0 {
		s.governor.Tick(now)
	}
	if l.Index() == 0 {
		s.chunks.tick()
	}
	if st := stateOf(l); !st.noticing {
		st.noticing = true
		s.noticeFrom(l, 0)
	}
}

// noticeFrom looks at some connections a turn: tokens of very many may expire at the
// same moment.
func (s *Server) noticeFrom(l *loop.Loop, place int) {
	place = l.ConnsFrom(place, recheckTurn, func(c *loop.Conn) {
		if ses := sessionOf(c); l.Now() >= ses.due {
			s.notice(c, ses, l.Now())
		}
	})
	stateOf(l).noticing = place != 0 && l.Post(func() { s.noticeFrom(l, place) })
}

func (s *Server) notice(c *loop.Conn, ses *session, now int64) {
	due, open := s.deadlines(c, ses, now)
	if !open {
		return
	}
	st := stateOf(c.Loop())
	ses.each(func(x *sub) {
		if now >= x.Until {
			s.expire(x)
			return
		}
		if x.onCredential {
			return // the connection is warned, not each of its subscriptions
		}
		next := x.Until
		if warn := s.noticeAt(x.token); !x.warned && now >= warn {
			x.warned = true
			st.send(c, wire.AppendExpiring(st.reply[:0], x.topic.name, x.token.ExpSeconds()))
		} else if !x.warned {
			next = warn
		}
		due = min(due, next)
	})
	ses.due = due
}

// expire ends a subscription and says so to its client. A subscription under the
// connection's credential ends the connection.
func (s *Server) expire(x *sub) {
	if x.onCredential {
		s.close(x.Conn, wire.CloseUnauthenticated)
		return
	}
	st := stateOf(x.Conn.Loop())
	st.send(x.Conn, wire.AppendExpired(st.reply[:0], x.topic.name))
	s.drop(x)
	s.endStream(x.Conn, wire.CloseUnauthenticated)
}

// end ends a subscription for a reason of the server's, and sends the reason.
func (s *Server) end(x *sub, code wire.Code, detail string) {
	s.drop(x)
	stateOf(x.Conn.Loop()).sendError(x.Conn, nil, []byte(x.topic.name), code, detail)
	if code.Retry() {
		s.endStream(x.Conn, wire.CloseTryLater)
	} else {
		s.endStream(x.Conn, wire.CloseUnauthenticated)
	}
}

// noticeAt is when the client of a token is warned that it expires: the notice
// before its end, or a third of its life where that is shorter, so that a token
// that lives shorter than the notice is not expiring from its beginning.
func (s *Server) noticeAt(token *authz.Token) int64 {
	return token.Expires() - min(int64(s.opts.ExpiryNotice), token.Life()/3)
}

// recheck ends the subscriptions of a connection whose tokens are no longer
// valid, for whatever reason, and the connection when its credential is one.
func (s *Server) recheck(c *loop.Conn) {
	ses := sessionOf(c)
	now := c.Loop().Now()
	ses.each(func(x *sub) {
		if code := x.token.Check(now); code != wire.OK {
			// What was queued for it must not go out either.
			x.Until = math.MinInt64
			if !x.onCredential {
				s.end(x, code, "")
			}
		}
	})
	if ses.credential == nil {
		return
	}
	switch code := ses.credential.token.Check(now); {
	case code == wire.OK:
	case code.Retry(): // another token would not help
		s.close(c, wire.CloseTryLater)
	default:
		s.close(c, wire.CloseUnauthenticated)
	}
}
