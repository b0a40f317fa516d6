package server

import (
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// The way of a message, top to bottom. Inbound, all on the loop of the
// publisher's connection:
//
//	Message    a complete text message, from the loop's frames; of HTTP see post.go
//	wire.Parse the envelope; its members are slices of the frame
//	authorize  the connection's last token, then the cache, then the signature
//	perform    the token's time, on every frame
//	publish    grant, digest; then the bus
//	ack        leaves with whatever else this connection is sent this turn
//
// An envelope that has to wait does so in one place, waiting.go, and goes on from
// there.
//
//	Turn       what the turn published leaves for NATS
//
// Outbound, on a bus goroutine, then on the loops of the subscribers:
//
//	Event      a payload for a topic: encoded once for all its subscribers
//	Flush      the round is over: each topic's batch goes to the loops that have
//	           subscribers for it
//	loop       merges what its inbox holds per topic; one write a subscriber

// Message implements [loop.Handler].
func (s *Server) Message(c *loop.Conn, op ws.OpCode, payload []byte) {
	r := s.request(c)
	err := r.parse(op, payload)
	switch {
	case s.opts.Rate > 0 && !r.takeFrame():
		return
	case err != nil:
		r.refuseEnvelope(err)
		return
	}
	r.ses.badEnvelopes = 0
	if !r.mayPresent() {
		r.refuse(wire.TokenMissing, "this server requires auth before anything else")
		s.close(c, wire.CloseUnauthenticated)
		return
	}
	switch r.env.Kind {
	case wire.Publish, wire.Subscribe, wire.Auth:
		if r.authorize() {
			r.perform()
		}
	case wire.Unsubscribe:
		r.unsubscribe()
	case wire.Ping:
		r.pong()
	}
}

var errBinary = &wire.Error{Code: wire.BadEnvelope, Detail: "an envelope is a text message, not a binary one"}

// parse reads the envelope. What could be read is in env also when there is an
// error.
func (r *request) parse(op ws.OpCode, payload []byte) *wire.Error {
	if op != ws.OpText {
		return errBinary
	}
	return wire.Parse(payload, &r.env)
}

// authorize finds the envelope's token: the one that this connection used last
// (a compare), one that the node remembers (a look-up), or one that was never
// seen. The signature of that one is verified here when it is cheap, or one of
// few in this turn; else the envelope waits for a worker. It returns false when
// the envelope waits or was refused.
func (r *request) authorize() bool {
	ses := r.ses
	if ses.token != nil && ses.token.Same(r.env.Token) {
		r.loop.counts.memoHits++
		r.token = ses.token
		return true
	}
	if r.env.Token == nil && r.env.Kind == wire.Subscribe && ses.credential != nil {
		r.token = ses.credential.token // a publish may never do that
		return true
	}
	if r.token = r.auth.Find(r.env.Token); r.token == nil && !r.verifyHere() {
		return false
	}
	ses.token = r.token
	return true
}

// verifyHere verifies a token that the node does not remember, unless that would
// take the loop too long: then the envelope waits for a worker.
func (r *request) verifyHere() bool {
	cost := r.auth.Cost(r.env.Token)
	if cost != authz.Cheap && !r.takeVerification(cost) {
		r.awaitSignature()
		return false
	}
	var code wire.Code
	if r.token, code = r.auth.Verify(r.env.Token); code == wire.OK {
		return true
	}
	r.refuse(code, "")
	if cost != authz.Cheap {
		r.loop.distrustUntil = r.now() + int64(distrustFor)
		r.penalise(code)
	}
	return false
}

const (
	// maxVerified is how many signatures a loop verifies itself in one turn. A worker
	// costs, beside the signature, two threads that are woken: half as much again.
	// Two signatures are what 20 deliveries take, of which a turn may have thousands.
	maxVerified = 2
	// distrustFor is how long a loop verifies none after one that was bad, so that a
	// flood of them takes a hundredth of its time; workers do the rest.
	distrustFor = 10 * time.Millisecond
)

// takeVerification takes one of the verifications that this turn may make.
func (r *request) takeVerification(cost authz.Cost) bool {
	if cost != authz.Brief || r.loop.verified >= r.verifyOnLoop || r.ses.authFailures > 0 || r.now() < r.loop.distrustUntil {
		return false
	}
	r.loop.verified++
	return true
}

// perform does what an envelope with a verified token asks for. The token's time,
// and whether it still stands, are checked on every frame.
func (r *request) perform() {
	if code := r.token.Check(r.now()); code != wire.OK {
		r.refuse(code, "")
		return
	}
	switch r.env.Kind {
	case wire.Publish:
		r.publish()
	case wire.Subscribe:
		r.subscribe()
	case wire.Auth:
		r.setCredential()
	}
}

// publish checks a publish against its token's grants and, where the token is
// bound to one message, against that.
func (r *request) publish() {
	switch {
	case !wire.ValidTopic(r.env.Topic):
		r.refuse(wire.BadTopic, "")
		return
	case !r.token.MayPublish(r.env.Topic):
		r.refuse(wire.Forbidden, "")
		return
	case r.env.TTL > 0 && !r.allowsTTL(r.env.Topic):
		r.refuse(wire.BadEnvelope, noTTL)
		return
	case r.ses.post != nil && r.ses.post.twoKeys:
		r.refuse(wire.BadEnvelope, twoKeys)
		return
	}
	if r.token.Bound() {
		if code := r.token.Digest(r.env.Topic, r.env.Data); code != wire.OK {
			r.refuse(code, "")
			return
		}
	}
	if r.ses.post != nil && !r.takeHTTPRate() {
		return
	}
	if r.ses.unconfirmed > 0 {
		r.awaitSubscribes() // it may be for one of them
		return
	}
	r.publishInOrder()
}

// publishInOrder is publish when nothing that the connection sent before is under
// way any more.
func (r *request) publishInOrder() {
	if r.token.Bound() {
		if _, _, once := r.token.Once(); once {
			r.awaitStore()
			return
		}
	}
	r.publishNow()
}

// publishNow hands an event to the bus, and the ack says that the bus has it, or to the
// stream that keeps it (durable.go).
func (r *request) publishNow() {
	if to := r.streamOf(r.env.Topic); to != nil {
		r.store(to)
		return
	}
	if !r.hasRoom() {
		r.awaitRoom()
		return
	}
	if code := r.bus.Publish(r.env.Topic, r.env.Data); code != wire.OK {
		r.refuse(code, "")
		return
	}
	r.accepted()
	r.loop.counts.published[wire.OK]++
	r.loop.unflushed = true
	r.ack()
}

// Turn implements [loop.Handler]: what a turn published leaves as one write. Amid a fan-out the loop waits for what this
// turn published alone, not for what others publish all the time, nor for a disk.
func (s *Server) Turn(l *loop.Loop) bool {
	st := stateOf(l)
	st.verified, st.left = 0, 0
	published := st.unflushed
	if published {
		st.unflushed = false
		s.bus.Flush()
	}
	busy := s.bus.Busy()
	if l.Writing() {
		return published && busy
	}
	return busy || st.soon > 0
}

// shard is what one bus goroutine has for the loops in a round: what it hands over
// between two flushes.
type shard struct {
	due     []*topic
	began   int64 // when the first event of the round came, by the loops' clock; 0: none has
	scratch []byte
	invalid atomic.Uint64    // events that were not JSON
	stored  []*due           // of durable topics (stored.go)
	event   wire.StoredEvent // as subscribers are told it
	id      []byte
	_       [64]byte // shards are next to each other and written by different cores
}

// Event encodes an event for the subscribers that this node has for a topic, or
// for the patterns that match it. It is called by the goroutine of that shard
// alone; the events of one topic or pattern always come from one shard. handles,
// name and data are not kept.
//
// A client of NATS can send any bytes there, so subject and payload are
// checked again: a payload that is not one JSON value could forge envelopes.
func (s *Server) Event(number int, handles []uint32, name string, data []byte) {
	sh := &s.shards[number]
	if len(handles) > manyPatterns {
		s.eventForMany(sh, handles, name, data)
		return
	}
	valid := false
	for _, h := range handles {
		t := s.topics.byHandle(h)
		if t == nil {
			continue // the last subscriber has left
		}
		if !valid && !s.validEvent(sh, t.wild, name, data) {
			return
		}
		valid = true
		if t.matches(name) { // else the handle is another's by now
			s.encode(sh, t, name, data)
		}
	}
}

// began is when a shard's round began: the clock is read once, for its first event.
func (s *Server) began(sh *shard) int64 {
	if sh.began == 0 {
		sh.began = s.engine.Elapsed()
	}
	return sh.began
}

func (s *Server) validEvent(sh *shard, wild bool, name string, data []byte) bool {
	problem := ""
	switch {
	case wild && !wire.ValidTopic(name):
		problem = "its subject is no topic"
	case !wire.ValidJSON(data):
		problem = "it is not JSON"
	default:
		return true
	}
	sh.invalid.Add(1)
	s.log.Warn("dropped a message from NATS", zap.String("reason", problem), zap.String("topic", name))
	return false
}

// encode appends an event to what a topic is due in this round.
func (s *Server) encode(sh *shard, t *topic, name string, data []byte) {
	b := t.due
	if b == nil {
		b = loop.NewBatch()
		b.Came(s.began(sh))
		t.due = b
		sh.due = append(sh.due, t)
	}
	sh.scratch = t.appendEvent(sh.scratch[:0], name, data)
	b.Append(ws.OpText, sh.scratch)
	if t.streams.Load() > 0 {
		if t.dueStreams == nil {
			t.dueStreams = loop.NewBatch()
			t.dueStreams.Came(s.began(sh))
		}
		t.dueStreams.AppendEvent(nil, nil, sh.scratch)
	}
	if b.Len() > maxRoundBytes {
		s.deliver(t)
	}
}

// appendEvent appends the envelope of an event on the topic of that name.
func (t *topic) appendEvent(dst []byte, name string, data []byte) []byte {
	return wire.AppendEvent(dst, name, t.pattern(), data)
}

// maxRoundBytes is the size at which a topic's batch leaves without waiting for the
// end of the round.
const maxRoundBytes = 128 << 10

// Flush ends a round.
func (s *Server) Flush(number int) {
	sh := &s.shards[number]
	for i, t := range sh.due {
		if t.due != nil {
			s.deliver(t)
		}
		sh.due[i] = nil
	}
	sh.due = sh.due[:0]
	sh.began = 0
	if len(sh.stored) > 0 {
		s.flushStored(sh)
	}
}

// Answered tells the loops that the bus has brought what it had to bring.
func (s *Server) Answered() { s.engine.Answered() }

// deliver posts a topic's batch to each loop that has subscribers for it.
func (s *Server) deliver(t *topic) {
	loops := s.engine.Loops()
	deliverTo(loops, t.groups[:len(loops)], t.due)
	t.due = nil
	if t.dueStreams != nil {
		deliverTo(loops, t.groups[len(loops):], t.dueStreams)
		t.dueStreams = nil
	}
}

func deliverTo(loops []*loop.Loop, groups []atomic.Pointer[loop.Group], b *loop.Batch) {
	for i := range groups {
		if g := groups[i].Load(); g != nil {
			b.Retain(1)
			loops[i].Deliver(g, b)
		}
	}
	b.Release()
}
