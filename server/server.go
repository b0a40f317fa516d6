//go:build linux

// Package server is notifyd between its sockets and its bus: it checks each
// envelope, publishes, keeps the subscriptions and fans events out. path.go
// holds the way of a message; the other files hold what happens beside it.
//
// The package knows neither JWT nor NATS: it declares what it needs of them
// ([Authorizer], [Token], [Bus]) and is given it.
package server

import (
	"context"
	"errors"
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// Authorizer verifies tokens and remembers those that it verified. Its methods
// are called from many goroutines at once; they neither keep nor change token.
type Authorizer interface {
	// Find returns the remembered token with exactly these bytes, or nil. It
	// looks neither at time nor at revocation; that is [Token.Check].
	Find(token []byte) Token
	// Slow says whether Verify would take longer than a loop may (an asymmetric
	// signature). It may be wrong, and is then wasteful rather than unsafe.
	Slow(token []byte) bool
	// Brief says whether a token that is slow is so only for one signature of less
	// than 100 µs or so. It too may be wrong.
	Brief(token []byte) bool
	// Verify checks a token and remembers it. The Token is valid when the code
	// is wire.OK.
	Verify(token []byte) (Token, wire.Code)
	// NewTicket makes a ticket that nobody can guess, TicketKey the name to keep
	// it under, from which it cannot be told.
	NewTicket() string
	TicketKey(ticket string) string
	// Restore makes a Token of what [Token.Record] wrote. It may block.
	Restore(record []byte) (Token, wire.Code)
}

// Token is a verified token. It is immutable and safe for concurrent use.
type Token interface {
	// Same says whether these are the bytes that the token was verified from.
	Same(token []byte) bool
	// Check says whether the token is valid at now (Unix nanoseconds).
	Check(now int64) wire.Code
	// MayPublish and MaySubscribe say whether a grant covers the topic, which
	// has been validated.
	MayPublish(topic []byte) bool
	MaySubscribe(pattern []byte) bool
	// Expires is the first instant, in Unix nanoseconds, at which Check refuses
	// the token for its age.
	Expires() int64
	// ExpSeconds is the token's exp claim.
	ExpSeconds() int64
	Subject() string
	Issuer() string
	// Admin says whether the bearer may revoke.
	Admin() bool
	// Bound says whether the token is for one message alone: Digest says whether
	// it is this one, Once whether the token counts once only, noted under
	// OnceKey until that Unix second.
	Bound() bool
	Digest(topic, data []byte) wire.Code
	Once() (jti string, until int64, once bool)
	OnceKey() string
	// Record is the token written down, for Restore on any node.
	Record() []byte
}

// Bus carries events between nodes. Its methods may be called from any
// goroutine. It calls the server's Event, Flush and Answered.
type Bus interface {
	// Publish hands an event on, at the latest with the next Flush; it keeps
	// neither slice and does not wait.
	Publish(topic, data []byte) wire.Code
	Flush()
	// Busy says whether what was flushed is still under way, and will be followed
	// by the server's Answered in microseconds as a rule. A bus that takes longer
	// says no.
	Busy() bool
	// HasRoom says whether the bus keeps up; when it does not, AwaitRoom waits
	// until it does.
	HasRoom() bool
	AwaitRoom()
	// Subscribe asks for events under handle. done is called once, from a
	// goroutine of the bus and never from within Subscribe.
	Subscribe(handle uint32, pattern string, done func(wire.Code))
	Unsubscribe(handle uint32)
	// Connected says whether events flow.
	Connected() bool
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
	// is told. Default 30 s.
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
	// Store keeps tickets and used tokens for all nodes. Nil: tickets and one-use
	// tokens are refused.
	Store Store
	// Revoke puts a revocation in force on every node. Nil: there are none.
	Revoke func(context.Context, Revocation) error
	// Origins are the origins of pages that may connect: "https://example.com",
	// "example.com" with any scheme, "*.example.com" for all below it. Empty: any.
	Origins []string
	// TrustedProxies may say in Forwarded or X-Forwarded-For whom they speak for.
	TrustedProxies []netip.Prefix
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Subscriptions, 1000)
	def(&o.Burst, o.Rate)
	def(&o.BadEnvelopes, 10)
	def(&o.AuthFailures, 10)
	def(&o.VerifyWorkers, max(1, runtime.GOMAXPROCS(0)/2))
	defDur := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	defDur(&o.ExpiryNotice, 30*time.Second)
	defDur(&o.AuthDeadline, 10*time.Second)
	defDur(&o.TicketTTL, 30*time.Second)
	if o.Strategies == 0 {
		o.Strategies = DefaultStrategies
	}
	if o.Store == nil {
		o.Store = noStore{}
	}
	if o.Revoke == nil {
		o.Revoke = func(context.Context, Revocation) error { return errNoStore }
	}
	// The loops would choose the same; the welcome tells clients.
	def(&o.Loop.MessageBytes, 64<<10)
	if o.Loop.PingInterval == 0 {
		o.Loop.PingInterval = 25 * time.Second
	}
	o.Loop.SlowCode = int(wire.CloseSlowConsumer)
	return o
}

// Server is a node's WebSocket side. Make it with [New], give its Event and
// Flush to a bus, then [Server.Start] it with that bus.
type Server struct {
	opts     Options
	log      *zap.Logger
	auth     Authorizer
	bus      Bus
	engine   *loop.Engine
	topics   topics
	verify   pool // signatures: bounded by cores
	blocking pool // questions to the store
	hand     *loop.Hand
	http     *http.Server
	served   sync.WaitGroup
	shards   []shard
	conns    connIDs

	penalties penalties
}

// New makes a server. shards is how many goroutines of the bus will call Event
// and Flush, each with its own number below shards.
func New(opts Options, auth Authorizer, shards int, log *zap.Logger) (*Server, error) {
	opts = opts.withDefaults()
	s := &Server{opts: opts, log: log, auth: auth, shards: make([]shard, shards)}
	s.penalties.seed = maphash.MakeSeed()
	opts.Loop.HTTP = func(c net.Conn) { s.hand.Give(c) }
	opts.Loop.AcceptError = func(err error) {
		log.Warn("not accepting connections for a second", zap.Error(err))
	}
	var err error
	if s.engine, err = loop.New(opts.Loop, s); err != nil {
		return nil, err
	}
	for _, l := range s.engine.Loops() {
		l.Data = &loopState{}
	}
	s.topics.loops = len(s.engine.Loops())
	return s, nil
}

// Start serves the socket of ln, a TCP listener that it takes over, and returns
// at once.
func (s *Server) Start(ln net.Listener, bus Bus) error {
	s.bus = bus
	s.topics.bus = bus
	s.hand = loop.NewHand(ln.Addr())
	errorLog, _ := zap.NewStdLogAt(s.log, zap.DebugLevel)
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    max(s.opts.Loop.HeadBytes, 8<<10),
		ErrorLog:          errorLog,
	}
	s.verify.start(s.opts.VerifyWorkers)
	s.blocking.start(storeWorkers)
	s.served.Go(func() {
		if err := s.http.Serve(s.hand); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("http", zap.Error(err))
		}
	})
	return s.engine.Start(ln)
}

// Shutdown stops accepting, lets requests and queued events finish, and closes
// every connection with 1012, spread over Options.DrainWindow. The bus must
// still run. When ctx ends first, the rest is cut off and its error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.engine.Drain(ctx, s.opts.DrainWindow)
	err = errors.Join(err, s.http.Shutdown(ctx))
	if err != nil {
		_ = s.http.Close()
	}
	s.served.Wait()
	s.verify.stop()
	s.blocking.stop()
	return err
}

// Recheck looks at every subscription's token again and ends those whose token
// is no longer valid. Call it when keys were withdrawn.
func (s *Server) Recheck() {
	s.engine.Do(func(l *loop.Loop) {
		l.Conns(func(c *loop.Conn) bool {
			s.recheck(c)
			return true
		})
	})
}
