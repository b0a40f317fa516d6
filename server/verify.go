//go:build linux

package server

import (
	"sync"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// held is an envelope that waits for its token's signature to be verified.
type held struct {
	conn  *loop.Conn
	env   wire.Envelope // slices of buf
	buf   []byte
	token Token
	code  wire.Code
}

// hold copies an envelope, stops reading its connection and has a worker verify
// its token. A connection has one envelope in the queue at most, so the queue
// is fair between connections and no longer than they are many.
func (s *Server) hold(c *loop.Conn, env *wire.Envelope) {
	h := &held{conn: c, env: *env}
	h.buf = make([]byte, 0, len(env.ID)+len(env.Topic)+len(env.Token)+len(env.Data)+len(env.MsgID))
	for _, p := range []*[]byte{&h.env.ID, &h.env.Topic, &h.env.Token, &h.env.Data, &h.env.MsgID} {
		at := len(h.buf)
		h.buf = append(h.buf, *p...)
		*p = h.buf[at:len(h.buf):len(h.buf)]
	}
	c.Pause()
	s.verify.push(h, s.verified)
}

// verified goes on with a held envelope, on its connection's loop.
func (s *Server) verified(h *held) {
	c := h.conn
	if c.Open() {
		ses := c.Data.(*session)
		if h.code == wire.OK {
			ses.token = h.token
			s.act(c, ses, &h.env, h.token)
		} else {
			s.refuse(c, ses, &h.env, h.code, "")
		}
	}
	c.Resume()
}

// verifyPool is a bounded number of goroutines that verify signatures.
type verifyPool struct {
	auth    Authorizer
	workers sync.WaitGroup

	mu     sync.Mutex
	some   sync.Cond
	queue  []*held     // guarded by mu
	done   func(*held) // guarded by mu
	closed bool        // guarded by mu
}

func (p *verifyPool) start(workers int, auth Authorizer) {
	p.auth = auth
	p.some.L = &p.mu
	for range workers {
		p.workers.Go(p.work)
	}
}

func (p *verifyPool) push(h *held, done func(*held)) {
	p.mu.Lock()
	p.queue = append(p.queue, h)
	p.done = done
	p.mu.Unlock()
	p.some.Signal()
}

func (p *verifyPool) work() {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.some.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		h, done := p.queue[0], p.done
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.mu.Unlock()

		h.token, h.code = p.auth.Verify(h.env.Token)
		h.conn.Loop().Post(func() { done(h) })
	}
}

// waiting is the length of the queue.
func (p *verifyPool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

func (p *verifyPool) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.some.Broadcast()
	p.workers.Wait()
}
