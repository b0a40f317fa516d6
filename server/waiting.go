package server

import (
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// waiting is an envelope that cannot go on yet. A connection has one at most, and
// is not read meanwhile: what it sends takes effect in the order in which it was
// sent, TCP makes its sender wait, and queues are fair between connections. No
// goroutine waits with it, and the loop goes on with other connections.
//
// When what it waits for has come, it goes on from its stage ([request.goOn]),
// and its token is checked once more.
type waiting struct {
	conn  *loop.Conn
	stage waitStage
	env   wire.Envelope // slices of one buffer of its own
	token *authz.Token
	at    int         // in loopState.forRoom
	gone  atomic.Bool // its connection has closed
	timer *time.Timer // of a penalty, or of how long an HTTP request waits for room
}

// waitStage is what an envelope waits for.
type waitStage uint8

const (
	// forSignature: a worker verifies its token's signature.
	forSignature waitStage = iota
	// forSubscribes: NATS confirms subscribes that the connection sent before.
	forSubscribes
	// forStore: the cluster notes that a one-use token is used.
	forStore
	// forRoom: the bus or a loop is behind.
	forRoom
	// forPenalty: the envelope was refused; its sender is read again after a pause.
	forPenalty
	// forReceipt: a stream keeps the event, which came by HTTP; the next request may
	// not be answered before.
	forReceipt
)

// bytes is the memory that the envelope's parts take.
func (w *waiting) bytes() int {
	e := &w.env
	return len(e.ID) + len(e.Topic) + len(e.Token) + len(e.Data) + len(e.MsgID) + len(e.Since.Epoch)
}

// awaiting is the request as something that waits: a copy of its envelope or,
// when that has waited before, what it waited in.
func (r *request) awaiting(at waitStage) *waiting {
	w := r.wait
	if w == nil {
		w = &waiting{conn: r.conn, env: r.env}
		buf := make([]byte, 0, w.bytes())
		for _, part := range []*[]byte{&w.env.ID, &w.env.Topic, &w.env.Token, &w.env.Data, &w.env.MsgID, &w.env.Since.Epoch} {
			if *part == nil {
				continue // an absent member stays absent
			}
			from := len(buf)
			buf = append(buf, *part...)
			*part = buf[from:len(buf):len(buf)]
		}
	}
	w.token, w.stage = r.token, at
	return w
}

// park stops reading the connection until w goes on.
func (r *request) park(w *waiting) {
	r.ses.waiting = w
	r.conn.Pause()
}

// awaitWorker has a worker of p do work, which may set w's token, and goes on
// with its result. When the queue is full the envelope is refused.
func (r *request) awaitWorker(p *pool, at waitStage, work func(w *waiting) wire.Code) {
	w, s := r.awaiting(at), r.Server
	queued := p.push(job{size: w.bytes(), gone: &w.gone, run: func() {
		code := work(w)
		w.conn.Loop().Post(func() { s.goOn(w, code) })
	}})
	if !queued {
		r.refuse(wire.Unavailable, "too many wait to be checked")
		return
	}
	r.park(w)
}

// awaitSignature has a worker verify the token.
func (r *request) awaitSignature() {
	s, from := r.Server, addressKey(r.addr())
	r.awaitWorker(&s.verify, forSignature, func(w *waiting) (code wire.Code) {
		w.token, code = s.auth.VerifyFrom(w.env.Token, from)
		return code
	})
}

// awaitStore has the cluster note that the token is used. With NATS away that
// fails closed: a token that may have been used is refused.
func (r *request) awaitStore() {
	s := r.Server
	r.awaitWorker(&s.once, forStore, func(w *waiting) wire.Code { return s.useOnce(w.token) })
}

// awaitSubscribes waits until NATS has confirmed, or refused, the subscribes that
// the connection sent before.
func (r *request) awaitSubscribes() { r.park(r.awaiting(forSubscribes)) }

// hasRoom says whether an event may be handed to the bus now.
func (s *Server) hasRoom() bool { return s.bus.HasRoom() && s.engine.HasRoom() }

// awaitRoom waits until the bus, the stream and the loops keep up.
func (r *request) awaitRoom() {
	w := r.awaiting(forRoom)
	w.at = len(r.loop.forRoom)
	r.loop.forRoom = append(r.loop.forRoom, w)
	r.park(w)
	if r.ses.post != nil && w.timer == nil {
		s := r.Server
		w.timer = time.AfterFunc(httpRoomWait, func() {
			w.conn.Loop().Post(func() { s.noRoom(w) })
		})
	}
}

// noRoom refuses a request that has waited long for room, if it still does.
func (s *Server) noRoom(w *waiting) {
	if w.stage != forRoom || w.gone.Load() || sessionOf(w.conn).waiting != w {
		return
	}
	stateOf(w.conn.Loop()).leaveRoom(w)
	s.goOn(w, wire.Unavailable)
}

// Room implements the bus's sink, and [loop.Options.OnRoom]: what waits for room
// goes on. Any goroutine may call it.
func (s *Server) Room() {
	for _, l := range s.engine.Loops() {
		l.Post(func() { s.room(l) })
	}
	s.httpRoom.happened()
}

// room goes on with what waits for room on l, for as long as there is some. Those
// that are left are called by the next Room: there was no room after it was
// called, so that there is one to come. What is for a stream that has none waits again.
func (s *Server) room(l *loop.Loop) {
	st := stateOf(l)
	list := st.forRoom
	st.forRoom = nil
	for i, w := range list {
		if !s.hasRoom() {
			for _, w := range list[i:] {
				if !w.gone.Load() {
					w.at = len(st.forRoom)
					st.forRoom = append(st.forRoom, w)
				}
			}
			return
		}
		l.ReadClock() // many may go on, and a token may expire meanwhile
		s.goOn(w, wire.OK)
	}
}

// awaitPenalty pauses a connection whose envelope was refused.
func (r *request) awaitPenalty(d time.Duration) {
	s := r.Server
	r.env, r.wait = wire.Envelope{}, nil
	w := r.awaiting(forPenalty)
	r.park(w)
	w.timer = time.AfterFunc(d, func() {
		w.conn.Loop().Post(func() { s.goOn(w, wire.OK) })
	})
}

// goOn goes on with an envelope that has waited, unless its connection has closed.
// code is what was found out meanwhile.
func (s *Server) goOn(w *waiting, code wire.Code) {
	if !w.conn.Open() {
		return
	}
	r := s.request(w.conn)
	r.ses.waiting, r.wait = nil, w
	r.env, r.token = w.env, w.token
	r.goOn(w.stage, code)
	if w.timer != nil && r.ses.waiting != w {
		w.timer.Stop() // or it would keep the connection's memory
	}
	if r.ses.waiting == nil {
		w.conn.Resume() // handles what is behind it, as a request of its own
	}
}

func (r *request) goOn(from waitStage, code wire.Code) {
	switch {
	case from == forPenalty:
		if r.ses.post != nil {
			r.answerHeld()
		}
		return
	case from == forRoom && code != wire.OK:
		r.refuse(code, notKeepingUp)
		return
	case code != wire.OK:
		r.refuse(code, "")
		if from == forSignature {
			r.penalise(code)
		}
		return
	case from == forSignature:
		r.ses.token = r.token
		r.perform()
		return
	case r.env.Kind == wire.Unsubscribe:
		r.unsubscribe()
		return
	}
	if code := r.token.Check(r.now()); code != wire.OK {
		r.refuse(code, "") // it has ended meanwhile
		return
	}
	if from == forSubscribes {
		r.publishInOrder()
	} else {
		r.publishNow()
	}
}

// leaveWaiting forgets what a connection that has closed was waiting with.
func (st *loopState) leaveWaiting(ses *session) {
	w := ses.waiting
	if w == nil {
		return
	}
	ses.waiting = nil
	w.gone.Store(true)
	if w.timer != nil {
		w.timer.Stop() // or it would keep the connection's memory
	}
	if w.stage == forRoom {
		st.leaveRoom(w)
	}
}

// leaveRoom takes an envelope out of those that wait for room.
func (st *loopState) leaveRoom(w *waiting) {
	if w.at < len(st.forRoom) && st.forRoom[w.at] == w {
		last := len(st.forRoom) - 1
		st.forRoom[w.at] = st.forRoom[last]
		st.forRoom[w.at].at = w.at
		st.forRoom = st.forRoom[:last]
	}
}
