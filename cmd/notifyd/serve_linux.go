package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bus"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/store"
)

const (
	// busShards is how many goroutines hand events from NATS to the loops.
	busShards = 1
	// startTimeout bounds the start of the bus.
	startTimeout = 30 * time.Second
	// stopTimeout bounds what comes after the drain window: a last flush, and the end of the bus.
	stopTimeout = 10 * time.Second
)

// serve runs a node until p.ctx ends, and then drains it.
func (c *serveCmd) serve(p *process) error {
	var dev []authz.Key
	if c.Dev {
		key, err := authz.GenerateKey("EdDSA")
		if err != nil {
			return err
		}
		dev = []authz.Key{key}
	}
	log := newLogger(c.Log, p.stderr)
	defer func() { _ = log.Sync() }()
	n, err := c.start(p.ctx, dev, log)
	if err != nil {
		return err
	}
	if c.Dev {
		if err := c.greet(p, dev[0], n.listener.Addr()); err != nil {
			return errors.Join(err, n.stop())
		}
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			n.reload()
		case err := <-n.admin.failed:
			return errors.Join(fmt.Errorf("admin.listen: %w", err), n.stop())
		case <-p.ctx.Done():
			return n.stop()
		}
	}
}

// node is a running server and what it runs on.
type node struct {
	config   *config
	log      *zap.Logger
	verifier *authz.Verifier
	server   *server.Server
	bus      *bus.Bus
	store    *store.Store
	listener net.Listener
	admin    *admin

	revocations *revocations
	rechecker   *rechecker
	background  sync.WaitGroup // what runs until cancel
	cancel      context.CancelFunc
}

// start brings a node up: bus, then clients, then what tells that it is ready. dev are keys that are in no file.
func (c *config) start(ctx context.Context, dev []authz.Key, log *zap.Logger) (_ *node, err error) {
	id := strings.ToLower(rand.Text()[:8])
	n := &node{config: c, log: log.With(zap.String("node", id))}
	defer func() {
		if err != nil {
			n.abort()
		}
	}()
	var life context.Context
	life, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	// A change may come before there is a server whose subscriptions it could end; it waits until the rechecker runs.
	n.rechecker = newRechecker(func() { n.server.Recheck() })
	authOptions := c.authOptions()
	authOptions.Trusted = dev
	authOptions.OnChange = n.rechecker.ask
	authOptions.OnKeyError = n.keysFailed
	authOptions.OnKeySetTooOld = func(err error) { n.log.Error("keys count no more", zap.Error(err)) }
	authOptions.OnKeySkipped = func(err error) { n.log.Warn("a key is not trusted, the others are", zap.Error(err)) }
	verifying := newVerifyTime()
	authOptions.OnVerify = func(took time.Duration) { verifying.Observe(took.Seconds()) }
	if n.verifier, err = authz.New(authOptions); err != nil {
		if c.Auth.fetches() {
			return nil, err // another attempt may do
		}
		return nil, usageError{err}
	}
	options, err := c.serverOptions(id)
	if err != nil {
		return nil, usageError{err}
	}
	if n.server, err = server.New(options, n.verifier, n.log); err != nil {
		return nil, err
	}
	// Both ports are taken before anything runs, so that a port in use is told at once.
	if n.listener, err = loop.Listen(c.Listen); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if n.admin, err = newAdmin(c.Admin, n.ready); err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	busOptions := c.busOptions()
	busOptions.Shards = busShards
	if n.bus, err = bus.Open(startCtx, busOptions, n.server, n.log); err != nil {
		if option := (*bus.OptionError)(nil); errors.As(err, &option) {
			return nil, usageError{errors.New(natsKeys.Replace(err.Error()))}
		}
		return nil, fmt.Errorf("nats: %w", err)
	}
	if n.store, err = store.New(n.bus.Conn(), c.storeOptions(), n.log); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	n.bus.Watch(n.store)
	n.revocations = newRevocations(n.verifier, n.store, n.rechecker, n.log)
	n.store.WatchRevocations(n.revocations.apply, n.revocations.loaded)
	n.background.Go(func() { n.verifier.Run(life) })
	n.background.Go(func() { n.revocations.run(life) })
	if n.bus.Connected() { // without NATS there is nothing to wait for
		n.revocations.await(startCtx)
	}
	if err = n.server.Start(n.listener, n.bus, shared{n.store, n.revocations}); err != nil {
		return nil, err
	}
	n.background.Go(func() { n.rechecker.run(life) })
	n.admin.metrics.MustRegister(n.server.Collector(), verifying, tokenCollector{n.verifier}, natsCollector{n.bus},
		n.revocations.calls, n.rechecker.took, revocationAge(n.store))
	n.admin.start()
	n.log.Info("listening", zap.Stringer("addr", n.listener.Addr()), zap.String("admin", n.admin.addr()),
		zap.String("version", versionText()))
	return n, nil
}

// abort takes back a start that did not come to its end.
func (n *node) abort() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if n.store != nil {
		n.store.Close()
	}
	if n.bus != nil {
		_ = n.bus.Close(ctx)
	}
	n.cancel()
	n.background.Wait()
	if n.listener != nil {
		_ = n.listener.Close()
	}
	if n.admin != nil {
		n.admin.stop(ctx)
	}
}

// ready says why no new client should come here; nil if it should.
func (n *node) ready() error {
	if !n.bus.Connected() {
		return errors.New("NATS is unreachable")
	}
	if n.config.Auth.RevocationOutage == "closed" {
		return n.revocations.ready(n.config.Auth.RevocationMaxAge)
	}
	return nil
}

// stop drains the node: /readyz says no, clients are sent away over the drain window, then the bus ends.
func (n *node) stop() error {
	n.log.Info("draining", zap.Duration("window", n.config.DrainWindow))
	n.admin.drain()
	ctx, cancel := context.WithTimeout(context.Background(), n.config.DrainWindow+stopTimeout)
	defer cancel()
	err := n.server.Shutdown(ctx)
	n.store.Close()
	err = errors.Join(err, n.bus.Close(ctx))
	n.cancel()
	n.background.Wait()
	n.admin.stop(ctx)
	n.log.Info("stopped", zap.Error(err))
	return err
}

// reload reads the key files again, and fetches URLs again in the background. Tokens of keys that are gone fall at once;
// after an error the old keys stay.
func (n *node) reload() {
	if err := n.verifier.Reload(); err != nil {
		n.keysFailed(err)
		return
	}
	n.log.Info("keys reloaded")
}

func (n *node) keysFailed(err error) {
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

func (c *config) serverOptions(id string) (server.Options, error) {
	var names []string
	for _, s := range c.Auth.Strategies {
		names = append(names, string(s))
	}
	strategies, err := server.ParseStrategies(names)
	var origins []string
	for _, o := range c.Origins {
		origins = append(origins, string(o))
	}
	var proxies []netip.Prefix
	for _, n := range c.TrustedProxies {
		proxies = append(proxies, netip.Prefix(n))
	}
	return server.Options{
		Node:          id,
		Shards:        busShards,
		Subscriptions: c.Limits.Subscriptions,
		Rate:          c.Limits.Rate,
		Burst:         c.Limits.Burst,
		BadEnvelopes:  c.Limits.BadEnvelopes,
		AuthFailures:  c.Limits.AuthFailures,
		Penalty:       c.Limits.Penalty,
		VerifyWorkers: c.Auth.Workers,
		ExpiryNotice:  c.Auth.ExpiryNotice,
		DrainWindow:   c.DrainWindow,

		Strategies:        strategies,
		RequireConnection: c.Auth.Require == "connection",
		AuthDeadline:      c.Auth.Deadline,
		TicketTTL:         c.Auth.TicketTTL,
		TicketsPerSubject: c.Limits.TicketsPerSubject,
		TicketsPerIP:      c.Limits.TicketsPerIP,
		Origins:           origins,
		TrustedProxies:    proxies,
		ProxyHeader:       strings.TrimPrefix(c.ProxyHeader, "auto"),
		PathPrefix:        c.PathPrefix,
		AdaptProcessors:   os.Getenv("GOMAXPROCS") == "", // else the operator has chosen

		Loop: loop.Options{
			Loops:            c.Loops,
			HeadBytes:        int(c.Limits.HeadBytes),
			MessageBytes:     int(c.Limits.MessageBytes),
			PendingBytes:     int(c.Limits.PendingBytes),
			Connections:      c.Limits.Connections,
			ConnectionsPerIP: c.Limits.ConnectionsPerIP,
			ProxyProtocol:    c.ProxyProtocol,
			HandshakeTimeout: c.Limits.HandshakeTimeout,
			MessageTimeout:   c.Limits.MessageTimeout,
			PingInterval:     c.PingInterval,
			IdleTimeout:      c.Limits.IdleTimeout,
		},
	}, err
}
