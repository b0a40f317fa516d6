// Package bus connects a node to NATS: it publishes events and brings the events of the patterns that
// the node's subscribers are interested in. NATS is a server embedded in the process, or an external one.
//
// An event on topic rooms.42 is the NATS message notify.ev.rooms.42 whose payload is exactly the event's
// data, so any NATS client is a publisher or a subscriber too.
//
// While NATS is unreachable nothing is buffered: Publish answers wire.Unavailable. The bus reconnects for
// ever, and interest survives, so that events flow again without the caller doing anything. Delivery is at
// most once: what NATS sends during an outage is missed, and what does not fit in Options.Buffer is
// dropped, counted and logged. The embedded server drops nothing for that; when others publish more than we
// can hand over it ends the connection for events, which is made anew, counted and logged.
//
// Package store keeps tickets, used tokens and revocations over the same connection: see [Bus.Conn] and
// [Bus.Watch].
package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
)

const (
	dialTimeout = 2 * time.Second
	// A hung server is noticed when pingsOut pings stay unanswered: after 15 to 20 s.
	pingInterval = 5 * time.Second
	pingsOut     = 2
	// When NATS takes nothing for this long of what waits to be written to it, the connection is given up, and
	// what waited is lost. Publishers that find no room wait as long.
	writeTimeout = 10 * time.Second
)

// A Sink receives events. Calls with one shard number come from one goroutine, so that a sink needs no
// lock per shard; they must not block, since everything else in that shard waits.
type Sink interface {
	// Event brings an event for the subscriptions that were made with handles, of which there may be
	// thousands: all patterns that match topic, or the one subscription to topic itself. topic has the
	// prefix cut off and may be kept. data is the payload as NATS brought it, not validated: any NATS
	// client can have sent it. It must not be changed. Neither slice may be kept after Event returns.
	Event(shard int, handles []uint32, topic string, data []byte)
	// Flush ends a round: everything that waited has been handed over.
	Flush(shard int)
	// Answered says that what was flushed some time before has been brought, as far as it is for this node,
	// or will not be. With an external NATS it is never called.
	Answered()
	// Room says that HasRoom is true again after it was false. It is called from a goroutine of the bus,
	// never from within Publish.
	Room()
}

// A Bus is one node's connection to NATS. All methods may be called from any goroutine.
type Bus struct {
	log      *zap.Logger
	onState  func(bool)
	embedded *embedded // nil with an external NATS
	conn     *nats.Conn
	node     string
	group    string // the queue group of this node's patterns
	subject  string // prefix of every subject, "notify.ev."
	linger   time.Duration
	sink     Sink
	events   events
	shards   []*shard // of a remote

	streams     []*Stream
	sc          *streamConn   // nil without streams
	streamsLook chan struct{} // wake-up of keepStreams, capacity 1

	maxPayload int
	watchers   watchers

	connected            atomic.Bool
	up                   chan struct{} // closed at the first connection
	closed               chan struct{} // closed when conn is closed for good
	reconnects           atomic.Uint64
	failures             atomic.Uint64 // asynchronous errors, slow consumers aside
	dials, drops, errors limiter       // of the log lines that could come in floods

	interest interest
	quit     chan struct{} // closed by Close
	running  sync.WaitGroup
	close    sync.Once
	closeErr error
}

// Open starts the embedded server, or dials the external one, and begins to hand events to sink.
//
// An embedded server is ready when Open returns; otherwise the error says which option to change. An external
// server that cannot be reached is not an error: the bus comes up disconnected, goes on trying and calls
// Options.OnState when it succeeds. Nor are credentials that it refuses; a certificate that cannot be trusted is one.
// ctx bounds the start alone; one attempt to reach an external server takes up to 2 s for each address.
func Open(ctx context.Context, o Options, sink Sink, log *zap.Logger) (*Bus, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.setDefaults()
	b := &Bus{
		log:     log,
		onState: o.OnState,
		subject: o.Prefix + ".ev.",
		linger:  o.Linger,
		sink:    sink,

		maxPayload: o.MaxPayload,
		up:         make(chan struct{}),
		group:      nuid.Next(),
		closed:     make(chan struct{}),
		quit:       make(chan struct{}),

		streamsLook: make(chan struct{}, 1),
	}
	if err := b.declare(&o); err != nil {
		return nil, err
	}
	b.interest.init()
	var err error
	if o.URL == "" {
		err = b.openEmbedded(ctx, &o)
	} else {
		err = b.openExternal(ctx, &o)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range b.shards {
		b.running.Go(func() { b.read(s) })
	}
	b.running.Go(b.confirm)
	b.running.Go(b.reap)
	if len(b.streams) > 0 {
		err = b.openStreams(ctx, &o)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close(ctx))
	}
	return b, nil
}

// connection gives the options that both kinds of NATS share.
func (b *Bus) connection() *nats.Options {
	n := nats.GetDefaultOptions()
	n.Name = "notifyd"
	n.Timeout = dialTimeout
	n.AllowReconnect = true
	n.MaxReconnect = -1
	n.IgnoreAuthErrorAbort = true // credentials may be replaced while we run
	n.ReconnectBufSize = -1       // fail a publish rather than deliver it late or never
	n.CustomReconnectDelayCB = reconnectDelay
	n.PingInterval = pingInterval
	n.MaxPingsOut = pingsOut
	n.SkipSubjectValidation = true // Publish has looked at each byte already
	n.ConnectedCB = b.onConnected
	n.ReconnectedCB = b.onConnected
	n.DisconnectedErrCB = b.onDisconnected
	n.ReconnectErrCB = b.onDialError
	n.AsyncErrorCB = b.onError
	n.ClosedCB = func(*nats.Conn) { close(b.closed) }
	return &n
}

// reconnectDelay is the wait after all servers have been tried: 100 ms doubling to 2 s, with jitter down
// to the half, so that the nodes of a cluster do not return as one herd.
func reconnectDelay(attempts int) time.Duration {
	d := min(100*time.Millisecond<<min(attempts-1, 5), 2*time.Second)
	return d/2 + rand.N(d/2)
}

// Close hands NATS what was published before it, ends the connection, the embedded server and every
// goroutine, and removes a temporary data directory. When ctx ends sooner it stops waiting and says so.
// Waiting Subscribes get wire.Unavailable.
func (b *Bus) Close(ctx context.Context) error {
	b.close.Do(func() { b.closeErr = b.shut(ctx) })
	return b.closeErr
}

func (b *Bus) shut(ctx context.Context) error {
	var errs []error
	if b.conn.IsConnected() {
		if err := b.flush(ctx); err != nil {
			errs = append(errs, fmt.Errorf("flush to NATS: %w", err))
		}
	}
	b.interest.end()
	close(b.quit)
	if b.sc != nil {
		b.sc.close(ctx)
	}
	b.events.close()
	b.conn.Close()
	done := make(chan struct{})
	go func() {
		<-b.closed
		b.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("close bus: %w", context.Cause(ctx)))
	}
	if b.embedded != nil {
		errs = append(errs, b.embedded.stop(ctx))
	}
	return errors.Join(errs...)
}

// flush waits until NATS has taken everything written so far.
func (b *Bus) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	return b.events.confirm(ctx)
}
