//go:build linux

package server

import (
	"sync"
	"time"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// held is an envelope that waits for something that takes too long for a loop:
// its token's signature, or whether a one-use token was used.
type held struct {
	env   wire.Envelope // slices of one buffer
	token Token
	code  wire.Code
}

// hold copies an envelope, stops reading its connection, has a worker of p do work
// and goes on with then, unless the connection has closed meanwhile. A
// connection has one envelope in the queue at most, so the queue is fair between
// connections. When it is full the envelope is refused.
func (s *Server) hold(p *pool, c *loop.Conn, env *wire.Envelope, work func(*held), then func(*session, *held)) {
	h := &held{env: *env}
	buf := make([]byte, 0, len(env.ID)+len(env.Topic)+len(env.Token)+len(env.Data)+len(env.MsgID))
	for _, part := range []*[]byte{&h.env.ID, &h.env.Topic, &h.env.Token, &h.env.Data, &h.env.MsgID} {
		at := len(buf)
		buf = append(buf, *part...)
		*part = buf[at:len(buf):len(buf)]
	}
	st := c.Loop().Data.(*loopState)
	held := later(p, c, func() { work(h) }, func() {
		if !c.Open() {
			return
		}
		st.held = false
		then(c.Data.(*session), h)
		if !st.held { // for its signature first, then for the store
			c.Resume()
		}
	})
	if !held {
		s.refuse(c, c.Data.(*session), env, wire.Unavailable, "too many wait to be checked")
		return
	}
	c.Pause()
	st.held = true
}

const (
	// maxVerified is how many signatures a loop checks itself in one turn. A worker
	// costs, beside the signature, two threads that are woken: half as much again.
	// Two signatures are what 20 deliveries take, of which a turn may have thousands.
	maxVerified = 2
	// distrustFor is how long a loop checks no more after one that was bad, so that
	// a flood of them takes a hundredth of its time; workers bear the rest.
	distrustFor = 10 * time.Millisecond
)

// mayVerify says whether c's loop may check the signature of a new token itself.
func (s *Server) mayVerify(c *loop.Conn, ses *session, token []byte) bool {
	st := c.Loop().Data.(*loopState)
	if st.verified >= maxVerified || ses.authFailures > 0 || c.Loop().Now() < st.distrust || !s.auth.Brief(token) {
		return false
	}
	st.verified++
	return true
}

// holdVerify holds an envelope until its token has been verified.
func (s *Server) holdVerify(c *loop.Conn, env *wire.Envelope) {
	s.hold(&s.verify, c, env, func(h *held) {
		h.token, h.code = s.auth.Verify(h.env.Token)
	}, func(ses *session, h *held) {
		if h.code != wire.OK {
			s.refuse(c, ses, &h.env, h.code, "")
			s.penalise(c, h.code)
			return
		}
		ses.token = h.token
		s.act(c, ses, &h.env, h.token)
	})
}

// holdOnce holds a publish until the cluster has noted that its token is used.
// With NATS away that fails closed: a token that may have been used is refused.
func (s *Server) holdOnce(c *loop.Conn, env *wire.Envelope, token Token) {
	s.hold(&s.blocking, c, env, func(h *held) {
		h.code = s.useOnce(token)
	}, func(ses *session, h *held) {
		if h.code == wire.OK {
			h.code = token.Check(c.Loop().Now()) // it may have ended meanwhile
		}
		if h.code != wire.OK {
			s.refuse(c, ses, &h.env, h.code, "")
			return
		}
		s.send(c, ses, &h.env)
	})
}

// holdRoom holds a publish while the bus or a loop is behind, and with it its
// connection: TCP makes the publisher wait, and no loop does.
func (s *Server) holdRoom(c *loop.Conn, env *wire.Envelope) {
	s.hold(&s.blocking, c, env, func(*held) {
		s.bus.AwaitRoom()
		s.engine.AwaitRoom()
	}, func(ses *session, h *held) {
		s.sendNow(c, ses, &h.env)
	})
}

// pool is a bounded number of goroutines for what blocks or costs much.
type pool struct {
	workers sync.WaitGroup

	mu     sync.Mutex
	some   sync.Cond
	queue  []job // guarded by mu
	closed bool  // guarded by mu
}

// poolQueue bounds what waits for a pool. Connections that come, ask and go
// leave their questions behind, so their number alone is no bound.
const poolQueue = 1 << 15

// job is work, and what to call behind it, both on a worker.
type job struct{ work, done func() }

func (p *pool) start(workers int) {
	p.some.L = &p.mu
	for range workers {
		p.workers.Go(p.run)
	}
}

// push returns false when the queue is full.
func (p *pool) push(work, done func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) >= poolQueue {
		return false
	}
	p.queue = append(p.queue, job{work, done})
	p.some.Signal()
	return true
}

func (p *pool) run() {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.some.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		j := p.queue[0]
		p.queue[0] = job{}
		p.queue = p.queue[1:]
		p.mu.Unlock()
		j.work()
		j.done()
	}
}

// waiting is the length of the queue.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

func (p *pool) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.some.Broadcast()
	p.workers.Wait()
}
