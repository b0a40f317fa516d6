package bus

import (
	"context"
	"errors"
	"runtime"
	"unsafe"

	"github.com/nats-io/nats.go"

	"github.com/notifyd/notifyd/wire"
)

// events is the connection that carries events: a link to the embedded server, or a remote.
type events interface {
	// publish hands over an event that Publish has checked; flush has what was published leave.
	publish(topic, data []byte) wire.Code
	flush()
	// busy says whether Answered is to follow on what was flushed.
	busy() bool
	// hasRoom says whether a publisher should go on. After a no, the sink's Room is called.
	hasRoom() bool
	// subscribe and unsubscribe tell NATS of one subscription. SUB is on its way when subscribe returns.
	// mu of interest is held for subscribe, and not for unsubscribe.
	subscribe(sub *subscription) error
	unsubscribe(subs []*subscription) error
	// confirm waits until NATS has taken everything that was written so far.
	confirm(ctx context.Context) error
	stats(st *Stats)
	// close ends the connection; what it runs ends soon.
	close()
}

// A remote is nats.go's connection to an external NATS.
type remote struct {
	b   *Bus
	out *outbox
}

func (r remote) publish(topic, data []byte) wire.Code {
	var buf [MaxPrefixBytes + len(".ev.") + wire.MaxTopicBytes]byte
	subject := append(append(buf[:0], r.b.subject...), topic...)
	// nats.go copies subject and data into its write buffer. The compiler has proved that for us: were
	// either kept, escape analysis would move buf to the heap, where the string stays valid for ever.
	err := r.b.conn.Publish(unsafe.String(unsafe.SliceData(subject), len(subject)), data)
	switch {
	case err == nil:
		return wire.OK
	case errors.Is(err, nats.ErrMaxPayload):
		return wire.TooLarge
	default:
		return wire.Unavailable
	}
}

// flush lets the goroutine run that nats.go has for that: here and now, without waking another thread.
func (r remote) flush() { runtime.Gosched() }

func (r remote) busy() bool { return false }

func (r remote) hasRoom() bool { return !r.out.full.Load() }

func (r remote) subscribe(sub *subscription) error {
	var err error
	if sub.wild {
		// An event comes by any of the patterns that match it; one shard keeps the order of them all.
		sub.nats, err = r.b.conn.ChanQueueSubscribe(r.b.subject+sub.pattern, r.b.group, r.b.shards[0].queue)
	} else {
		s := r.b.shards[int(uint32(sub.handle.Load()))%len(r.b.shards)]
		sub.nats, err = r.b.conn.ChanSubscribe(r.b.subject+sub.pattern, s.queue)
	}
	if err == nil {
		r.b.interest.bySub.Store(sub.nats, sub)
	}
	return err
}

func (r remote) unsubscribe(subs []*subscription) error {
	conn := r.b.conn
	reconnects := conn.Stats().Reconnects
	drains := false
	if conn.IsConnected() { // else nothing is on its way
		for _, sub := range subs {
			if sub.wild { // an event that NATS sends by this pattern meanwhile may be for others too
				_ = sub.nats.Drain() // fails when the connection is closed
				drains = true
			}
		}
	}
	if drains {
		_ = conn.FlushTimeout(confirmTimeout) // fails without a connection, with which nothing comes any more
	}
	var failed error
	for _, sub := range subs {
		if err := sub.nats.Unsubscribe(); !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			failed = errors.Join(failed, err)
		}
	}
	// When nats.go 1.55.0 connects anew it subscribes again to what drains, and then ends it without a word to NATS,
	// which goes on choosing that pattern for the node's events, and nobody takes them. One more connection has only
	// what there is.
	if drains && conn.Stats().Reconnects != reconnects {
		_ = conn.ForceReconnect() // fails when it is closed
	}
	return failed
}

func (r remote) confirm(ctx context.Context) error {
	err := r.b.conn.FlushWithContext(ctx)
	if err == nil {
		r.b.awaitDenials()
	}
	return err
}

func (r remote) stats(st *Stats) {
	for _, s := range r.b.shards {
		st.Pending += len(s.queue)
	}
	in := &r.b.interest
	in.mu.Lock()
	defer in.mu.Unlock()
	dropped := in.droppedByOld
	for sub := range in.slow {
		if n, err := sub.nats.Dropped(); err == nil {
			dropped += n
		}
	}
	st.Dropped = uint64(dropped)
}

func (r remote) close() {}
