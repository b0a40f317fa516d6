// Package node is a notifyd node as a thing that one can start: keys, NATS, the store, the WebSocket server and
// the listener for operators, brought up in order and taken down in order. The program and the tests of several
// packages start nodes with it.
package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/store"
)

const (
	// busShards is how many goroutines hand events from NATS to the loops.
	busShards = 1
	// startTimeout bounds the start of the bus, and the wait for the revocations.
	startTimeout = 30 * time.Second
	// Each stage of a stop has a time of its own, so that one which hangs takes nothing from the next.
	//
	// clientsTimeout follows the drain window: close handshakes (5 s, by a clock of seconds).
	clientsTimeout = 8 * time.Second
	// busTimeout is for the last flush to NATS, and the end of the embedded server.
	busTimeout = 10 * time.Second
	// restTimeout is for each of the others.
	restTimeout = 2 * time.Second
	// cutOff is how much longer a stage may take that has been told to end.
	cutOff = 8 * time.Second
)

// Options say what a node is made of. The zero value is a node on a port that the system chooses, with an embedded
// NATS server; it trusts no key until Auth names some.
type Options struct {
	// Listen is the address for clients. Default 127.0.0.1:0.
	Listen string
	// AdminListen is the address for operators: /healthz, /readyz, /metrics and /streams, with Pprof /debug/pprof too. Keep
	// it private. Empty: none.
	AdminListen string
	Pprof       bool
	// Console has the listener for operators serve /console, and pass on what its page asks of /v1.
	Console bool
	// Mint signs tokens for the console, which is on the listener for clients then: for trying things out, with a key that
	// nothing else trusts. It is asked by a page that has [Node.MintSecret] alone. Nil: no.
	Mint func(authz.Claims) (string, error)
	// DrainDelay is how long Close goes on as ever, with a /readyz that says no, before it sends clients away: a load
	// balancer that has not seen that yet sends new ones here.
	DrainDelay time.Duration
	// Version and Revision, the commit, are logged at the start, and are in the metric notifyd_build_info.
	Version, Revision string

	// Auth says which tokens are valid. The node sets the callbacks but OnVerify, which it calls too.
	// RevocationMaxAge makes /readyz say no while revocations are older.
	Auth authz.Options
	// Server holds the limits. The node sets Node and Shards.
	Server server.Options
	// Bus says which NATS. The node sets Shards.
	Bus bus.Options
	// Store says how shared state is kept. The node sets Prefix to that of the bus.
	Store store.Options
}

// An OptionError is a setting of NATS that cannot work. Field says which of [bus.Options] it is.
type OptionError = bus.OptionError

// StreamOptions declare a stream.
type StreamOptions = bus.StreamOptions

// StorageMemory is a [StreamOptions.Storage] that does not outlive a restart.
const StorageMemory = bus.StorageMemory

// ParseStrategies makes [server.Options.Strategies] of names.
func ParseStrategies(names []string) (server.Strategy, error) { return server.ParseStrategies(names) }

// A StartError says which of the [Options] a node cannot start with.
type StartError struct {
	Field string // of Options
	Err   error
}

func (e *StartError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *StartError) Unwrap() error { return e.Err }

// A Node is a running node. Its methods may be called from any goroutine. Server, Bus and Verifier are there to look
// at and to talk to; the node starts and ends them.
type Node struct {
	Server   *server.Server
	Bus      *bus.Bus
	Verifier *authz.Verifier

	id               string
	mintSecret       string
	log              *zap.Logger
	revocationMaxAge time.Duration
	drainDelay       time.Duration
	drainWindow      time.Duration
	listener         net.Listener
	admin            *admin
	store            *store.Store
	revocations      *revocations

	background sync.WaitGroup // what runs until cancel
	cancel     context.CancelFunc
	closing    sync.Once
	closeErr   error
}

// Start brings a node up: NATS first, then clients, then what says that it is ready. ctx bounds the start alone. An
// external NATS that cannot be reached does not fail the start; /readyz says no until it is.
//
// What is wrong with the options is a [*StartError], which may wrap an [*OptionError].
func Start(ctx context.Context, o Options, log *zap.Logger) (_ *Node, err error) {
	id := strings.ToLower(rand.Text()[:8])
	n := &Node{
		id:               id,
		mintSecret:       rand.Text(),
		log:              log.With(zap.String("node", id)),
		revocationMaxAge: o.Auth.RevocationMaxAge,
		drainDelay:       o.DrainDelay,
		drainWindow:      o.Server.DrainWindow,
	}
	defer func() {
		if err != nil {
			n.abort()
		}
	}()
	var life context.Context
	life, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	recheck := newRechecker()
	verifying := newVerifyTime()
	if n.Verifier, err = authz.NewContext(ctx, n.authOptions(o.Auth, recheck, verifying)); err != nil {
		return nil, &StartError{"Auth", err}
	}
	o.Server.Node, o.Server.Shards, o.Bus.Shards = id, busShards+len(o.Bus.Streams), busShards
	asked, lowered := o.Server.Loop.Connections, false
	if o.Server.Loop.Connections, lowered = boundConnections(asked); lowered {
		n.log.Warn("the process has too few descriptors for limits.connections, taking fewer; raise ulimit -n or LimitNOFILE",
			zap.Int("limits.connections", asked), zap.Int("taken", o.Server.Loop.Connections))
	}
	page := &consolePage{node: n, options: &o}
	if o.Mint != nil {
		o.Server.Console = page.handler(true)
	}
	if n.Server, err = server.New(o.Server, n.Verifier, n.log); err != nil {
		return nil, &StartError{"Server", err}
	}
	// Both ports are taken before anything runs, so that a port in use is an error at once.
	if n.listener, err = loop.Listen(cmp.Or(o.Listen, "127.0.0.1:0")); err != nil {
		return nil, &StartError{"Listen", err}
	}
	if n.admin, err = listenAdmin(o.AdminListen); err != nil {
		return nil, &StartError{"AdminListen", err}
	}
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if n.Bus, err = bus.Open(startCtx, o.Bus, n.Server, n.log); err != nil {
		return nil, &StartError{"Bus", err}
	}
	o.Store.Prefix = o.Bus.Prefix
	if n.store, err = store.New(n.Bus.Conn(), o.Store, n.log); err != nil {
		return nil, &StartError{"Store", err}
	}
	n.Bus.Watch(n.store)
	n.revocations = newRevocations(n.Verifier, n.store, recheck, n.log)
	n.store.WatchRevocations(n.revocations.watch())
	n.background.Go(func() { n.Verifier.Run(life) })
	n.background.Go(func() { n.revocations.run(life) })
	if n.Bus.Connected() { // without NATS there is nothing to wait for
		n.revocations.await(startCtx)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err = n.Server.Start(n.listener, n.Bus, streamsOf(n.Bus), shared{n.store, n.revocations}); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	n.background.Go(func() { recheck.run(life, n.Server.Recheck) })
	n.admin.metrics.MustRegister(n.Server.Collector(), verifying, tokenCollector{n.Verifier}, natsCollector{n.Bus}, streamCollector{n.Bus},
		readyGauge(n.ready), limitGauge(o.Server.Loop.Connections), buildInfo(o.Version, o.Revision), n.revocations.calls, recheck.took, storeCollector{n.store, n.revocations})
	if o.Console {
		n.admin.console, n.admin.calls = page.handler(false), page.calls()
	}
	n.admin.serve(n.Server.Health, n.ready, serveStreams(n.Bus), o.Pprof)
	n.log.Info("listening", zap.Stringer("addr", n.listener.Addr()), zap.String("admin", n.AdminAddr()),
		zap.String("version", o.Version), zap.String("revision", o.Revision), zap.String("go", runtime.Version()))
	return n, nil
}

// authOptions adds the node's callbacks to o.
func (n *Node) authOptions(o authz.Options, recheck *rechecker, verifying prometheus.Observer) authz.Options {
	// A change may come before there is a server whose subscriptions it could end; it waits until the rechecker runs.
	o.OnChange = recheck.ask
	o.OnKeyError = n.keysFailed
	o.OnKeysLoaded = n.keysLoaded
	o.OnKeySetTooOld = func(err error) { n.log.Error("keys count no more", zap.Error(err)) }
	o.OnKeySkipped = func(err error) { n.log.Warn("a key is not trusted, the others are", zap.Error(err)) }
	if n.log.Core().Enabled(zap.DebugLevel) {
		o.OnRefused = func(why *authz.Refusal, addr netip.Addr) {
			n.log.Debug("token refused", zap.Stringer("reason", why.Reason), zap.Error(why), zap.Stringer("addr", addr))
		}
	}
	also := o.OnVerify
	o.OnVerify = func(took time.Duration) {
		verifying.Observe(took.Seconds())
		if also != nil {
			also(took)
		}
	}
	return o
}

// abort takes back a start that did not come to its end.
func (n *Node) abort() {
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	if n.store != nil {
		n.store.Close()
	}
	if n.Bus != nil {
		_ = n.Bus.Close(ctx)
	}
	n.cancel()
	n.background.Wait()
	if n.listener != nil {
		_ = n.listener.Close()
	}
	if n.admin != nil {
		n.admin.close(ctx)
	}
}

// Addr is where clients connect.
func (n *Node) Addr() net.Addr { return n.listener.Addr() }

// Reachable is where this machine reaches the listener for clients.
func (n *Node) Reachable() string { return reachable(n.Addr()) }

// MintSecret is what a page of the console presents to have tokens made. It is made for each node, and goes to the person
// who starts it: whoever has it may do everything with [Options.Mint].
func (n *Node) MintSecret() string { return n.mintSecret }

// reachable is the address to dial: a listener on every interface is reached on this machine's own.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// AdminAddr is where operators ask; empty when that is off.
func (n *Node) AdminAddr() string { return n.admin.addr() }

// Failed brings the error with which the listener for operators broke. The node should then be closed.
func (n *Node) Failed() <-chan error { return n.admin.failed }

// ready says whether new clients should come here. Where revocations may be missed (RevocationMaxAge is 0), what is wrong
// with them is no reason to send clients elsewhere.
func (n *Node) ready() readiness {
	if n.admin.draining.Load() {
		return readiness{not: errors.New("draining")}
	}
	if !n.Bus.Connected() {
		return readiness{not: errors.New("NATS is unreachable")}
	}
	if err := streamsMissing(n.Bus); err != nil {
		return readiness{not: err}
	}
	wrong := n.revocations.ready(n.revocationMaxAge)
	if n.revocationMaxAge > 0 {
		return readiness{not: wrong}
	}
	return readiness{degraded: wrong}
}

// Close drains the node: /readyz says no at once; after DrainDelay clients are sent away over Server.DrainWindow, and
// then everything ends. It takes up to half a minute more than these two. Later calls wait for the first and return
// its error.
func (n *Node) Close() error {
	n.closing.Do(func() { n.closeErr = n.drain() })
	return n.closeErr
}

func (n *Node) drain() error {
	n.log.Info("draining", zap.Duration("delay", n.drainDelay), zap.Duration("window", n.drainWindow))
	n.admin.drain()
	time.Sleep(n.drainDelay)
	err := errors.Join(
		stage("clients", n.drainWindow+clientsTimeout, n.Server.Shutdown),
		stage("store", restTimeout, func(context.Context) error { n.store.Close(); return nil }),
		stage("NATS", busTimeout, n.Bus.Close),
		stage("background", restTimeout, func(context.Context) error { n.cancel(); n.background.Wait(); return nil }),
		stage("admin", restTimeout, func(ctx context.Context) error { n.admin.close(ctx); return nil }),
	)
	n.log.Info("stopped", zap.Error(err))
	return err
}

// stage gives f time, and waits a little longer for it to heed its context. What hangs is left behind.
func stage(name string, within time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	late := time.NewTimer(within + cutOff)
	defer late.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	case <-late.C:
		return fmt.Errorf("%s: did not end in %v", name, within+cutOff)
	}
}

// Reload reads the key files again, and fetches URLs again in the background. Tokens of keys that are gone end at once;
// after an error, which is logged, the old keys stay. The log says which keys came and went.
func (n *Node) Reload() {
	if err := n.Verifier.Reload(); err != nil {
		n.keysFailed(err)
	}
}

func (n *Node) keysLoaded(loaded authz.KeysLoaded) {
	source := zap.String("source", loaded.Source)
	if len(loaded.Added)+len(loaded.Removed) == 0 {
		n.log.Info("keys unchanged", source)
		return
	}
	n.log.Info("keys reloaded", source, zap.Strings("added", loaded.Added), zap.Strings("removed", loaded.Removed))
}

func (n *Node) keysFailed(err error) {
	n.log.Error("keys not loaded, those that there are stay", zap.Error(err))
}

// shared is what all nodes share: the store keeps tickets and used tokens, and a revocation takes effect here too.
type shared struct {
	*store.Store
	revocations *revocations
}

// Revoke implements [server.Store].
func (s shared) Revoke(ctx context.Context, r server.Revocation) error {
	return s.revocations.revoke(ctx, r)
}
