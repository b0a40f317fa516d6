package bus

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// confirmTimeout bounds the wait for NATS's answer to new subscriptions.
const confirmTimeout = 5 * time.Second

// maxLingering bounds how many subscriptions without a subscriber NATS keeps. When there are more the earliest
// ends at once: clients that subscribe to ever new topics and leave them must not fill memory.
const maxLingering = 4 << 10

// maxReaped is how many subscriptions end at once, each some microseconds of NATS's time. What is published meanwhile
// waits for them, and those that take up a subscription for the tables.
const maxReaped = 256

// interest is the set of NATS subscriptions: one for each topic and pattern.
type interest struct {
	patterns patterns // those with wildcards
	bySub    sync.Map // *nats.Subscription → *subscription of a remote, read by the shards without mu

	mu        sync.Mutex
	ended     bool // no more Subscribe
	byPattern map[string]*subscription
	byHandle  map[uint32]*subscription // without those that linger
	waiting   []waiter                 // for confirm
	lingering []linger                 // for reap, earliest first

	confirm, reap chan struct{} // wake-ups, capacity 1

	slow         map[*subscription]struct{} // of a remote, that have dropped messages
	droppedByOld int                        // by subscriptions that are gone

	lastDenial error         // the last permission error that onError heard of
	denial     chan struct{} // wake-up, capacity 1
}

// A subscription is the interest in one pattern. mu of interest guards what is not atomic.
type subscription struct {
	nats      *nats.Subscription // of a remote
	sid       uint64             // of a link
	pattern   string
	wild      bool
	handle    atomic.Uint64 // hasHandle | handle; 0 while it lingers
	owner     uint64        // counts Subscribe and Unsubscribe, to notice that it changed hands
	confirmed bool
	streams   []*Stream // that have topics of the pattern
	stored    bool      // all of them lie in one stream: nothing comes but from there
	denied    bool      // NATS account permissions forbid it
}

const hasHandle = 1 << 32 // in subscription.handle: tells handle 0 from none

type waiter struct {
	sub   *subscription // nil: fail it
	owner uint64
	done  func(wire.Code)
}

type linger struct {
	sub   *subscription
	owner uint64
	until time.Time
}

func (in *interest) init() {
	in.byPattern = make(map[string]*subscription)
	in.byHandle = make(map[uint32]*subscription)
	in.slow = make(map[*subscription]struct{})
	in.confirm = make(chan struct{}, 1)
	in.reap = make(chan struct{}, 1)
	in.denial = make(chan struct{}, 1)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Subscribe registers interest in pattern, which the caller has validated, under handle. The caller
// chooses handles and has one per pattern. SUB is on its way before Subscribe returns, so that a Publish
// after it on this bus is received. done is called exactly once, from a goroutine of the bus, after NATS
// confirmed: with wire.OK, or with wire.Unavailable, after which the interest is gone (NATS was
// unreachable or slow, or its permissions forbid the subject, which is logged).
//
// NATS sends an event once for all patterns with wildcards that match it, however many they are: for NATS
// they are one queue group, whose only member is this node
// (https://docs.nats.io/nats-concepts/core-nats/queue). A topic without wildcards is a subscription of its own,
// so an event comes at most twice.
//
// Confirmed interest survives reconnects. A pattern that still lingers after Unsubscribe is taken over,
// with the events that are just under way.
func (b *Bus) Subscribe(handle uint32, pattern string, done func(wire.Code)) {
	in := &b.interest
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		go done(wire.Unavailable)
		return
	}
	w := waiter{done: done}
	if b.connected.Load() {
		sub, err := b.take(handle, pattern)
		if err != nil {
			b.log.Error("NATS refused a subscription", zap.String("pattern", pattern), zap.Error(err))
		} else {
			w.sub, w.owner = sub, sub.owner
		}
	}
	in.waiting = append(in.waiting, w)
	wake(in.confirm)
}

// take finds or makes the subscription for pattern and gives it to handle.
func (b *Bus) take(handle uint32, pattern string) (*subscription, error) {
	in := &b.interest
	sub := in.byPattern[pattern]
	if sub == nil {
		sub = &subscription{pattern: pattern, wild: wire.HasWildcard([]byte(pattern))}
		sub.handle.Store(hasHandle | uint64(handle))
		if sub.streams, sub.stored = b.streamsOf(pattern); !sub.stored {
			if err := b.subscribe(sub); err != nil {
				return nil, err
			}
		}
		for _, s := range sub.streams {
			s.follower.add(sub)
		}
		in.byPattern[pattern] = sub
	} else if old := sub.handle.Load(); old != 0 {
		delete(in.byHandle, uint32(old))
	}
	sub.owner++
	sub.handle.Store(hasHandle | uint64(handle))
	in.byHandle[handle] = sub
	return sub, nil
}

// subscribe has NATS send what is published to a pattern.
func (b *Bus) subscribe(sub *subscription) error {
	in := &b.interest
	if sub.wild {
		in.patterns.add(sub) // before its first event can come
	}
	err := b.events.subscribe(sub)
	if err != nil && sub.wild {
		in.patterns.remove(sub)
	}
	return err
}

// Unsubscribe ends the interest under handle; an unknown handle is ignored. NATS learns of it only after
// Options.Linger. The round that is being handed over may still bring events for handle, later ones do not:
// do not give handle to another pattern before every shard's Flush.
func (b *Bus) Unsubscribe(handle uint32) {
	in := &b.interest
	in.mu.Lock()
	defer in.mu.Unlock()
	sub := in.byHandle[handle]
	if sub == nil {
		return
	}
	delete(in.byHandle, handle)
	sub.handle.Store(0)
	sub.owner++
	in.lingering = append(in.lingering, linger{sub, sub.owner, time.Now().Add(b.linger)})
	if n := len(in.lingering); n == 1 || n > maxLingering {
		wake(in.reap)
	}
}

// forget takes sub out of every table. mu is held. The caller then calls drop without mu, since
// nats.go may hold its own lock while it dials.
func (in *interest) forget(sub *subscription) {
	if h := sub.handle.Swap(0); h != 0 {
		delete(in.byHandle, uint32(h))
	}
	delete(in.byPattern, sub.pattern)
	if sub.wild && !sub.stored {
		in.patterns.remove(sub)
	}
	for _, s := range sub.streams {
		s.follower.remove(sub)
	}
	if sub.nats == nil {
		return
	}
	in.bySub.Delete(sub.nats)
	if _, ok := in.slow[sub]; ok {
		if n, err := sub.nats.Dropped(); err == nil {
			in.droppedByOld += n
		}
		delete(in.slow, sub)
	}
}

func (in *interest) end() {
	in.mu.Lock()
	in.ended = true
	in.mu.Unlock()
}

// confirm runs for the life of the bus. One PING and PONG confirms all subscriptions whose SUB was written
// before it; those that come meanwhile make up the next batch.
func (b *Bus) confirm() {
	in := &b.interest
	for {
		quit := false
		select {
		case <-in.confirm:
		case <-b.quit:
			quit = true
		}
		in.mu.Lock()
		batch := in.waiting
		in.waiting = nil
		ask := false
		for _, w := range batch {
			ask = ask || w.sub != nil && !w.sub.confirmed && !w.sub.stored
		}
		in.mu.Unlock()
		var err error
		if ask {
			if err = b.flush(context.Background()); err != nil {
				b.log.Warn("NATS did not confirm subscriptions", zap.Int("count", len(batch)), zap.Error(err))
			}
		}
		for _, w := range batch {
			if c := b.settle(w, err); c != wire.OK {
				w.done(c)
			} else {
				b.awaitFeeds(w, w.sub.streams)
			}
		}
		if quit {
			return
		}
	}
}

// settle decides about one waiter after its subscription was confirmed, or not (err).
func (b *Bus) settle(w waiter, err error) wire.Code {
	in := &b.interest
	if w.sub == nil {
		return wire.Unavailable
	}
	in.mu.Lock()
	if w.sub.stored {
		err = nil // NATS has not been asked
	}
	if w.sub.denied {
		err = nats.ErrPermissionViolation
	}
	if err == nil || w.sub.confirmed && !w.sub.denied {
		w.sub.confirmed = true
		in.mu.Unlock()
		return wire.OK
	}
	in.mu.Unlock()
	b.giveUp(w)
	return wire.Unavailable
}

// giveUp ends a subscription that its Subscribe was not to have.
func (b *Bus) giveUp(w waiter) {
	in := &b.interest
	in.mu.Lock()
	gone := w.sub.owner == w.owner // otherwise another Subscribe has it now, whose turn comes
	if gone {
		in.forget(w.sub)
	}
	in.mu.Unlock()
	if gone {
		b.drop([]*subscription{w.sub})
	}
}

// awaitFeeds answers a waiter once this node follows all of streams: from then on nothing of them is missed.
func (b *Bus) awaitFeeds(w waiter, streams []*Stream) {
	if len(streams) == 0 {
		w.done(wire.OK)
		return
	}
	streams[0].At(0, func(_ uint64, _ string, ok bool) {
		if ok {
			b.awaitFeeds(w, streams[1:])
			return
		}
		go func() { // NATS may keep it waiting
			b.giveUp(w)
			w.done(wire.Unavailable)
		}()
	})
}

// reap runs for the life of the bus and unsubscribes what lingered long enough. Very many may end together: before it
// goes on with the next, NATS has answered that it is done with these.
func (b *Bus) reap() {
	in := &b.interest
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-in.reap:
		case <-timer.C:
		case <-b.quit:
			return
		}
		gone, next := b.lingered()
		if len(gone) > 0 {
			b.drop(gone)
		}
		if len(gone) == maxReaped {
			_ = b.flush(context.Background()) // while NATS does not answer, nobody subscribes either
		}
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// lingered takes away what lingered long enough, maxReaped at most, and says how long the next one has to wait; 0: there
// is none.
func (b *Bus) lingered() (gone []*subscription, next time.Duration) {
	in := &b.interest
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.lingering) > 0 {
		head := in.lingering[0]
		if wait := time.Until(head.until); wait > 0 && len(in.lingering) <= maxLingering {
			return gone, wait
		}
		if len(gone) == maxReaped {
			return gone, 1 // at once
		}
		in.lingering = in.lingering[1:]
		if head.sub.owner == head.owner {
			in.forget(head.sub)
			gone = append(gone, head.sub)
		}
	}
	return gone, 0
}

func (b *Bus) drop(subs []*subscription) {
	subs = slices.DeleteFunc(subs, func(s *subscription) bool { return s.stored })
	if len(subs) == 0 {
		return
	}
	if err := b.events.unsubscribe(subs); err != nil {
		b.log.Warn("NATS did not take an unsubscription", zap.Int("count", len(subs)), zap.Error(err))
	}
}
