package server

import (
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/governor"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// request is the envelope in hand: whose it is, what it says, and under which
// token. A loop has one, which it uses again for each envelope, so that none is
// allocated; only the loop's goroutine may use it, and nobody may keep it.
type request struct {
	*Server
	loop *loopState
	conn *loop.Conn
	ses  *session

	env   wire.Envelope
	token *authz.Token
	// wait is what env waited in, when it goes on from there: it may have to wait
	// again. Nil for an envelope that has just come.
	wait *waiting
}

// loopState is what the server keeps of a loop, for its goroutine alone.
type loopState struct {
	request       request
	forRoom       []*waiting // in the order in which they came, but for those that have gone
	leaving       []*session // of connections that have ended, with subscriptions still to be taken out
	left          int        // subscriptions that this turn has taken out
	noticing      bool       // the walk of the last Tick is not at its end
	unflushed     bool       // this turn has published
	verified      int        // signatures that this turn has checked
	distrustUntil int64      // until when it checks none, in Unix nanoseconds
	reply         []byte
	result        []byte // the body of an answer to an HTTP request
	date          httpDate
	toStore       wire.ToStore // the event in hand, so that it need not be allocated
	receipts      receipts
	soon          int                                 // receipts that come in microseconds
	steps         []*replay                           // that may go on, in turn
	pins          map[*atomic.Pointer[loop.Group]]int // see Server.pin
	counts        counts
	processTime   governor.Window // what the governor measures by
}

// counts are a loop's counters.
type counts struct {
	published [wire.NumCodes]uint64 // results of publish, by code
	refused   [wire.NumCodes]uint64 // errors sent, by code
	memoHits  uint64
	subs      int64
	replayed  uint64          // events sent by replays
	chunks    [sources]uint64 // chunks that replays have sent, by where they came from
}

// Where a chunk came from.
const (
	fromStream = iota
	fromOther  // replay, which had it read
	fromMemory
	sources
)

// stateOf returns what the server keeps of a connection's loop.
func stateOf(l *loop.Loop) *loopState { return l.Data.(*loopState) }

// sessionOf returns what the server keeps of an open connection.
func sessionOf(c *loop.Conn) *session { return c.Data.(*session) }

// request begins a request of c.
func (s *Server) request(c *loop.Conn) *request {
	st := stateOf(c.Loop())
	r := &st.request
	r.Server, r.loop, r.conn, r.ses = s, st, c, sessionOf(c)
	r.env, r.token, r.wait = wire.Envelope{}, nil, nil
	return r
}

// now is the loop's clock, in Unix nanoseconds.
func (r *request) now() int64 { return r.conn.Loop().Now() }

// ack answers with an ack, if the client wants one.
func (r *request) ack() {
	if r.ses.post != nil {
		r.answerPublished()
		return
	}
	if len(r.env.ID) > 0 {
		r.loop.send(r.conn, wire.AppendAck(r.loop.reply[:0], r.env.ID))
	}
}

// ackUntil is ack with the end of the token that was accepted.
func (r *request) ackUntil(token *authz.Token) {
	if len(r.env.ID) > 0 {
		r.loop.send(r.conn, wire.AppendSubscribeAck(r.loop.reply[:0], r.env.ID, token.ExpSeconds()))
	}
}

// pong answers a ping.
func (r *request) pong() { r.loop.send(r.conn, wire.AppendPong(r.loop.reply[:0], r.env.ID)) }

// refuse answers with an error, and closes the connection when it has failed too
// often in a row. An empty detail stands for the code's own text.
func (r *request) refuse(code wire.Code, detail string) {
	if r.ses.post != nil {
		r.refusePost(code, detail)
		return
	}
	if r.env.Kind == wire.Publish {
		r.loop.counts.published[code]++
	}
	r.loop.sendError(r.conn, r.env.ID, r.env.Topic, code, detail)
	if e := r.log.Check(zap.DebugLevel, "request refused"); e != nil {
		topic := r.env.Topic
		if code != wire.Forbidden {
			topic = nil // it may be anything, a token too
		}
		e.Write(zap.String("conn", r.connName(r.ses)), zap.Stringer("addr", r.conn.Addr()), zap.String("type", r.env.Kind.String()),
			zap.ByteString("topic", topic), zap.Stringer("code", code), zap.String("detail", detail))
	}
	if code.Auth() {
		if r.ses.authFailures++; int(r.ses.authFailures) >= r.opts.AuthFailures {
			r.close(r.conn, wire.CloseUnauthenticated)
		}
	}
}

// refuseEnvelope refuses what is no envelope.
func (r *request) refuseEnvelope(err *wire.Error) {
	r.refuse(err.Code, err.Detail)
	if r.ses.badEnvelopes++; int(r.ses.badEnvelopes) >= r.opts.BadEnvelopes {
		r.close(r.conn, wire.CloseBadEnvelopes)
	}
}

// accepted ends a row of bad tokens.
func (r *request) accepted() { r.ses.authFailures = 0 }

// takeFrame takes a frame from the connection's bucket. A refused frame is taken
// too: the bucket goes below zero, and a connection that is a whole burst below
// is closed.
func (r *request) takeFrame() bool {
	now := r.now()
	burst := float32(r.opts.Burst)
	b := r.ses.bucket
	// The clock may have been set back; that takes frames from nobody.
	b.level = min(burst, b.level+float32(max(now-b.filled, 0))*float32(r.opts.Rate)/1e9)
	b.filled = now
	b.level--
	if b.level >= 0 {
		return true
	}
	r.refuse(wire.RateLimited, "")
	if b.level < -burst {
		r.close(r.conn, wire.CloseRate)
	}
	return false
}

// mayPresent says whether the request may be looked at: where the operator
// requires a credential for the connection, auth comes before all else.
func (r *request) mayPresent() bool {
	return !r.opts.RequireConnection || r.ses.credential != nil || r.env.Kind == wire.Auth
}

// send sends what was appended to reply.
func (st *loopState) send(c *loop.Conn, reply []byte) {
	st.reply = reply
	c.Send(ws.OpText, reply)
}

// sendError sends an error: the answer to a request or, without an id, the end
// of the subscription to topic.
func (st *loopState) sendError(c *loop.Conn, id, topic []byte, code wire.Code, detail string) {
	st.counts.refused[code]++
	st.send(c, wire.AppendError(st.reply[:0], id, topic, code, detail))
}

// close closes a connection.
func (s *Server) close(c *loop.Conn, code wire.CloseCode) {
	c.Close(ws.StatusCode(code), code.Text())
}

// httpNow is for HTTP handlers, which run on no loop.
func httpNow() int64 { return time.Now().UnixNano() }
