package bus

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// Stats are counters since Open and the state now.
type Stats struct {
	Connected bool
	// Published and PublishedBytes (payload) went to NATS, Received and ReceivedBytes came from it: events,
	// and the few requests and answers of the store that uses the connection.
	Published, PublishedBytes, Received, ReceivedBytes uint64
	// Dropped messages came from an external NATS and found their shard's queue full.
	Dropped uint64
	// Errors that NATS reported out of turn, permission violations among them.
	Errors uint64
	// Reconnects after the first connection.
	Reconnects uint64
	// Subscriptions at NATS, with those that linger.
	Subscriptions int
	// Pending messages wait to be handed to the sink.
	Pending int
}

// Stats may wait up to two seconds while NATS is being dialled. It is for a metrics page.
func (b *Bus) Stats() Stats {
	n := b.conn.Stats()
	st := Stats{
		Connected:      b.connected.Load(),
		Published:      n.OutMsgs,
		PublishedBytes: n.OutBytes,
		Received:       n.InMsgs,
		ReceivedBytes:  n.InBytes,
		Errors:         b.failures.Load(),
		Reconnects:     b.reconnects.Load(),
	}
	in := &b.interest
	in.mu.Lock()
	st.Subscriptions = len(in.byPattern)
	in.mu.Unlock()
	b.events.stats(&st)
	return st
}

// Connected says whether NATS can be reached, as far as is known: an orderly end is noticed at once, a
// hung server after 15 to 20 seconds.
func (b *Bus) Connected() bool { return b.connected.Load() }

// Node names this process: the host's name, made unique. With a DataDir it is kept there.
func (b *Bus) Node() string { return b.node }

// The functions below are called by nats.go, one after the other, from one goroutine.

func (b *Bus) onConnected(c *nats.Conn) {
	select {
	case <-b.up:
		b.reconnects.Add(1)
	default:
		defer close(b.up)
	}
	b.setConnected(true)
	b.lookAtStreams()
	if !c.IsConnected() { // lost again already; onDisconnected may have come before us
		b.setConnected(false)
		return
	}
	b.log.Info("connected to NATS", zap.String("server", c.ConnectedServerName()), zap.String("address", c.ConnectedAddr()))
	b.reportState(true)
}

func (b *Bus) onDisconnected(_ *nats.Conn, err error) {
	b.setConnected(false)
	select {
	case <-b.quit:
		return
	default:
	}
	b.log.Warn("lost NATS, reconnecting", zap.Error(err))
	b.reportState(false)
}

func (b *Bus) reportState(connected bool) {
	if b.onState != nil {
		b.onState(connected)
	}
}

func (b *Bus) onDialError(_ *nats.Conn, err error) {
	if b.dials.allow() {
		b.log.Warn("NATS is unreachable", zap.Error(err))
	}
}

// onError hears what NATS, or nats.go, has to say out of turn.
func (b *Bus) onError(_ *nats.Conn, s *nats.Subscription, err error) {
	if s != nil && errors.Is(err, nats.ErrSlowConsumer) {
		b.onSlow(s)
		return
	}
	b.failures.Add(1)
	if errors.Is(err, nats.ErrPermissionViolation) {
		b.onDenied(err)
	} else if b.errors.allow() {
		b.log.Warn("NATS reports an error", zap.Error(err))
	}
}

// onSlow is called when a subscription begins to drop messages, not for each message.
func (b *Bus) onSlow(s *nats.Subscription) {
	in := &b.interest
	sub := in.find(s)
	if sub == nil {
		return
	}
	in.mu.Lock()
	if in.byPattern[sub.pattern] == sub {
		in.slow[sub] = struct{}{}
	}
	in.mu.Unlock()
	if b.drops.allow() {
		b.log.Warn("events are being dropped: they come faster than they can be delivered", zap.String("pattern", sub.pattern))
	}
}

// onDenied marks the subscription that NATS's account permissions forbid. The error's text is
// `… Permissions Violation for Subscription to "subject"`, or `… for Publish to "subject"`.
func (b *Bus) onDenied(err error) {
	_, quoted, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(quoted, `"`)
	in := &b.interest
	in.mu.Lock()
	if strings.Contains(strings.ToLower(err.Error()), "subscription to") {
		if sub := in.byPattern[strings.TrimPrefix(subject, b.subject)]; sub != nil {
			sub.denied = true
		}
	}
	in.lastDenial = err
	in.mu.Unlock()
	wake(in.denial)
	b.watchers.denied(subject, err)
	if b.errors.allow() {
		b.log.Error("NATS account permissions forbid a subject", zap.String("subject", subject), zap.Error(err))
	}
}

// awaitDenials waits until onError has heard of every denial that NATS sent before the PONG of the flush
// that the caller just did: nats.go notes the last error before it handles the PONG, but calls onError
// from another goroutine.
func (b *Bus) awaitDenials() {
	in := &b.interest
	for {
		last := b.conn.LastError()
		if !errors.Is(last, nats.ErrPermissionViolation) {
			return
		}
		in.mu.Lock()
		heard := in.lastDenial == last //nolint:errorlint // this very error, not one like it
		in.mu.Unlock()
		if heard {
			return
		}
		select {
		case <-in.denial: // every denial ends in one
		case <-b.closed:
			return
		}
	}
}

// A limiter lets one log line through each second.
type limiter struct{ next atomic.Int64 }

func (l *limiter) allow() bool {
	now := time.Now().UnixNano()
	next := l.next.Load()
	return now >= next && l.next.CompareAndSwap(next, now+int64(time.Second))
}
