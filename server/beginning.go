package server

import (
	"context"
	"math"
	"sync"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/wire"
)

// beginning turns what since asks for into a position of a stream.
type beginning struct {
	since wire.Since
	floor int64 // what was stored before may not be read, in Unix nanoseconds; math.MinInt64: all may

	head     wire.StreamHead
	after    uint64 // what since asks for stands behind it
	complete bool   // nothing of that is gone
	first    uint64 // the oldest event that is there, or may be read
}

// from begins with what the leader says. It is all that is needed where seeks is false.
func (b *beginning) from(head wire.StreamHead) {
	b.head, b.after, b.complete, b.first = head, head.Last, true, head.First
	if b.since.Kind != wire.SinceSeq {
		b.complete = !b.since.OrNow
		return
	}
	n, epoch := b.since.N, b.since.Epoch
	if epoch != nil && string(epoch) != head.Epoch || n > head.Last {
		b.complete = false // a position in another life of the stream, or in another stream
		if !b.since.OrNow {
			b.after = 0
		}
		return
	}
	b.after = n
	b.complete = n == 0 || n+1 >= head.First
}

// seeks says whether the stream has to be asked as well.
func (b *beginning) seeks() bool {
	switch b.since.Kind {
	case wire.SinceNone:
		return false
	case wire.SinceSeq:
		return b.floor > math.MinInt64
	default:
		return true
	}
}

// mayRead says whether a token may read what since asks for of the topics that a pattern
// matches.
func (s *Server) mayRead(token *authz.Token, pattern []byte, since wire.Since) (wire.Code, string) {
	switch home, reason := s.homeOf(pattern); {
	case home == nil:
		return wire.HistoryUnavailable, reason
	case token.History() < 0:
		return wire.HistoryUnavailable, `the token reads no history (notify.history is "none", or its issuer may grant none): subscribe without since`
	case since.Kind == wire.SinceLast && since.N > 1 && wire.HasWildcard(pattern):
		return wire.BadEnvelope, `since with last is {"last":1} for a pattern: the last event of each topic`
	}
	return wire.OK, ""
}

// seek asks the stream. It is called by a worker.
func (s *Server) seek(b *beginning, x *home, pattern string) (err error) {
	ctx, cancel := context.WithTimeout(s.streamContext, streamTimeout)
	defer cancel()
	switch {
	case b.since.Kind == wire.SinceTime:
		b.after, err = x.Seek(ctx, pattern, b.since)
		// Where the oldest event is part of the answer, there were others, which may be too.
		b.complete = b.head.First <= 1 || b.after >= b.head.First
	case b.since.Kind == wire.SinceLast && wire.HasWildcard(pattern):
		b.after = 0 // read by LastOfEach
	case b.since.Kind == wire.SinceLast:
		b.after, err = x.Seek(ctx, pattern, b.since)
	}
	if err != nil || b.floor == math.MinInt64 {
		return err
	}
	floor, err := x.Seek(ctx, pattern, wire.Since{Kind: wire.SinceTime, Time: b.floor})
	if floor > b.after {
		if floor >= b.head.First {
			b.complete = false
		}
		b.after, b.first = floor, floor+1
	}
	return err
}

// heads are the questions to a stream's leader that are not answered. Many ask at the same
// time, and are told the same.
type heads struct {
	mu      sync.Mutex
	asking  bool                           // guarded by mu
	waiting []func(wire.StreamHead, error) // guarded by mu
}

// askHead has a worker ask a stream's leader how far it is, after the call, and calls done
// with the answer: from there, or at once.
func (s *Server) askHead(x *home, done func(wire.StreamHead, error)) {
	h := &x.heads
	h.mu.Lock()
	h.waiting = append(h.waiting, done)
	asks := !h.asking
	h.asking = true
	h.mu.Unlock()
	if asks && !s.replays.push(job{run: func() { s.answerHeads(x) }}) {
		for _, done := range h.next() {
			done(wire.StreamHead{}, errTooLate)
		}
		h.next() // nobody asks
	}
}

// next takes those that wait; nil: nobody does, and the next one has to ask.
func (h *heads) next() []func(wire.StreamHead, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := h.waiting
	h.waiting = nil
	h.asking = len(waiting) > 0
	return waiting
}

func (s *Server) answerHeads(x *home) {
	for waiting := x.heads.next(); waiting != nil; waiting = x.heads.next() {
		ctx, cancel := context.WithTimeout(s.streamContext, streamTimeout)
		head, err := x.Head(ctx)
		cancel()
		for _, done := range waiting {
			done(head, err)
		}
	}
}
