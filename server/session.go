package server

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// session is what the server keeps of a connection. Its loop's goroutine alone
// touches it.
type session struct {
	token      *authz.Token    // the last that was verified on this connection
	credential *credential     // the connection's own; nil: it has none
	subs       *sub            // a list, while they are few
	many       map[string]*sub // by name, once they have been many
	waiting    *waiting        // the envelope that cannot go on yet; the connection is not read meanwhile
	bucket     *bucket         // nil: no rate is set
	post       *posting        // nil: the connection carries no HTTP requests

	id     uint64
	due    int64  // when something wants a notice or ends, at the earliest
	opened uint32 // by loop.Loop.Seconds

	count         int32 // subscriptions, unconfirmed ones included
	unconfirmed   int32 // subscribes that the bus, or a stream, has not answered
	pausedReplays int32
	badEnvelopes  uint32 // in a row
	authFailures  uint32 // in a row
}

// bucket bounds the frames of a connection over time.
type bucket struct {
	level  float32 // frames that may come now
	filled int64   // when level was reckoned, in Unix nanoseconds
}

type connIDs struct{ next atomic.Uint64 }

// Open implements [loop.Handler].
func (s *Server) Open(c *loop.Conn) {
	l := c.Loop()
	st := stateOf(l)
	ses := &session{id: s.conns.next.Add(1), opened: l.Seconds(), due: never}
	if s.opts.Rate > 0 {
		ses.bucket = &bucket{level: float32(s.opts.Burst), filled: l.Now()}
	}
	if hs, ok := c.Data.(*handshake); ok {
		ses.credential = &credential{token: hs.token}
	}
	if ses.credential != nil || s.opts.RequireConnection {
		ses.due = 0 // the next tick finds out when
	}
	events, _ := c.Data.(*stream)
	c.Data = ses
	st.send(c, wire.AppendWelcome(st.reply[:0], s.connName(ses), s.opts.Node, time.Unix(0, l.Now()), s.opts.Loop.PingInterval, s.opts.Loop.MessageBytes))
	if events != nil {
		s.subscribeStream(c, events)
	}
}

func (s *Server) connName(ses *session) string {
	return s.opts.Node + "-" + strconv.FormatUint(ses.id, 36)
}

// Closed implements [loop.Handler].
func (s *Server) Closed(c *loop.Conn, code ws.StatusCode) {
	ses, _ := c.Data.(*session)
	if ses == nil {
		return // its first HTTP request has not come whole
	}
	stateOf(c.Loop()).leaveWaiting(ses)
	if ses.post != nil {
		return
	}
	ses.due = never
	s.leaveAll(c.Loop(), ses)
	if e := s.log.Check(zap.DebugLevel, "connection closed"); e != nil {
		e.Write(zap.String("conn", s.connName(ses)), zap.Stringer("addr", c.Addr()),
			zap.Uint16("code", uint16(code)), zap.Uint32("seconds", c.Loop().Seconds()-ses.opened))
	}
}

// Violation implements [loop.Handler]: the last words before a close frame.
func (s *Server) Violation(c *loop.Conn, code ws.StatusCode) {
	switch code {
	case ws.StatusMessageTooBig:
		s.request(c).refuse(wire.TooLarge, "")
	case ws.StatusInvalidFramePayloadData:
		s.request(c).refuse(wire.BadEnvelope, wire.ErrUTF8.Detail)
	}
}
