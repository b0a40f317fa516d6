package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
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

	// Of durable topics: the position in the stream, that of the topic's event before (0: there is none;
	// wire.PrevUnknown: the server did not say), and when the event was stored.
	Seq, Prev uint64
	Time      time.Time
	// From is the verified sub of the publisher's token, where the operator has it told.
	From string
}

// SubscribeOptions are what a subscription may want besides events from now on.
type SubscribeOptions struct {
	// Since is from where on durable topics are read. The topic or pattern must lie inside one stream then.
	Since Since
	// OnGap is told of events that are gone, in its place between those that the handler gets, from the same goroutine.
	// Where it is nil, Options.OnError gets the *Gap.
	OnGap func(Gap)
}

// Subscription is one topic or pattern that the client is subscribed to, on each connection anew.
type Subscription struct {
	c       *Client
	pattern string
	opts    SubscribeOptions
	handle  func(Event)
	queue   *queue
	durable durable
	ctx     context.Context // ends with the subscription
	cancel  context.CancelFunc

	expiring chan int64    // capacity 1: the server's notice, with the token's exp
	dropped  chan struct{} // capacity 1: the server has dropped the subscription
	full     chan struct{} // capacity 1: the queue has no room for what comes from a stream
	first    chan struct{} // closed with the first ack
	done     chan struct{}
	err      error // set before done is closed

	session *session                // that has confirmed it last; guarded by c.mu
	overlap atomic.Pointer[overlap] // nil but while it moves to another connection
	early   earlyToken              // of the goroutine that runs it
	refusal atomic.Pointer[error]   // what the first ack waits for; nil: nothing yet
}

// Subscribe asks for the events of a topic or pattern and returns when the server has confirmed. handle is called for
// one event at a time, in order, from a goroutine of the subscription; it may take its time (see Options.QueueBytes)
// and may use the Client. ctx bounds the wait, not the subscription. When the server says that its refusal heals,
// Subscribe tries again, with back-off, until ctx ends.
//
// The subscription lives on across reconnects and token refreshes. One to durable topics, all in one stream, goes on from
// its position: the handler sees each event once, in order. Of other topics, events that are published while there is no
// connection are missed. It ends by Unsubscribe, with the client, or when the server refuses a token for good: see
// Done.
func (c *Client) Subscribe(ctx context.Context, pattern string, handle func(Event)) (*Subscription, error) {
	return c.SubscribeWith(ctx, pattern, SubscribeOptions{}, handle)
}

// SubscribeWith is Subscribe with options. It returns when the server has answered; what the stream has kept follows.
func (c *Client) SubscribeWith(ctx context.Context, pattern string, opts SubscribeOptions, handle func(Event)) (*Subscription, error) {
	if !wire.ValidPattern(pattern) {
		return nil, &wire.Error{Code: wire.BadTopic}
	}
	life, cancel := context.WithCancel(c.ctx)
	s := &Subscription{
		c: c, pattern: pattern, opts: opts, handle: handle, queue: newQueue(c.opts.QueueBytes), ctx: life, cancel: cancel,
		expiring: make(chan int64, 1), dropped: make(chan struct{}, 1), full: make(chan struct{}, 1),
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
	if since := opts.Since.wire; since.Kind == wire.SinceSeq {
		s.durable.handled = Position{Seq: since.N, Epoch: string(since.Epoch)}
	}
	go s.queue.serve(s.do, func(n uint64) {
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
		err := ctx.Err()
		if refusal := s.refusal.Load(); refusal != nil {
			err = fmt.Errorf("%w: %w", err, *refusal)
		}
		return nil, fmt.Errorf("subscribe to %s: %w", pattern, err)
	}
}

// Unsubscribe ends the subscription; queued events are dropped. It waits until the server knows, or ctx ends; the
// subscription ends in any case. The handler may still run with one last event when it returns.
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

// do is what the goroutine of the handler does next.
func (s *Subscription) do(i *item) {
	if i.gap != nil {
		if s.opts.OnGap != nil {
			s.opts.OnGap(*i.gap)
		} else {
			s.c.report(i.gap)
		}
	}
	if i.is {
		s.handle(i.event)
	}
	if i.at != (Position{}) {
		s.durable.setHandled(i.at)
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
	var refused refusals
	var refreshed int64 // the exp for which a new token has been asked already
	for attempt := 0; s.ctx.Err() == nil; {
		session, err := s.c.live(s.ctx)
		if err != nil {
			return err
		}
		err = s.subscribe(session)
		switch {
		case err == nil:
			s.arrive(session)
			if refused = (refusals{}); !confirmed {
				confirmed = true
				close(s.first)
			}
			began := time.Now()
			var dropped bool
			refreshed, dropped = s.hold(session, refreshed)
			if time.Since(began) >= s.c.opts.MaxBackoff {
				attempt = 0 // this is a new trouble, not the same one
			}
			if !dropped {
				continue
			}
		case errors.Is(err, ErrDisconnected), errors.Is(err, errOver):
			<-session.down
			continue // the next connection, which has its own back-off
		case errors.Is(err, wire.HistoryUnavailable) && s.durable.forget():
			continue // from now on, and the handler learns of the gap
		case s.ctx.Err() != nil, s.final(err, &refused, confirmed):
			return err
		default:
			s.refusal.Store(&err)
			s.c.report(fmt.Errorf("subscription to %s: %w", s.pattern, err))
		}
		sleep(s.ctx, backoff(attempt, s.c.opts.MinBackoff, s.c.opts.MaxBackoff))
		attempt++
	}
	return nil
}

// final reports whether there is no point in asking again, and counts err if it is a refused token. A caller still
// waits for a subscription that was never confirmed, and must learn of all that does not heal by itself. Only a token
// that has expired is asked for once more, as for a publish.
func (s *Subscription) final(err error, refused *refusals, confirmed bool) bool {
	if heals(err) {
		return false
	}
	token := unauthenticated(err)
	if token {
		refused.add()
	}
	if !confirmed {
		return !errors.Is(err, wire.TokenExpired) || refused.n > 1
	}
	if token {
		return s.c.giveUp(*refused)
	}
	var refusal *wire.Error
	return errors.As(err, &refusal)
}

func (s *Subscription) subscribe(session *session) error {
	token := "" // the connection has a credential
	if s.c.opts.Strategy == StrategyMessage {
		var err error
		if token, err = s.early.use(s.ctx, s.c, Request{Action: ActionSubscribe, Topic: s.pattern}); err != nil {
			return err
		}
	}
	err := s.ask(session, token)
	s.early.note(token, err)
	return err
}

// push takes an event that came over a connection to the handler's queue.
func (s *Subscription) push(from *session, e Event) {
	if s.pushStored(from, e) {
		return
	}
	o := s.overlap.Load()
	if o == nil && from.restarting {
		o = s.overlapWith(from) // the next connection may bring what this one brings now
	}
	if o != nil {
		o.push(from, e, s.queue)
		return
	}
	s.queue.push(e)
}

// overlapWith gives the overlap in which old is the old connection.
func (s *Subscription) overlapWith(old *session) *overlap {
	for {
		o := s.overlap.Load()
		if o != nil && o.old == old {
			return o
		}
		if next := newOverlap(old); s.overlap.CompareAndSwap(o, next) {
			return next
		}
	}
}

// arrive ends the move to session, which has confirmed the subscription: that to the old connection is given up.
func (s *Subscription) arrive(session *session) {
	if o := s.overlap.Load(); o != nil && o.old != session {
		// What NATS handed to the old node before it knew of the new subscription may still be on its way there.
		select {
		case <-time.After(arriveLag):
		case <-o.old.down:
		case <-s.ctx.Done():
		}
		s.leave(o.old)
		o.end(s.queue)
		time.AfterFunc(overlapLag, func() { s.overlap.CompareAndSwap(o, nil) })
	}
	s.c.mu.Lock()
	old := s.session
	s.session = session
	s.c.mu.Unlock()
	if old != nil && old != session && s.durable.isOn() {
		s.leave(old)
	}
}

// ask sends the subscribe and waits for the answer.
func (s *Subscription) ask(session *session, token string) error {
	if o := s.overlap.Load(); o != nil && o.old != session {
		o.begin()
	}
	select {
	case <-s.dropped: // tells of what is replaced now
	default:
	}
	since, renewal := s.durable.since(session, s.opts.Since.wire)
	call, err := session.send(s.ctx, wire.Subscribe, func(ack *wire.Message) {
		if ack != nil && !renewal {
			s.begin(session, since, ack)
		}
	}, func(id string) []byte {
		return wire.AppendSubscribeSince(nil, id, s.pattern, token, since)
	})
	if err != nil {
		return err
	}
	return call.wait(s.ctx)
}

// hold returns when it is time to subscribe again: on another connection, with another token, or since the server has
// dropped the subscription. exp is that of the token that is replaced: a notice that names no later one means that the
// source gave the same token again, and asking for it once more would be a loop.
func (s *Subscription) hold(session *session, refreshed int64) (exp int64, dropped bool) {
	var refresh <-chan time.Time
	for {
		select {
		case exp = <-s.expiring:
			if exp > refreshed {
				refresh = time.After(refreshDelay(time.Until(time.Unix(exp, 0))))
			}
		case <-refresh:
			return exp, false
		case <-s.dropped:
			return refreshed, true
		case <-s.full:
			s.catchUp(session)
			return refreshed, false
		case <-session.down:
			return refreshed, false
		case <-session.moved:
			if !s.durable.isOn() {
				s.overlapWith(session)
			}
			return refreshed, false
		case <-s.ctx.Done():
			return refreshed, false
		}
	}
}

// refreshDelay spreads the refreshes of many clients, whose tokens may all expire at once, over the second quarter of
// the time that is left.
func refreshDelay(left time.Duration) time.Duration {
	if left <= 0 {
		return 0
	}
	return left/4 + backoff(0, left/4, left/4)
}

func (s *Subscription) unsubscribe(wait bool) {
	s.c.mu.Lock()
	session := s.c.session
	s.c.mu.Unlock()
	if session == nil {
		return // a new connection starts with no subscriptions
	}
	call, err := session.send(s.c.ctx, wire.Unsubscribe, nil, func(id string) []byte {
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
	e := Event{Topic: s.pattern, Data: bytes.Clone(m.Data), Seq: m.Seq, Prev: m.Prev, From: string(m.From)}
	if m.Seq > 0 {
		e.Time, _ = time.Parse(time.RFC3339, string(m.Time))
	}
	if len(m.Pattern) > 0 {
		e.Topic, e.Pattern = string(m.Topic), s.pattern
	}
	return e
}
