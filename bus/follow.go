package bus

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// A StreamSink is a Sink that takes the events of streams.
type StreamSink interface {
	Sink
	// Stored brings an event of a stream for all subscriptions that match its topic, patterns and the topic itself
	// alike; such an event never comes by Event. The events of a stream come from one shard, ascending. handles must not
	// be kept, e may be; it must not be changed.
	Stored(shard int, handles []uint32, e *wire.StoredEvent)
	// Gap tells all subscriptions that overlap a stream's topics that what was stored behind after and before first is
	// gone. epoch is "" unless the stream begins anew there: it is another one, or has lost what it had stored.
	Gap(shard int, handles []uint32, epoch string, after, first uint64)
}

const (
	// tailInterval is how often the leader is asked how far the stream has come, and lateInterval how soon it is asked
	// again, or what is missing is read.
	tailInterval = time.Second
	lateInterval = 200 * time.Millisecond
	// followTimeout bounds the wait of a Subscribe, and of At.
	followTimeout = 5 * time.Second
	// What waits for the feed's goroutine. What does not fit is dropped by nats.go, and read from the stream.
	feedBuffer = 4 << 10
	// What a feed reads at once.
	healEvents = 500
	healBytes  = 1 << 20
)

// A follower brings the events of a stream to this node's subscribers: the feed, its goroutine, and the subscriptions
// of the node that overlap the stream's topics. While there are none it does not follow.
type follower struct {
	s     *Stream
	shard int
	sink  StreamSink

	subs    patterns     // all that overlap the stream's topics, topics among them
	wanted  atomic.Int32 // how many they are
	msgs    chan *nats.Msg
	answers chan func()   // for the goroutine to call
	wake    chan struct{} // capacity 1
	suspect atomic.Bool   // the connection is a new one
	look    atomic.Bool   // the stream has a new leader

	// The feed's, for others to read.
	following                        atomic.Bool
	position, healed, gaps, renewals atomic.Uint64

	mu    sync.Mutex
	ended bool
	calls []call

	// The goroutine's own.
	feed     feed               // but for its window
	nats     *nats.Subscription // nil while it does not follow
	handles  []uint32           // of the event in hand
	dirty    bool               // something was handed over since the last Flush
	armed    time.Duration      // what the timer was set to
	nextTail time.Time
}

// A call waits until the feed has come to after.
type call struct {
	after uint64
	until time.Time
	f     func(position uint64, epoch string, ok bool)
}

func newFollower(s *Stream, shard int, sink StreamSink) *follower {
	f := &follower{
		s: s, shard: shard, sink: sink,
		msgs: make(chan *nats.Msg, feedBuffer), answers: make(chan func()), wake: make(chan struct{}, 1),
	}
	f.feed.source, f.feed.out = f, f
	return f
}

// open has the feed run.
func (f *follower) open() error {
	_, err := f.s.bus.sc.conn.Subscribe("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED."+f.s.want.Name, func(*nats.Msg) {
		f.look.Store(true)
		wake(f.wake)
	})
	if err == nil {
		f.s.bus.running.Go(f.run)
	}
	return err
}

// At has f called on the goroutine of the feed, between two events and after the sink's Flush, once everything up to
// the position after has been handed over. position is how far it has come, in the life of the stream that epoch names.
// ok is false after 5 s, or when the bus is closed. f must not block.
func (s *Stream) At(after uint64, f func(position uint64, epoch string, ok bool)) {
	fo := s.follower
	fo.mu.Lock()
	ended := fo.ended
	if !ended {
		fo.calls = append(fo.calls, call{after, time.Now().Add(followTimeout), f})
	}
	fo.mu.Unlock()
	if ended {
		go f(0, "", false)
		return
	}
	wake(fo.wake)
}

// add and remove tell of a subscription that overlaps the stream's topics.
func (f *follower) add(sub *subscription) {
	f.subs.add(sub)
	f.wanted.Add(1)
	wake(f.wake)
}

func (f *follower) remove(sub *subscription) {
	f.subs.remove(sub)
	f.wanted.Add(-1)
}

// run runs for the life of the bus.
func (f *follower) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case m := <-f.msgs:
			f.round(m)
		case answer := <-f.answers:
			answer()
		case <-f.wake:
		case <-timer.C:
			f.armed = 0
			f.tick()
		case <-f.s.bus.quit:
			f.stop()
			return
		}
		f.step()
		d := tailInterval
		if f.feed.unfinished() || f.callsWait() {
			d = lateInterval
		}
		if f.armed == 0 || d < f.armed {
			f.armed = d
			timer.Reset(d)
		}
	}
}

// round takes a message, and those behind it.
func (f *follower) round(m *nats.Msg) {
	for n := 1; ; n++ {
		if e, ok := f.s.eventOf(m.Header, m.Data); ok {
			f.feed.passed(&e)
		}
		if n == maxRound {
			return
		}
		select {
		case m = <-f.msgs:
		default:
			return
		}
	}
}

// tick is called every lateInterval while something is unfinished, and else every tailInterval.
func (f *follower) tick() {
	if f.feed.unfinished() {
		f.feed.late()
	}
	now := time.Now()
	if f.nats == nil || now.Before(f.nextTail) {
		return
	}
	f.nextTail = now.Add(tailInterval)
	if f.wanted.Load() == 0 {
		f.unfollow()
		return
	}
	f.feed.look()
}

// step does what is due after whatever has happened.
func (f *follower) step() {
	if f.nats == nil && f.wanted.Load() > 0 {
		f.follow()
	}
	if f.suspect.Swap(false) && f.nats != nil {
		f.feed.suspect()
	}
	if f.look.Swap(false) && f.nats != nil {
		f.feed.look()
	}
	if f.dirty {
		f.dirty = false
		f.sink.Flush(f.shard)
	}
	f.following.Store(f.feed.follows())
	f.position.Store(f.feed.position)
	f.healed.Store(f.feed.healed)
	f.gaps.Store(f.feed.gaps)
	f.renewals.Store(f.feed.renewals)
	f.answer()
}

func (f *follower) follow() {
	sub, err := f.s.bus.sc.conn.ChanSubscribe(f.s.republished+">", f.msgs)
	if err != nil {
		return // the connection is closed
	}
	f.nats = sub
	f.feed.begin()
}

func (f *follower) unfollow() {
	_ = f.nats.Unsubscribe() // fails when the connection is closed
	f.nats = nil
	f.feed.end()
	for len(f.msgs) > 0 {
		<-f.msgs
	}
}

// answer makes the calls that are due.
func (f *follower) answer() {
	now := time.Now()
	var due []call
	f.mu.Lock()
	rest := f.calls[:0]
	for _, c := range f.calls {
		if f.feed.follows() && f.feed.position >= c.after || now.After(c.until) {
			due = append(due, c)
		} else {
			rest = append(rest, c)
		}
	}
	clear(f.calls[len(rest):])
	f.calls = rest
	f.mu.Unlock()
	for _, c := range due {
		c.f(f.feed.position, f.feed.epoch, f.feed.follows() && f.feed.position >= c.after)
	}
}

func (f *follower) callsWait() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls) > 0
}

func (f *follower) stop() {
	f.mu.Lock()
	calls := f.calls
	f.calls, f.ended = nil, true
	f.mu.Unlock()
	for _, c := range calls {
		c.f(f.feed.position, f.feed.epoch, false)
	}
}

// post has the goroutine call answer.
func (f *follower) post(answer func()) {
	select {
	case f.answers <- answer:
	case <-f.s.bus.quit:
	}
}

// askHead implements feedSource.
func (f *follower) askHead(number uint64) {
	b := f.s.bus
	b.running.Go(func() {
		ctx, cancel := context.WithTimeout(b.sc.ctx, streamTimeout)
		defer cancel()
		info, err := f.s.info(ctx)
		if err != nil {
			f.complain("a stream's leader does not answer", err)
		}
		f.post(func() { f.looked(number, info) })
	})
}

func (f *follower) looked(number uint64, info *streamInfo) {
	renewals, epoch, position := f.feed.renewals, f.feed.epoch, f.feed.position
	f.feed.looked(number, info)
	if f.feed.renewals != renewals {
		f.s.bus.log.Error("a stream begins anew: it was removed and made again, or NATS has lost what it had stored",
			zap.String("stream", f.s.Name()), zap.String("epoch_before", epoch), zap.String("epoch", f.feed.epoch),
			zap.Uint64("position_before", position), zap.Uint64("first", info.First), zap.Uint64("last", info.Last))
		if f.feed.lost {
			f.s.lose(epoch)
		}
	}
}

// readMissing implements feedSource.
func (f *follower) readMissing(life, after uint64) {
	b := f.s.bus
	b.running.Go(func() {
		ctx, cancel := context.WithTimeout(b.sc.ctx, streamTimeout)
		defer cancel()
		page, err := f.s.Read(ctx, ">", after, healEvents, healBytes)
		got := &page
		if err != nil {
			f.complain("what is missing of a stream cannot be read", err)
			got = nil
		}
		f.post(func() { f.feed.read(life, got) })
	})
}

func (f *follower) complain(what string, err error) {
	if b := f.s.bus; b.sc.ctx.Err() == nil && b.errors.allow() {
		b.log.Warn(what, zap.String("stream", f.s.Name()), zap.Error(err))
	}
}

// event implements feedOut.
func (f *follower) event(e *wire.StoredEvent) {
	f.handles = f.subs.match(f.handles[:0], e.Topic)
	if len(f.handles) > 0 {
		f.dirty = true
		f.sink.Stored(f.shard, f.handles, e)
	}
}

// gap implements feedOut.
func (f *follower) gap(epoch string, after, first uint64) {
	if epoch == "" { // else looked has said more
		f.s.bus.log.Warn("events are gone from a stream that were not delivered", zap.String("stream", f.s.Name()),
			zap.Uint64("after", after), zap.Uint64("first", first))
	}
	if f.handles = f.subs.all(f.handles[:0]); len(f.handles) > 0 {
		f.dirty = true
		f.sink.Gap(f.shard, f.handles, epoch, after, first)
	}
}
