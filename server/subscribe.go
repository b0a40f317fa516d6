//go:build linux

package server

import (
	"bytes"
	"math"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// sub is one subscription of one connection.
type sub struct {
	loop.Member // in a group once the bus has confirmed; Until is when the token expires
	topic       *topic
	token       Token
	next        *sub
	warned      bool // the client knows that the token expires soon
	gone        bool // it has ended, maybe before the bus has confirmed it
	relies      bool // token is the connection's credential
}

const never = math.MaxInt64

// subscribe adds a subscription, or gives the one that is there a new token.
func (s *Server) subscribe(c *loop.Conn, ses *session, env *wire.Envelope, token Token) {
	x := ses.find(env.Topic)
	relies := env.Token == nil
	switch {
	case !relies && s.opts.Strategies&Message == 0:
		s.refuse(c, ses, env, wire.Forbidden, "the strategy message is not enabled here: leave the token out")
		return
	case !wire.ValidPattern(env.Topic):
		s.refuse(c, ses, env, wire.BadTopic, "")
		return
	case !token.MaySubscribe(env.Topic):
		s.refuse(c, ses, env, wire.Forbidden, "")
		return
	case env.Since.Kind != wire.SinceNone:
		s.refuse(c, ses, env, wire.HistoryUnavailable, "")
		return
	case x == nil && int(ses.count) >= s.opts.Subscriptions:
		s.refuse(c, ses, env, wire.TooManySubscriptions, "")
		return
	}
	ses.authFailures = 0
	fresh := x == nil
	if fresh {
		x = &sub{Member: loop.Member{Conn: c}, topic: s.topics.acquire(env.Topic)}
		ses.add(x)
		c.Loop().Data.(*loopState).subs++
	}
	x.token, x.Until, x.warned, x.relies = token, token.Expires(), false, relies
	ses.due = min(ses.due, x.Until-int64(s.opts.ExpiryNotice))

	if x.topic.isLive() {
		s.confirmed(c, x, env.ID, wire.OK)
		return
	}
	// The ack waits for the bus: what is published after it must arrive.
	id := bytes.Clone(env.ID)
	if code, waits := s.topics.await(x.topic, func(code wire.Code) {
		c.Loop().Post(func() { s.confirmed(c, x, id, code) })
	}); !waits {
		s.confirmed(c, x, id, code)
	}
}

// confirmed ends a subscribe: the bus delivers the topic, or cannot.
func (s *Server) confirmed(c *loop.Conn, x *sub, id []byte, code wire.Code) {
	if !c.Open() {
		return
	}
	ses := c.Data.(*session)
	st := c.Loop().Data.(*loopState)
	env := wire.Envelope{Kind: wire.Subscribe, ID: id, Topic: []byte(x.topic.name)}
	switch {
	case x.gone:
		s.refuse(c, ses, &env, wire.Unavailable, "the subscription ended before it began")
		return
	case code != wire.OK:
		s.drop(c, ses, x)
		s.refuse(c, ses, &env, code, "")
		return
	}
	if x.Group() == nil {
		slot := &x.topic.groups[c.Loop().Index()]
		g := slot.Load()
		if g == nil {
			g = new(loop.Group)
		}
		g.Join(&x.Member)
		slot.Store(g)
	}
	if len(id) > 0 {
		st.reply = wire.AppendSubscribeAck(st.reply[:0], id, x.token.ExpSeconds())
		c.Send(ws.OpText, st.reply)
	}
}

func (s *Server) unsubscribe(c *loop.Conn, ses *session, env *wire.Envelope) {
	if !wire.ValidPattern(env.Topic) {
		s.refuse(c, ses, env, wire.BadTopic, "")
		return
	}
	if x := ses.find(env.Topic); x != nil {
		s.drop(c, ses, x)
	}
	if len(env.ID) > 0 {
		st := c.Loop().Data.(*loopState)
		st.reply = wire.AppendAck(st.reply[:0], env.ID)
		c.Send(ws.OpText, st.reply)
	}
}

// drop ends a subscription.
func (s *Server) drop(c *loop.Conn, ses *session, x *sub) {
	if x.gone {
		return // closing the connection has ended them all
	}
	ses.remove(x)
	s.leave(c, x)
}

// leave takes a subscription out of its topic.
func (s *Server) leave(c *loop.Conn, x *sub) {
	x.gone = true
	if g := x.Group(); g != nil {
		x.Leave()
		if g.Len() == 0 {
			x.topic.groups[c.Loop().Index()].Store(nil)
		}
	}
	c.Loop().Data.(*loopState).subs--
	s.topics.release(x.topic)
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
