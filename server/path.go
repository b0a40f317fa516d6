//go:build linux

package server

import (
	"sync/atomic"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// The way of a message, top to bottom. Inbound, all on the loop of the
// publisher's connection:
//
//	Message    a complete text message, from the loop's frames
//	wire.Parse the envelope; its members are slices of the frame
//	authorize  the connection's last token, then the cache, then the signature
//	publish    grant and time, then the bus (send)
//	ack        leaves with whatever else this connection is sent this turn
//	Turn       what the turn published leaves for NATS
//
// Outbound, on a bus goroutine, then on the loops of the subscribers:
//
//	Event      a payload for a topic: encoded once, as a finished frame
//	Flush      the gulp is over: each topic's frames go to the loops that have
//	           subscribers for it
//	loop       merges what its inbox holds per topic; one write a subscriber

// Message implements [loop.Handler].
func (s *Server) Message(c *loop.Conn, op ws.OpCode, payload []byte) {
	ses := c.Data.(*session)
	st := c.Loop().Data.(*loopState)
	env := &st.env
	err := parse(op, payload, env)
	if s.opts.Rate > 0 && !s.allow(c, ses) {
		return
	}
	if err != nil {
		s.badEnvelope(c, ses, err)
		return
	}
	ses.badEnvelopes = 0
	if !s.authenticated(c, ses, env) {
		return
	}
	switch env.Kind {
	case wire.Publish, wire.Subscribe, wire.Auth:
		if token, ok := s.authorize(c, ses, env); ok {
			s.act(c, ses, env, token)
		}
	default:
		s.control(c, ses, env)
	}
}

// parse reads an envelope. What could be read is in env also when there is an
// error.
func parse(op ws.OpCode, payload []byte, env *wire.Envelope) *wire.Error {
	if op != ws.OpText {
		*env = wire.Envelope{}
		return errBinary
	}
	return wire.Parse(payload, env)
}

// authorize finds the envelope's token: the one that this connection used last
// (a compare), one that the node remembers (a look-up), or one that was never
// seen. The signature of that one is verified here when it is cheap, or one of
// few in this turn; else the envelope waits for a worker, and the connection is
// not read until then, so that its order holds. ok is false when the envelope
// waits or was refused.
func (s *Server) authorize(c *loop.Conn, ses *session, env *wire.Envelope) (token Token, ok bool) {
	if ses.token != nil && ses.token.Same(env.Token) {
		c.Loop().Data.(*loopState).memoHits++
		return ses.token, true
	}
	if env.Token == nil && env.Kind == wire.Subscribe && ses.credential != nil {
		return ses.credential.token, true // a publish may never do that
	}
	if token = s.auth.Find(env.Token); token == nil {
		slow := s.auth.Slow(env.Token)
		if slow && !s.mayVerify(c, ses, env.Token) {
			s.holdVerify(c, env)
			return nil, false
		}
		var code wire.Code
		if token, code = s.auth.Verify(env.Token); code != wire.OK {
			if slow {
				c.Loop().Data.(*loopState).distrust = c.Loop().Now() + int64(distrustFor)
			}
			s.refuse(c, ses, env, code, "")
			if slow {
				s.penalise(c, code)
			}
			return nil, false
		}
	}
	ses.token = token
	return token, true
}

// act does what an envelope with a verified token asks for. The token's time,
// and whether it still stands, are checked on every frame.
func (s *Server) act(c *loop.Conn, ses *session, env *wire.Envelope, token Token) {
	if code := token.Check(c.Loop().Now()); code != wire.OK {
		s.refuse(c, ses, env, code, "")
		return
	}
	switch env.Kind {
	case wire.Publish:
		s.publish(c, ses, env, token)
	case wire.Subscribe:
		s.subscribe(c, ses, env, token)
	case wire.Auth:
		s.bind(c, ses, env, token)
	}
}

// publish checks a publish against its token's grants and, where the token is
// bound to one message, against that.
func (s *Server) publish(c *loop.Conn, ses *session, env *wire.Envelope, token Token) {
	switch {
	case !wire.ValidTopic(env.Topic):
		s.refuse(c, ses, env, wire.BadTopic, "")
		return
	case !token.MayPublish(env.Topic):
		s.refuse(c, ses, env, wire.Forbidden, "")
		return
	}
	if token.Bound() {
		if code := token.Digest(env.Topic, env.Data); code != wire.OK {
			s.refuse(c, ses, env, code, "")
			return
		}
		if _, _, once := token.Once(); once {
			s.holdOnce(c, env, token)
			return
		}
	}
	s.send(c, ses, env)
}

// send hands an event to the bus. The ack says that the bus has it.
func (s *Server) send(c *loop.Conn, ses *session, env *wire.Envelope) {
	if !s.bus.HasRoom() || s.engine.Congested() {
		s.holdRoom(c, env)
		return
	}
	s.sendNow(c, ses, env)
}

func (s *Server) sendNow(c *loop.Conn, ses *session, env *wire.Envelope) {
	if code := s.bus.Publish(env.Topic, env.Data); code != wire.OK {
		s.refuse(c, ses, env, code, "")
		return
	}
	ses.authFailures = 0
	st := c.Loop().Data.(*loopState)
	st.published[wire.OK]++
	st.unflushed = true
	if len(env.ID) > 0 {
		st.reply = wire.AppendAck(st.reply[:0], env.ID)
		c.Send(ws.OpText, st.reply)
	}
}

// Turn implements [loop.Handler]: what a turn published leaves as one write.
func (s *Server) Turn(l *loop.Loop) bool {
	st := l.Data.(*loopState)
	st.verified = 0
	if st.unflushed {
		st.unflushed = false
		s.bus.Flush()
	}
	return s.bus.Busy()
}

// shard is what one bus goroutine gathers between two flushes.
type shard struct {
	due     []*topic
	scratch []byte
	invalid atomic.Uint64 // events that were not JSON
	_       [64]byte      // shards are next to each other and written by different cores
}

// Event encodes an event for the subscribers of a topic on this node. It is
// called by the goroutine of that shard alone; the events of one topic always
// come from one shard. topic and data are not kept.
//
// Whoever can reach NATS can send any bytes there, so subject and payload are
// checked again: a payload that is not one JSON value could forge envelopes.
func (s *Server) Event(number int, handle uint32, name string, data []byte) {
	t := s.topics.byHandle(handle)
	sh := &s.shards[number]
	switch {
	case t == nil:
		return // the last subscriber has left
	case t.wild && !wire.ValidTopic(name):
		sh.invalid.Add(1)
		s.log.Warn("dropped a message from NATS whose subject is no topic", zap.String("topic", name))
		return
	case !t.matches(name):
		return // the handle is another's by now
	case !wire.ValidJSON(data):
		sh.invalid.Add(1)
		s.log.Warn("dropped a message from NATS that is not JSON", zap.String("topic", name))
		return
	}
	b := t.due
	if b == nil {
		b = loop.NewBatch()
		t.due = b
		sh.due = append(sh.due, t)
	}
	pattern := ""
	if t.wild {
		pattern = t.name
	}
	sh.scratch = wire.AppendEvent(sh.scratch[:0], name, pattern, data)
	b.B = append(loop.AppendHeader(b.B, ws.OpText, len(sh.scratch)), sh.scratch...)
	b.N++
	if len(b.B) > maxGulp {
		s.deliver(t)
	}
}

// maxGulp is the size at which a topic's batch leaves without waiting for the
// end of the gulp.
const maxGulp = 128 << 10

// Flush ends a gulp.
func (s *Server) Flush(number int) {
	sh := &s.shards[number]
	for i, t := range sh.due {
		if t.due != nil {
			s.deliver(t)
		}
		sh.due[i] = nil
	}
	sh.due = sh.due[:0]
}

// Answered tells the loops that the bus has brought what it had to bring.
func (s *Server) Answered() { s.engine.Answered() }

// deliver posts a topic's batch to each loop that has subscribers for it.
func (s *Server) deliver(t *topic) {
	b := t.due
	t.due = nil
	loops := s.engine.Loops()
	for i := range t.groups {
		if g := t.groups[i].Load(); g != nil {
			b.Retain(1)
			loops[i].Deliver(g, b)
		}
	}
	b.Release()
}
