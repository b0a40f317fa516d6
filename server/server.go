// Package server is notifyd between its sockets and its bus: it checks each
// envelope, publishes, keeps the subscriptions and fans events out. path.go
// holds the way of a message; the other files hold what happens beside it.
//
// Tokens are package authz's. The package does not know NATS: it declares what it
// needs of it ([Bus], [Store]) and is given it.
package server

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/governor"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Bus carries events between nodes. Its methods may be called from any
// goroutine. It calls the server's Event, Flush, Answered and Room.
type Bus interface {
	// Publish hands an event on, at the latest with the next Flush; it keeps
	// neither slice and does not wait.
	Publish(topic, data []byte) wire.Code
	Flush()
	// Busy says whether what was flushed is still under way, and will be followed
	// by the server's Answered in microseconds as a rule. A bus that takes longer
	// says no.
	Busy() bool
	// HasRoom says whether the bus keeps up. After a no it calls the server's Room,
	// from a goroutine of its own, when it does again.
	HasRoom() bool
	// Subscribe asks for events under handle. done is called once, from a
	// goroutine of the bus and never from within Subscribe.
	Subscribe(handle uint32, pattern string, done func(wire.Code))
	Unsubscribe(handle uint32)
}

// Options are the limits and habits of a server; see docs/configuration.md.
type Options struct {
	// Loop bounds the connections.
	Loop loop.Options
	// Node names this node in welcome envelopes and logs.
	Node string
	// Subscriptions bounds those of one connection: each costs memory on the
	// node and interest in NATS. Default 1,000.
	Subscriptions int
	// Rate bounds the frames a second of one connection, over time; Burst is how
	// many may come at once. Refused frames count too; a connection that is
	// another Burst over is closed with 4429. Rate 0: no bound. Burst 0: Rate.
	Rate, Burst int
	// BadEnvelopes and AuthFailures are how many in a row close a connection,
	// with 4400 and 4401. Defaults 10.
	BadEnvelopes, AuthFailures int
	// Penalty is the longest that a connection is not read after a token with a bad
	// signature. 0: none.
	Penalty time.Duration
	// VerifyWorkers bounds the goroutines that verify asymmetric signatures, so
	// that a flood of fresh tokens leaves time for everything else. Default:
	// half the cores, at least one.
	VerifyWorkers int
	// ExpiryNotice is how long before a subscription's token expires its client
	// is warned. Default 30 s.
	ExpiryNotice time.Duration
	// DrainWindow is over how long Shutdown spreads the closing of connections.
	DrainWindow time.Duration
	// Strategies are the enabled ways to present a connection's credential.
	// Default [DefaultStrategies]. With RequireConnection a connection without
	// one is refused or, where it may come in an auth envelope, closed after
	// AuthDeadline (default 10 s).
	Strategies        Strategy
	RequireConnection bool
	AuthDeadline      time.Duration
	// TicketTTL is how long a ticket may be redeemed. Default 30 s.
	TicketTTL time.Duration
	// TicketsPerSubject and TicketsPerIP bound the tickets that one subject of an
	// issuer, and one address (IPv6: a /64), may get from this node in TicketTTL.
	// 0 is no bound.
	TicketsPerSubject, TicketsPerIP int
	// Shards is how many goroutines of the bus call Event and Flush, each with its own
	// number below Shards; those of its streams, which call Stored, Gap and Flush, come
	// last. Default 1.
	Shards int
	// EventsFrom has subscribers told whose token published an event of a durable topic.
	EventsFrom bool
	// Origins are the origins of pages that may connect: "https://example.com",
	// "example.com" with any scheme, "*.example.com" for all below it, "*" for any.
	// Empty: pages of the host that the request is for.
	Origins []string
	// TrustedProxies may name their client in Forwarded or X-Forwarded-For.
	TrustedProxies []netip.Prefix
	// ProxyHeader is the one that TrustedProxies write, HeaderForwarded or
	// HeaderForwardedFor. Empty: either; where both are there and disagree, neither
	// counts.
	ProxyHeader string
	// PathPrefix stands before the paths of docs/protocol.md: "" or such as "/push".
	PathPrefix string
	// Console answers what comes to /console and below. Nil: nothing is there.
	Console http.Handler
	// AdaptProcessors lets the server set how many processors Go has, for the whole
	// program (package governor).
	AdaptProcessors bool
}

// WithDefaults gives o with the defaults in place of zero values.
func (o Options) WithDefaults() Options {
	o.Subscriptions = cmp.Or(o.Subscriptions, 1000)
	o.Burst = cmp.Or(o.Burst, o.Rate)
	o.BadEnvelopes = cmp.Or(o.BadEnvelopes, 10)
	o.AuthFailures = cmp.Or(o.AuthFailures, 10)
	o.VerifyWorkers = cmp.Or(o.VerifyWorkers, max(1, runtime.GOMAXPROCS(0)/2))
	o.ExpiryNotice = cmp.Or(o.ExpiryNotice, 30*time.Second)
	o.AuthDeadline = cmp.Or(o.AuthDeadline, 10*time.Second)
	o.TicketTTL = cmp.Or(o.TicketTTL, 30*time.Second)
	o.Strategies = cmp.Or(o.Strategies, DefaultStrategies)
	o.Shards = cmp.Or(o.Shards, 1)
	o.Loop = o.Loop.WithDefaults()
	o.Loop.SlowCode = int(wire.CloseSlowConsumer)
	return o
}

// Server is a node's WebSocket side. Make it with [New], give it to a bus as its
// sink, then [Server.Start] it with that bus.
type Server struct {
	opts      Options
	log       *zap.Logger
	auth      *authz.Verifier
	bus       Bus
	streams   Streams // nil: there are none
	store     Store
	engine    *loop.Engine
	topics    topics
	verify    pool                  // signatures: bounded by cores
	tickets   pool                  // questions to the store about tickets
	once      pool                  // questions to the store about one-use tokens
	replays   pool                  // questions to streams
	replaying atomic.Int32          // replays under way
	handoff   *loop.HandoffListener // requests that are no upgrade, for http
	http      *http.Server
	served    sync.WaitGroup
	cutHTTP   context.CancelFunc // ends the context of every request
	shards    []shard
	conns     connIDs

	verifyOnLoop int // signatures that a loop verifies in a turn
	penalties    penalties
	crowded      crowdedLog
	governor     *governor.Governor // nil: the number of processors stays what it is

	answers answers

	homes         homes
	chunks        chunks
	streamContext context.Context // of questions to streams
	cutStreams    context.CancelFunc

	ticketsOfSubject, ticketsOfAddress *quota
	fruitless                          *quota // HTTP requests; see pace

	// Of events that come by HTTP: what became of them, how many may come, and room
	// for those that wait.
	publishPath     string // of plain requests, as it is in the request line
	publishedByHTTP [wire.NumCodes]atomic.Uint64
	httpRate        *quota
	httpRoom        signal
}

// New makes a server that verifies tokens with auth.
func New(opts Options, auth *authz.Verifier, log *zap.Logger) (*Server, error) {
	opts = opts.WithDefaults()
	s := &Server{
		opts: opts, log: log, auth: auth, handoff: loop.NewHandoffListener(),
		shards: make([]shard, opts.Shards), verifyOnLoop: maxVerified,
	}
	s.penalties.seed = maphash.MakeSeed()
	s.answers = newAnswers()
	if len(opts.TrustedProxies) > 0 {
		opts.Loop.Exempt = s.isTrusted
	}
	opts.Loop.OnRefuse = func(addr netip.Addr, reason string) {
		s.refusedHandshake(addr, reason, "")
		if reason == loop.RefusedPerIP {
			s.warnCrowded(addr)
		}
	}
	s.ticketsOfSubject = newQuota(opts.TicketsPerSubject, opts.TicketTTL)
	s.ticketsOfAddress = newQuota(opts.TicketsPerIP, opts.TicketTTL)
	s.fruitless = newQuota(fruitlessAtOnce, time.Second)
	if opts.Rate > 0 {
		s.httpRate = newQuota(opts.Burst, time.Duration(opts.Burst)*time.Second/time.Duration(opts.Rate))
	}
	errorLog, _ := zap.NewStdLogAt(s.log, zap.DebugLevel)
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: s.opts.Loop.HandshakeTimeout,
		ReadTimeout:       s.opts.Loop.MessageTimeout,
		WriteTimeout:      s.opts.Loop.MessageTimeout, // a client that does not read its answers
		IdleTimeout:       loop.KeepAlive,
		MaxHeaderBytes:    s.opts.Loop.HeadBytes,
		ErrorLog:          errorLog,
	}
	requests, cut := context.WithCancel(context.Background())
	s.cutHTTP = cut
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	s.streamContext, s.cutStreams = context.WithCancel(context.Background())
	opts.Loop.OnRoom = s.Room
	opts.Loop.OnDrained = s.drained
	opts.Loop.EventName = eventName
	opts.Loop.HTTP = s.handoff
	s.publishPath = opts.PathPrefix + "/v1/publish"
	opts.Loop.Posts = s.isPublish
	if opts.AdaptProcessors {
		s.governor = governor.New(func() { s.engine.ProcessorsChanged() })
	}
	if s.governor != nil {
		opts.Loop.OnTurn = func(l *loop.Loop, writes int) { s.governor.Turn(&stateOf(l).processTime, l.Now(), writes) }
	}
	opts.Loop.AcceptError = func(err error) {
		log.Warn("not accepting connections for a second", zap.Error(err))
	}
	var err error
	if s.engine, err = loop.New(opts.Loop, s); err != nil {
		return nil, err
	}
	for _, l := range s.engine.Loops() {
		st := &loopState{}
		st.receipts.take = func() { s.takeReceipts(l) }
		l.Data = st
	}
	s.topics.loops = len(s.engine.Loops())
	return s, nil
}

// Start serves the socket of ln, a TCP listener that it takes over, and returns
// at once. streams keep the events of durable topics; nil: no topic is durable. store
// keeps tickets, used tokens and revocations for all nodes; where it is nil, they are
// refused.
func (s *Server) Start(ln net.Listener, bus Bus, streams Streams, store Store) error {
	if store == nil {
		store = noStore{}
	}
	s.bus, s.streams, s.store = bus, streams, store
	s.topics.bus = bus
	if streams != nil {
		s.topics.shards, s.topics.homeOf = s.opts.Shards, s.homeOf
	}
	s.verify.start(s.opts.VerifyWorkers)
	s.tickets.start(storeWorkers)
	s.once.start(storeWorkers)
	s.replays.start(replayWorkers)
	s.served.Go(func() {
		if err := s.http.Serve(s.handoff); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("http", zap.Error(err))
		}
	})
	return s.engine.Start(ln)
}

// Shutdown lets requests and queued events finish, and closes every connection
// with 1012, spread over Options.DrainWindow. In the first half of that time
// the server goes on as ever, but for a notice to all clients: they can connect
// to another node before they give up this one. Then it stops accepting. The
// bus must still run. When ctx ends first, the connections that are left are cut
// off and its error returned; a loop that hangs is left behind.
func (s *Server) Shutdown(ctx context.Context) error {
	window := s.opts.DrainWindow
	if notice := window / 2; notice >= minRestartNotice {
		s.announceRestart(ctx, notice)
		window -= notice
	}
	if s.governor != nil {
		s.governor.Stop()
	}
	err := s.engine.Drain(ctx, window)
	// Requests have a time of their own: connections may have used up that of ctx.
	inTime, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpGrace)
	defer cancel()
	if cut := s.http.Shutdown(inTime); cut != nil {
		s.log.Warn("HTTP requests were cut off", zap.Error(cut))
		_ = s.http.Close()
	}
	s.cutHTTP()
	s.served.Wait()
	s.verify.stop()
	s.tickets.stop()
	s.once.stop()
	s.cutStreams()
	s.replays.stop()
	return err
}

// httpGrace is how long requests that are under way may take once the server has
// stopped to accept.
const httpGrace = 3 * time.Second

// minRestartNotice is the shortest notice of a restart that is worth giving: the
// protocol counts in whole seconds.
const minRestartNotice = time.Second

// announceRestart tells all clients that the node restarts, and waits for as
// long as they know that it goes on, or until all of them have left.
func (s *Server) announceRestart(ctx context.Context, within time.Duration) {
	frame := wire.AppendRestart(nil, within)
	for _, l := range s.engine.Loops() {
		l.Post(func() {
			l.Conns(func(c *loop.Conn) bool {
				c.Send(ws.OpText, frame)
				return true
			})
		})
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.engine.Connections() > 0 && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// Health waits until each loop has given a sign of life. When ctx ends sooner it
// says which loops hang.
func (s *Server) Health(ctx context.Context) error { return s.engine.Health(ctx) }

// Recheck looks at every subscription's token again and ends those whose token
// is no longer valid. Call it when keys were withdrawn or tokens revoked; it
// returns when all have been looked at. Others are served meanwhile: each loop
// looks at some connections a turn.
func (s *Server) Recheck() {
	var loops sync.WaitGroup
	for _, l := range s.engine.Loops() {
		loops.Add(1)
		s.recheckFrom(l, 0, loops.Done)
	}
	loops.Wait()
}

// recheckTurn is how many connections a loop looks at in a turn: a tenth of a
// millisecond or so.
const recheckTurn = 512

func (s *Server) recheckFrom(l *loop.Loop, place int, done func()) {
	if !l.Post(func() {
		if place = l.ConnsFrom(place, recheckTurn, s.recheck); place == 0 {
			done()
		} else {
			s.recheckFrom(l, place, done)
		}
	}) {
		done()
	}
}
