package bus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
)

// A streamConn is the connection that carries what streams store and what is read of them, so that neither waits behind
// events that are not stored. A bus without streams has none.
type streamConn struct {
	b     *Bus
	conn  *nats.Conn
	out   *outbox    // of an external NATS
	store *storeLink // of an embedded one: it carries what streams store

	inbox     string // prefix of the subjects for answers, with a dot at its end
	consumers string // prefix of the names of consumers

	up     atomic.Bool     // logged in
	ctx    context.Context // ends with the bus
	cancel context.CancelFunc

	flights  inFlight
	readings readings
}

// openStreamConn connects. An external NATS that is away is no error: it goes on trying behind its return.
func (b *Bus) openStreamConn(o *Options) error {
	id := nuid.Next()
	sc := &streamConn{b: b, inbox: nats.InboxPrefix + id + ".", consumers: "notifyd-" + id + "-"}
	sc.flights.room = b.sink.Room
	sc.ctx, sc.cancel = context.WithCancel(context.Background())
	n := b.connection()
	if e := b.embedded; e != nil {
		n.InProcessServer, n.IgnoreDiscoveredServers, n.FlusherTimeout = e.server, true, -1
		n.User, n.Password = e.user, e.password
	} else {
		sc.out = &outbox{room: b.sink.Room}
		var err error
		if n, err = b.external(o, sc.out); err != nil {
			return err
		}
		n.RetryOnFailedConnect = true
	}
	n.Name = "notifyd streams"
	n.ConnectedCB, n.ReconnectedCB = sc.onConnected, sc.onConnected
	n.DisconnectedErrCB = sc.onDisconnected
	n.AsyncErrorCB = sc.onError
	n.ClosedCB = nil
	var err error
	if sc.conn, err = n.Connect(); err != nil {
		return fmt.Errorf("connection for streams: %w", err)
	}
	b.sc = sc
	handlers := map[string]nats.MsgHandler{"r.*": sc.read}
	if e := b.embedded; e == nil {
		handlers["a.*"] = sc.answered
	} else if sc.store, err = openStoreLink(sc, e.server.InProcessConn, e.user, e.password, e.maxPayload); err != nil {
		return err
	} else {
		sc.store.soon = o.Embedded.ClusterListen == "" && o.Embedded.SyncInterval >= 0
		sc.store.run()
	}
	for subject, f := range handlers {
		sub, err := sc.conn.Subscribe(sc.inbox+subject, f)
		if err == nil {
			err = sub.SetPendingLimits(-1, -1) // what was asked for is bounded
		}
		if err != nil {
			return fmt.Errorf("connection for streams: %w", err)
		}
	}
	if sc.conn.IsConnected() {
		sc.up.Store(true)
	}
	b.running.Go(sc.sweep)
	return nil
}

// hasRoom says whether NATS takes what is written to it, and answers.
func (sc *streamConn) hasRoom() bool {
	return !sc.flights.full.Load() && (sc.out == nil || !sc.out.full.Load())
}

func (sc *streamConn) onConnected(c *nats.Conn) {
	sc.up.Store(true)
	if !c.IsConnected() { // lost again already; onDisconnected may have come before us
		sc.up.Store(false)
	}
	for _, s := range sc.b.streams {
		s.follower.suspect.Store(true)
		wake(s.follower.wake)
	}
}

func (sc *streamConn) onDisconnected(_ *nats.Conn, err error) {
	sc.up.Store(false)
	select {
	case <-sc.b.quit:
	default:
		sc.b.log.Warn("lost the connection for streams, reconnecting", zap.Error(err))
	}
	if sc.store == nil {
		sc.flights.fail(time.Time{})
	}
	sc.readings.lost()
}

func (sc *streamConn) onError(_ *nats.Conn, _ *nats.Subscription, err error) {
	sc.b.failures.Add(1)
	if sc.b.errors.allow() {
		sc.b.log.Warn("NATS reports an error on the connection for streams", zap.Error(err))
	}
}

// close ends the connection when NATS has taken what was written, or ctx ends.
func (sc *streamConn) close(ctx context.Context) {
	if sc.up.Load() {
		ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
		if sc.store != nil {
			_ = sc.store.confirm(ctx)
		}
		_ = sc.conn.FlushWithContext(ctx)
		cancel()
	}
	if sc.store != nil {
		sc.store.close()
	}
	sc.cancel()
	sc.up.Store(false)
	sc.conn.Close()
	sc.flights.fail(time.Time{})
	sc.readings.lost()
}
