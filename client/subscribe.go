package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Event is what a subscriber receives. The handler owns it.
type Event struct {
	Topic string
	// Pattern is the subscription's, if it has wildcards; else empty.
	Pattern string
	// Data is one JSON value, byte for byte as it was published.
	Data []byte
}

// Subscription is one topic or pattern that the client is subscribed to, on each connection anew.
type Subscription struct {
	c       *Client
	pattern string
	queue   *queue
	ctx     context.Context // ends with the subscription
	cancel  context.CancelFunc

	expiring chan int64    // capacity 1: the server's notice, with the token's exp
	dropped  chan struct{} // capacity 1: the server has dropped the subscription
	first    chan struct{} // closed with the first ack
	done     chan struct{}
	err      error // set before done is closed
}

// Subscribe asks for the events of a topic or pattern and returns when the server has confirmed. handle is called for
// one event at a time, in order, from a goroutine of the subscription; it may take its time (see Options.QueueBytes)
// and may use the Client. ctx bounds the wait, not the subscription.
//
// The subscription lives on across reconnects and token refreshes; events that are published while there is no
// connection are missed. It ends by Unsubscribe, with the client, or when the server refuses a token for good: see
// Done.
func (c *Client) Subscribe(ctx context.Context, pattern string, handle func(Event)) (*Subscription, error) {
	if !wire.ValidPattern(pattern) {
		return nil, &wire.Error{Code: wire.BadTopic}
	}
	life, cancel := context.WithCancel(c.ctx)
	s := &Subscription{
		c: c, pattern: pattern, queue: newQueue(c.opts.QueueBytes), ctx: life, cancel: cancel,
		expiring: make(chan int64, 1), dropped: make(chan struct{}, 1),
		first: make(chan struct{}), done: make(chan struct{}),
	}
	c.mu.Lock()
	err := c.err
	if err == nil && c.subs[pattern] != nil {
		err = fmt.Errorf("%w to %s", ErrSubscribed, pattern)
	}
	if err == nil {
		c.subs[pattern] = s
	}
	c.mu.Unlock()
	if err != nil {
		cancel()
		return nil, err
	}
	go s.queue.serve(handle, func(n uint64) {
		c.report(fmt.Errorf("%s: %w: %d", pattern, ErrSlowHandler, n))
	})
	go s.run()
	select {
	case <-s.first:
		return s, nil
	case <-s.done:
		return nil, s.err
	case <-ctx.Done():
		cancel()
		return nil, fmt.Errorf("subscribe to %s: %w", pattern, ctx.Err())
	}
}

// Unsubscribe ends the subscription; queued events are dropped. It waits until the server knows, or ctx ends; the
// subscription ends in any case. The handler may be at work on one last event when it returns.
func (s *Subscription) Unsubscribe(ctx context.Context) error {
	s.cancel()
	s.queue.close()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pattern is what was subscribed to.
func (s *Subscription) Pattern() string { return s.pattern }

// Done is closed when the subscription has ended.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err says why the subscription ended: nil while it has not and after Unsubscribe.
func (s *Subscription) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// run keeps the subscription until it ends, then cleans up.
func (s *Subscription) run() {
	err := s.keep()
	if s.ctx.Err() != nil {
		err = s.c.Err() // nil if it was Unsubscribe
	}
	if err == nil || errors.Is(err, ErrTimeout) { // the server may have it
		s.unsubscribe(err == nil)
	}
	s.cancel()
	s.queue.close()
	s.c.mu.Lock()
	delete(s.c.subs, s.pattern)
	s.c.mu.Unlock()
	s.err = err
	close(s.done)
}

// keep subscribes, again on every new connection and whenever the token is to be replaced. It returns when there is no
// point in trying on.
func (s *Subscription) keep() error {
	confirmed := false
	var refreshed int64 // the exp for which a new token has been asked already
	for attempt := 0; s.ctx.Err() == nil; {
		session, err := s.c.live(s.ctx)
		if err != nil {
			return err
		}
		err = s.subscribe(session)
		switch {
		case err == nil:
			if attempt = 0; !confirmed {
				confirmed = true
				close(s.first)
			}
			refreshed = s.hold(session, refreshed)
			continue
		case errors.Is(err, ErrDisconnected), errors.Is(err, errOver):
			<-session.down
			continue // the next connection, which has its own back-off
		case !confirmed || refused(err, attempt) || s.ctx.Err() != nil:
			return err
		}
		s.c.report(fmt.Errorf("subscription to %s: %w", s.pattern, err))
		sleep(s.ctx, backoff(attempt, s.c.opts.MinBackoff, s.c.opts.MaxBackoff))
		attempt++
	}
	return nil
}

// refused reports whether the server said no for good. attempt counts those before it: a token that is not accepted is
// asked for again a few times.
func refused(err error, attempt int) bool {
	var refusal *wire.Error
	if !errors.As(err, &refusal) || refusal.Code.Retry() {
		return false
	}
	return !refusal.Code.Auth() || attempt+1 >= tokenAttempts
}

func (s *Subscription) subscribe(session *session) error {
	token := "" // the connection has a credential
	if s.c.opts.Strategy == StrategyMessage {
		var err error
		if token, err = s.c.token(s.ctx, Request{Action: ActionSubscribe, Topic: s.pattern}); err != nil {
			return err
		}
	}
	call, err := session.send(s.ctx, nil, func(id string) []byte {
		return wire.AppendSubscribe(nil, id, s.pattern, token)
	})
	if err != nil {
		return err
	}
	return call.wait(s.ctx)
}

// hold returns when it is time to subscribe again: on another connection, or with another token. Its result is the exp
// of the token that is replaced: a notice that names no later one means that the source gave the same token again, and
// asking for it once more would be a loop.
func (s *Subscription) hold(session *session, refreshed int64) int64 {
	var refresh <-chan time.Time
	var exp int64
	for {
		select {
		case exp = <-s.expiring:
			if exp > refreshed {
				refresh = time.After(refreshDelay(time.Until(time.Unix(exp, 0))))
			}
		case <-refresh:
			return exp
		case <-s.dropped:
			return refreshed
		case <-session.down:
			return refreshed
		case <-s.ctx.Done():
			return refreshed
		}
	}
}

// refreshDelay spreads the refreshes of many clients, whose tokens may all expire at once, over the second quarter of
// the time that is left. A second is the least, so that tokens that live shorter than the server's notice do not make
// a busy loop, whatever this machine's clock says.
func refreshDelay(left time.Duration) time.Duration {
	quarter := left / 4
	if quarter <= 0 {
		return time.Second
	}
	return max(time.Second, quarter+backoff(0, quarter, quarter))
}

func (s *Subscription) unsubscribe(wait bool) {
	s.c.mu.Lock()
	session := s.c.session
	s.c.mu.Unlock()
	if session == nil {
		return // a new connection starts with no subscriptions
	}
	call, err := session.send(s.c.ctx, nil, func(id string) []byte {
		return wire.AppendUnsubscribe(nil, id, s.pattern)
	})
	if err == nil && wait {
		_ = call.wait(s.c.ctx) // whatever the answer: the connection holds it no longer, or is gone
	}
}

// subscription finds the one that key, a topic or pattern, belongs to.
func (c *Client) subscription(key []byte) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subs[string(key)]
}

func (s *Subscription) event(m *wire.Message) Event {
	e := Event{Topic: s.pattern, Data: bytes.Clone(m.Data)}
	if len(m.Pattern) > 0 {
		e.Topic, e.Pattern = string(m.Topic), s.pattern
	}
	return e
}
