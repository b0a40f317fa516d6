//go:build linux

package server

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// session is what the server keeps of a connection. Its loop's goroutine alone
// touches it.
type session struct {
	token      Token           // the last that was verified on this connection
	credential *credential     // the connection's own; nil: it has none
	subs       *sub            // a list, while they are few
	many       map[string]*sub // by name, once they have been many
	bucket     *bucket         // nil: no rate is set

	id     uint64
	due    int64  // when something wants a notice or ends, at the earliest
	opened uint32 // Unix seconds

	count        int32  // subscriptions, waiting ones included
	badEnvelopes uint32 // in a row
	authFailures uint32 // in a row
}

// bucket bounds the frames of a connection over time.
type bucket struct {
	level  float32 // frames that may come now
	filled int64   // when level was reckoned, in Unix nanoseconds
}

// loopState is what the server keeps of a loop, for its goroutine alone.
type loopState struct {
	env       wire.Envelope // the one in hand: an interface call would move it to the heap
	held      bool          // the one in hand waits
	unflushed bool          // this turn has published
	verified  int           // signatures that this turn has checked
	distrust  int64         // until when it checks none, in Unix nanoseconds
	reply     []byte
	published [wire.TooManySubscriptions + 1]uint64 // results of publish, by code
	refused   [wire.TooManySubscriptions + 1]uint64 // errors sent, by code
	memoHits  uint64
	subs      int64
}

type connIDs struct{ next atomic.Uint64 }

// Open implements [loop.Handler].
func (s *Server) Open(c *loop.Conn) {
	l := c.Loop()
	st := l.Data.(*loopState)
	ses := &session{id: s.conns.next.Add(1), opened: uint32(l.Now() / 1e9), due: never}
	if s.opts.Rate > 0 {
		ses.bucket = &bucket{level: float32(s.opts.Burst), filled: l.Now()}
	}
	if hs, ok := c.Data.(*handshake); ok {
		ses.credential = &credential{token: hs.token}
	}
	if ses.credential != nil || s.opts.RequireConnection {
		ses.due = 0 // the next tick finds out when
	}
	c.Data = ses
	st.reply = wire.AppendWelcome(st.reply[:0], s.connName(ses), s.opts.Node, time.Unix(0, l.Now()), s.opts.Loop.PingInterval, s.opts.Loop.MessageBytes)
	c.Send(ws.OpText, st.reply)
}

func (s *Server) connName(ses *session) string {
	return s.opts.Node + "-" + strconv.FormatUint(ses.id, 36)
}

// Closed implements [loop.Handler].
func (s *Server) Closed(c *loop.Conn, code ws.StatusCode) {
	ses := c.Data.(*session)
	ses.each(func(x *sub) { s.leave(c, x) })
	ses.subs, ses.many, ses.count = nil, nil, 0
	ses.due = never
	if e := s.log.Check(zap.DebugLevel, "connection closed"); e != nil {
		e.Write(zap.String("conn", s.connName(ses)), zap.Stringer("addr", c.Addr()),
			zap.Uint16("code", uint16(code)), zap.Int64("seconds", c.Loop().Now()/1e9-int64(ses.opened)))
	}
}

// Violation implements [loop.Handler]: the last words before a close frame.
func (s *Server) Violation(c *loop.Conn, code ws.StatusCode) {
	ses := c.Data.(*session)
	env := &c.Loop().Data.(*loopState).env
	*env = wire.Envelope{}
	switch code {
	case ws.StatusMessageTooBig:
		s.refuse(c, ses, env, wire.TooLarge, "")
	case ws.StatusInvalidFramePayloadData:
		s.refuse(c, ses, env, wire.BadEnvelope, wire.ErrUTF8.Detail)
	}
}

// refuse answers an envelope with an error, and closes the connection when it
// has failed too often in a row.
func (s *Server) refuse(c *loop.Conn, ses *session, env *wire.Envelope, code wire.Code, detail string) {
	st := c.Loop().Data.(*loopState)
	st.refused[code]++
	if env.Kind == wire.Publish {
		st.published[code]++
	}
	st.reply = wire.AppendError(st.reply[:0], env.ID, env.Topic, code, detail)
	c.Send(ws.OpText, st.reply)
	if code.Auth() {
		if ses.authFailures++; int(ses.authFailures) >= s.opts.AuthFailures {
			s.close(c, wire.CloseUnauthenticated)
		}
	}
}

func (s *Server) badEnvelope(c *loop.Conn, ses *session, err *wire.Error) {
	env := &c.Loop().Data.(*loopState).env
	s.refuse(c, ses, env, err.Code, err.Detail)
	if ses.badEnvelopes++; int(ses.badEnvelopes) >= s.opts.BadEnvelopes {
		s.close(c, wire.CloseBadEnvelopes)
	}
}

func (s *Server) close(c *loop.Conn, code wire.CloseCode) {
	c.Close(ws.StatusCode(code), code.Text())
}

var errBinary = &wire.Error{Code: wire.BadEnvelope, Detail: "an envelope is a text message, not a binary one"}

// control answers envelopes that need no token.
func (s *Server) control(c *loop.Conn, ses *session, env *wire.Envelope) {
	st := c.Loop().Data.(*loopState)
	switch env.Kind {
	case wire.Ping:
		st.reply = wire.AppendPong(st.reply[:0], env.ID)
		c.Send(ws.OpText, st.reply)
	case wire.Unsubscribe:
		s.unsubscribe(c, ses, env)
	}
}

// allow takes a frame from the connection's bucket. A refused frame is taken
// too: the bucket goes below zero, and a connection that owes a whole burst is
// closed.
func (s *Server) allow(c *loop.Conn, ses *session) bool {
	now := c.Loop().Now()
	burst := float32(s.opts.Burst)
	b := ses.bucket
	// The clock may have been set back; nobody owes frames for that.
	b.level = min(burst, b.level+float32(max(now-b.filled, 0))*float32(s.opts.Rate)/1e9)
	b.filled = now
	b.level--
	switch {
	case b.level >= 0:
		return true
	case b.level < -burst:
		s.refuse(c, ses, &c.Loop().Data.(*loopState).env, wire.RateLimited, "")
		s.close(c, wire.CloseRate)
	default:
		s.refuse(c, ses, &c.Loop().Data.(*loopState).env, wire.RateLimited, "")
	}
	return false
}
