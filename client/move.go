package client

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// retireInterval is how often a connection that is given up is looked at.
const retireInterval = 10 * time.Millisecond

// elsewhere connects to another node than that of s, which restarts and serves until then. It gives nil when s has ended
// first, or the client.
func (c *Client) elsewhere(s *session) *session {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	go func() {
		select {
		case <-s.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	// The server tells all its clients at once: they spread themselves, and leave time for the move. Before that, the
	// subscriptions note for a while what comes.
	if !sleep(ctx, overlapLag+rand.N(s.within/2+1)) {
		return nil
	}
	for attempt := 0; ; attempt++ {
		next, err := c.connect(ctx)
		if err == nil {
			if next.node != s.node {
				return next
			}
			next.close() // the node that restarts still accepts
		}
		if !sleep(ctx, c.pause(attempt, err)) {
			return nil
		}
	}
}

// move makes next the connection, and s one that is given up when nothing needs it any more. It reports false if the client
// has ended.
//
// Publishes wait until those that went to s are answered, so that the order of one goroutine's publishes holds, and for
// arriveLag more: a node acknowledges what it has handed to NATS, which may still be on its way there.
// Subscriptions move by themselves, see Subscription.keep.
func (c *Client) move(s, next *session) bool {
	c.detach(s)
	for _, publish := range s.leave() {
		select {
		case <-publish.done: // within Options.AckTimeout
		case <-c.ctx.Done():
		}
	}
	if wait := arriveLag - time.Since(time.Unix(0, s.lastPublish.Load())); wait > 0 {
		sleep(c.ctx, wait)
	}
	moved := c.attach(next)
	close(s.moved)
	c.retiring.Go(func() {
		for c.isNeeded(s) {
			if !sleep(c.ctx, retireInterval) {
				break
			}
		}
		s.close()
	})
	return moved
}

// isNeeded reports whether something still has to come over s.
func (c *Client) isNeeded(s *session) bool {
	s.mu.Lock()
	busy := len(s.calls) > 0
	s.mu.Unlock()
	if busy {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, sub := range c.subs {
		if sub.session == s && !s.isDown() {
			return true
		}
	}
	return false
}

// leave makes s refuse further publishes, and gives those that are unanswered.
func (s *session) leave() (unanswered []*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	for _, call := range s.calls {
		if call.kind == wire.Publish {
			unanswered = append(unanswered, call)
		}
	}
	return unanswered
}
