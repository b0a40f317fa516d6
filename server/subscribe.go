package server

import (
	"bytes"
	"math"
	"sync/atomic"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// sub is one subscription of one connection.
type sub struct {
	loop.Member // in a group once the bus has confirmed; Until is when the token expires
	topic       *topic
	token       *authz.Token
	replay      *replay // nil: it is not on its way to the live events of a durable topic
	next        *sub
	unconfirmed int32 // subscribes for it that the bus, or a stream, has not answered

	warned       bool // the client knows that the token expires soon
	ended        bool // maybe before the bus has confirmed it
	onCredential bool // token is the connection's credential
}

const never = math.MaxInt64

// subscribe adds a subscription, or gives the one that is there a new token.
func (r *request) subscribe() {
	x := r.ses.find(r.env.Topic)
	onCredential := r.env.Token == nil
	switch {
	case !onCredential && r.opts.Strategies&StrategyMessage == 0:
		r.refuse(wire.Forbidden, "the strategy message is not enabled here: leave the token out")
		return
	case !wire.ValidPattern(r.env.Topic):
		r.refuse(wire.BadTopic, "")
		return
	case !r.token.MaySubscribe(r.env.Topic):
		r.refuse(wire.Forbidden, "")
		return
	case r.env.Since.Kind != wire.SinceNone:
		if code, detail := r.mayRead(r.token, r.env.Topic, r.env.Since); code != wire.OK {
			r.refuse(code, detail)
			return
		}
	}
	switch {
	case x == nil && int(r.ses.count) >= r.opts.Subscriptions:
		r.refuse(wire.TooManySubscriptions, "")
		return
	}
	r.accepted()
	r.join(x, onCredential)
}

// join ends a subscribe that nothing speaks against: it makes a subscription, or gives x
// the token in hand.
func (r *request) join(x *sub, onCredential bool) {
	if x == nil {
		x = &sub{Member: loop.Member{Conn: r.conn}, topic: r.topics.acquire(r.env.Topic)}
		r.ses.add(x)
		r.loop.counts.subs++
	}
	x.setToken(r.token, r.now())
	x.onCredential = onCredential
	r.ses.due = min(r.ses.due, r.noticeAt(r.token))

	if x.topic.isLive() {
		r.confirmed(x, wire.OK)
		return
	}
	// The ack waits for the bus: what is published after it must arrive. The
	// connection is read on, so that many subscribes wait together.
	s, id, since := r.Server, bytes.Clone(r.env.ID), r.env.Since
	since.Epoch = bytes.Clone(since.Epoch)
	code, waits := s.topics.await(x.topic, func(code wire.Code) {
		x.Conn.Loop().Post(func() { s.confirmedByBus(x, id, since, code) })
	})
	if !waits {
		r.confirmed(x, code)
		return
	}
	r.ses.unconfirmed++
	x.unconfirmed++
}

// confirmedByBus ends a subscribe that has waited for the bus. With the last one
// of the connection, what was sent behind it goes on.
func (s *Server) confirmedByBus(x *sub, id []byte, since wire.Since, code wire.Code) {
	c := x.Conn
	if !c.Open() {
		return
	}
	r := s.request(c)
	r.ses.unconfirmed--
	x.unconfirmed--
	r.env = wire.Envelope{Kind: wire.Subscribe, ID: id, Topic: []byte(x.topic.name), Since: since}
	r.confirmed(x, code)
	if ses := r.ses; ses.waiting != nil && ses.waiting.stage == forSubscribes && ses.unconfirmed == 0 && c.Open() {
		s.goOn(ses.waiting, wire.OK)
	}
}

// confirmed ends a subscribe: the bus delivers the topic, or cannot.
func (r *request) confirmed(x *sub, code wire.Code) {
	switch {
	case x.ended:
		r.refuse(wire.Unavailable, "the subscription ended before it began")
		return
	case code != wire.OK:
		r.drop(x)
		r.refuse(code, "")
		r.endStream(r.conn, wire.CloseTryLater)
		return
	}
	isNew := x.Group() == nil
	if x.topic.home != nil && (isNew || r.env.Since.Kind != wire.SinceNone) {
		r.beginAt(x, r.env.Since) // and acked when it has begun
		return
	}
	if isNew {
		r.joinGroup(x)
	}
	r.ackUntil(x.token)
}

// joinGroup puts a subscription among those that receive its topic.
func (s *Server) joinGroup(x *sub) {
	if x.Conn.IsStream() {
		x.topic.streams.Add(1)
	}
	slot := x.topic.groupOf(x.Conn)
	g := slot.Load()
	if g == nil {
		g = new(loop.Group)
	}
	g.Join(&x.Member)
	slot.Store(g)
}

// leaveGroup undoes joinGroup.
func (s *Server) leaveGroup(x *sub) {
	g := x.Group()
	if g == nil {
		return
	}
	x.Leave()
	slot := x.topic.groupOf(x.Conn)
	if g.Len() == 0 && stateOf(x.Conn.Loop()).pins[slot] == 0 {
		slot.Store(nil)
	}
	if x.Conn.IsStream() {
		x.topic.streams.Add(-1)
	}
}

// pin has the bus deliver to the group that a subscription will join, while there is
// nobody in it too: what comes between the call of the stream's feed and the join would
// find no group otherwise, and go to nobody.
func (s *Server) pin(x *sub) {
	st, slot := stateOf(x.Conn.Loop()), x.topic.groupOf(x.Conn)
	if st.pins == nil {
		st.pins = make(map[*atomic.Pointer[loop.Group]]int)
	}
	st.pins[slot]++
	if slot.Load() == nil {
		slot.Store(new(loop.Group))
	}
	if x.Conn.IsStream() {
		x.topic.streams.Add(1)
	}
}

// unpin undoes pin.
func (s *Server) unpin(x *sub) {
	st, slot := stateOf(x.Conn.Loop()), x.topic.groupOf(x.Conn)
	if st.pins[slot]--; st.pins[slot] == 0 {
		delete(st.pins, slot)
		if slot.Load().Len() == 0 {
			slot.Store(nil)
		}
	}
	if x.Conn.IsStream() {
		x.topic.streams.Add(-1)
	}
}

func (r *request) unsubscribe() {
	if !wire.ValidPattern(r.env.Topic) {
		r.refuse(wire.BadTopic, "")
		return
	}
	if x := r.ses.find(r.env.Topic); x != nil {
		if x.unconfirmed > 0 {
			r.awaitSubscribes() // its subscribe comes first
			return
		}
		r.drop(x)
	}
	r.ack()
}

// setToken has a subscription rely on another token.
func (x *sub) setToken(token *authz.Token, now int64) {
	x.token, x.Until, x.warned = token, token.Expires(), false
	if x.replay != nil {
		x.replay.renewed(now)
	}
}

// drop ends a subscription of an open connection.
func (s *Server) drop(x *sub) {
	if x.ended {
		return // closing the connection has ended them all
	}
	sessionOf(x.Conn).remove(x)
	s.leave(x)
}

// leave takes a subscription out of its topic.
func (s *Server) leave(x *sub) {
	x.ended = true
	if x.replay != nil {
		x.replay.stop("the subscription ended before it began")
	}
	s.leaveGroup(x)
	stateOf(x.Conn.Loop()).counts.subs--
	s.topics.release(x.topic)
}

// leavesPerTurn is how many subscriptions of connections that have ended a loop takes
// out in a turn, at a microsecond or more each.
const leavesPerTurn = 512

// leaveAll takes all subscriptions of a connection that has ended out of their topics:
// at once, or after many have been in this turn, some in each of the next.
func (s *Server) leaveAll(l *loop.Loop, ses *session) {
	st := stateOf(l)
	st.leaving = append(st.leaving, ses)
	if len(st.leaving) == 1 {
		s.leaveSome(l)
	}
}

func (s *Server) leaveSome(l *loop.Loop) {
	st := stateOf(l)
	for len(st.leaving) > 0 {
		x := st.leaving[0].any()
		if x == nil {
			st.leaving[0] = nil
			st.leaving = st.leaving[1:]
			continue
		}
		if st.left >= leavesPerTurn && l.Post(func() { s.leaveSome(l) }) {
			return
		}
		st.left++
		st.leaving[0].remove(x)
		s.leave(x)
	}
	st.leaving = nil
}

// manySubs is from where on a connection's subscriptions are kept in a map.
const manySubs = 16

// find returns the subscription to a topic or pattern by its name.
func (ses *session) find(name []byte) *sub {
	if ses.many != nil {
		return ses.many[string(name)]
	}
	for x := ses.subs; x != nil; x = x.next {
		if string(name) == x.topic.name {
			return x
		}
	}
	return nil
}

func (ses *session) add(x *sub) {
	ses.count++
	if ses.many == nil && ses.count > manySubs {
		ses.many = make(map[string]*sub, 2*manySubs)
		for y := ses.subs; y != nil; y = y.next {
			ses.many[y.topic.name] = y
		}
		ses.subs = nil
	}
	if ses.many != nil {
		ses.many[x.topic.name] = x
		return
	}
	x.next = ses.subs
	ses.subs = x
}

func (ses *session) remove(x *sub) {
	ses.count--
	if ses.many != nil {
		delete(ses.many, x.topic.name)
		return
	}
	for p := &ses.subs; *p != nil; p = &(*p).next {
		if *p == x {
			*p = x.next
			return
		}
	}
}

// any returns one of the subscriptions; nil: there is none.
func (ses *session) any() *sub {
	for _, x := range ses.many {
		return x
	}
	return ses.subs
}

// each calls f for every subscription; f may remove the one it is given.
func (ses *session) each(f func(*sub)) {
	for _, x := range ses.many {
		f(x)
	}
	for x := ses.subs; x != nil; {
		next := x.next
		f(x)
		x = next
	}
}
