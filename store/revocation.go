package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	// askInterval is how often the leader of the bucket is asked what we should have seen.
	askInterval = 2 * time.Second
	// A consumer that says nothing for a whole askInterval is dead, and replaced.
	heartbeat = 500 * time.Millisecond
	// watchRetry is the wait after an attempt to load failed; a new connection ends it.
	watchRetry = time.Second
	// watchLogInterval is how often a watch that cannot load says so.
	watchLogInterval = time.Minute
)

var (
	errGap     = errors.New("a revocation was missed")
	errStalled = errors.New("revocations do not come")
)

// A Watch is told of revocations, by calls that come one after the other from a goroutine of the store, and must not
// block.
type Watch struct {
	// Begin says that all revocations that there are come now: at first, after every outage, and whenever one could
	// have been missed.
	Begin func()
	// Apply brings a revocation, perhaps one that has come before, or that has expired. It may keep value.
	Apply func(key string, value []byte)
	// Removed says that somebody has removed a revocation from the bucket by hand, with a marker that stays.
	Removed func(key string)
	// Loaded says that all have come since Begin.
	Loaded func()
}

// WatchRevocations starts to hand over all revocations that there are, and each new one, until Close. It is called
// once; failures are logged and tried again for ever. From then on the store also tries from time to time whether the
// buckets can be written to, and still hold what was written: see [Store.Writable] and [Store.Losses].
func (s *Store) WatchRevocations(w Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Go(func() { s.watch(w) })
		s.running.Go(s.probe)
	}
}

// LastFresh gives the latest moment for which it is known that every revocation made before it has been
// applied. It is at most 3 s ago while all is well, stands still during an outage, and is zero before all
// were loaded first. A NATS leader that a partition has cut off, and that does not know yet, can vouch for
// what it has for up to 10 s too long.
func (s *Store) LastFresh() time.Time {
	if t := s.fresh.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

func (s *Store) watch(w Watch) {
	k := s.revocations
	var told time.Time
	for {
		f := follower{store: s, watch: w}
		err := f.follow(k.session())
		if s.ctx.Err() != nil {
			return
		}
		if !errors.Is(err, ErrUnavailable) && (f.loaded || time.Since(told) >= watchLogInterval) {
			s.log.Warn("revocations may be out of date, loading them anew", zap.Error(err))
			told = time.Now()
		}
		if f.loaded {
			continue
		}
		select {
		case <-k.begun:
		case <-time.After(watchRetry):
		case <-s.ctx.Done():
			return
		}
	}
}

// A follower is one consumer of the revocations, from the loading to the first doubt.
type follower struct {
	store *Store
	watch Watch

	open     *openBucket
	sub      *nats.Subscription
	loaded   bool
	received uint64 // messages, which the consumer numbers from 1
	applied  uint64 // revision of the last one
}

// follow runs until session, which is one connection, ends or something was missed.
func (f *follower) follow(session context.Context) error {
	defer func() {
		if f.sub != nil {
			_ = f.sub.Unsubscribe() // the server removes a consumer that nobody listens to
		}
	}()
	if err := f.start(session); err != nil {
		return cause(session, err)
	}
	for {
		if f.store.revocations.reload.Load() {
			return errLost
		}
		asked := time.Now()
		last, err := f.last(session)
		if err == nil && last < f.applied { // removed, or merely expired
			err = errLost
		}
		if err == nil {
			err = f.read(session, last, asked)
		}
		if err != nil {
			return cause(session, err)
		}
	}
}

func cause(session context.Context, err error) error {
	if c := context.Cause(session); c != nil {
		return c
	}
	return err
}

func (f *follower) start(session context.Context) error {
	ctx, cancel := context.WithTimeout(session, bucketTimeout)
	defer cancel()
	var err error
	if f.open, err = f.store.revocations.open(ctx); err != nil {
		return err
	}
	f.store.revocations.reload.Store(false)
	f.watch.Begin()
	inbox := f.store.conn.NewInbox()
	if f.sub, err = f.store.conn.SubscribeSync(inbox); err != nil {
		return err
	}
	// All that the bucket holds may wait here: dropped messages would mean to begin again, for ever.
	if err = f.sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	_, err = f.store.js.CreatePushConsumer(ctx, f.open.stream.CachedInfo().Config.Name, jetstream.ConsumerConfig{
		DeliverSubject: inbox,
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubject:  f.store.revocations.subject() + ">",
		AckPolicy:      jetstream.AckNonePolicy,
		IdleHeartbeat:  heartbeat,
		MemoryStorage:  true,
	})
	if err != nil && isGone(err) {
		f.store.revocations.opened.CompareAndSwap(f.open, nil)
	}
	return err
}

// last asks the leader for the last revision that there is.
func (f *follower) last(session context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(session, bucketTimeout)
	defer cancel()
	m, err := f.open.stream.GetLastMsgForSubject(ctx, f.store.revocations.subject()+">")
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		if isGone(err) {
			f.store.revocations.opened.CompareAndSwap(f.open, nil)
		}
		return 0, err
	}
	return m.Sequence, nil
}

// read applies what comes until it is time to ask again. Once the revision that was the last at the time
// of asking is applied, so is everything before it, since the consumer keeps the order.
func (f *follower) read(session context.Context, last uint64, asked time.Time) error {
	ctx, cancel := context.WithDeadline(session, asked.Add(askInterval))
	defer cancel()
	alive, fresh, before := false, false, f.received
	for {
		if f.applied >= last && !fresh {
			fresh = true
			f.store.fresh.Store(&asked)
			if !f.loaded {
				f.loaded = true
				f.watch.Loaded()
			}
		}
		m, err := f.sub.NextMsgWithContext(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			if !alive || !fresh && f.received == before {
				return errStalled
			}
			return nil
		}
		if err != nil {
			return err
		}
		alive = true
		if len(m.Data) == 0 && m.Header.Get("Status") != "" {
			continue // heartbeat
		}
		if err := f.take(m); err != nil {
			return err
		}
	}
}

func (f *follower) take(m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	f.received++
	if meta.Sequence.Consumer != f.received {
		return errGap
	}
	f.applied = meta.Sequence.Stream
	key := m.Subject[len(f.store.revocations.subject()):]
	if m.Header.Get("KV-Operation") == "" {
		f.watch.Apply(key, m.Data)
	} else if !strings.HasPrefix(key, probePrefix) {
		f.watch.Removed(key)
	}
	return nil
}
