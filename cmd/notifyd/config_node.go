package main

import (
	"cmp"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/node"
)

// none is what other packages take for no time at all, or no bound, where their zero value is a default.
const none = -1

// defaultSyncInterval is that of NATS. Beside an external NATS, which has an interval of its own, another one is refused.
const defaultSyncInterval = 2 * time.Minute

// nodeOptions says to a node what is configured.
func (c *config) nodeOptions() (node.Options, error) {
	release, commit := built()
	o := node.Options{
		Listen:      c.Listen,
		AdminListen: c.Admin.Listen,
		Pprof:       c.Admin.Pprof,
		Console:     c.Console.Enabled,
		DrainDelay:  c.DrainDelay,
		Version:     release,
		Revision:    commit,
		Auth:        c.authOptions(),
	}
	c.setBusOptions(&o)
	c.setServerOptions(&o)
	var names []string
	for _, s := range c.Auth.Strategies {
		names = append(names, string(s))
	}
	var err error
	o.Server.Strategies, err = node.ParseStrategies(names)
	return o, err
}

func (c *config) setBusOptions(o *node.Options) {
	b, n := &o.Bus, &c.NATS
	b.URL, b.Prefix = n.URL, n.Prefix
	b.Creds, b.NKey, b.User, b.Password = n.Creds, n.NKey, n.User, n.Password
	b.TLSCA, b.TLSCert, b.TLSKey = n.TLSCA, n.TLSCert, n.TLSKey
	b.DataDir, b.MaxPayload = c.DataDir, int(c.Limits.MessageBytes)
	b.Linger = cmp.Or(n.Linger, none)
	b.Embedded.Listen = n.Listen
	b.Embedded.ClusterName, b.Embedded.ClusterListen, b.Embedded.Routes = n.ClusterName, n.ClusterListen, n.Routes
	if n.SyncInterval != defaultSyncInterval {
		b.Embedded.SyncInterval = cmp.Or(n.SyncInterval, none)
	}
	b.Streams = c.Streams.options()
	o.Store.Replicas = n.Replicas
}

func (c *config) setServerOptions(o *node.Options) {
	s := &o.Server
	s.Subscriptions = c.Limits.Subscriptions
	s.Rate, s.Burst = c.Limits.Rate, c.Limits.Burst
	s.BadEnvelopes, s.AuthFailures, s.Penalty = c.Limits.BadEnvelopes, c.Limits.AuthFailures, c.Limits.Penalty
	s.VerifyWorkers, s.ExpiryNotice = c.Auth.Workers, c.Auth.ExpiryNotice
	s.DrainWindow = c.DrainWindow
	s.RequireConnection, s.AuthDeadline = c.Auth.Require == "connection", c.Auth.Deadline
	s.TicketTTL = c.Auth.TicketTTL
	s.EventsFrom = c.Events.From
	s.TicketsPerSubject, s.TicketsPerIP = c.Limits.TicketsPerSubject, c.Limits.TicketsPerIP
	for _, allowed := range c.Origins {
		s.Origins = append(s.Origins, string(allowed))
	}
	for _, proxies := range c.TrustedProxies {
		s.TrustedProxies = append(s.TrustedProxies, netip.Prefix(proxies))
	}

	s.ProxyHeader, s.PathPrefix = strings.TrimPrefix(c.ProxyHeader, "auto"), c.PathPrefix
	s.AdaptProcessors = os.Getenv("GOMAXPROCS") == "" // else there are as many as somebody wants

	l := &s.Loop
	l.Loops = c.Loops
	l.HeadBytes, l.MessageBytes = int(c.Limits.HeadBytes), int(c.Limits.MessageBytes)
	l.PendingBytes = int(c.Limits.PendingBytes)
	l.Connections, l.ConnectionsPerIP = c.Limits.Connections, c.Limits.ConnectionsPerIP
	l.ProxyProtocol = c.ProxyProtocol
	l.HandshakeTimeout, l.MessageTimeout = c.Limits.HandshakeTimeout, c.Limits.MessageTimeout
	l.PingInterval, l.IdleTimeout = c.PingInterval, c.Limits.IdleTimeout
}

func (c *config) authOptions() authz.Options {
	o := authz.Options{
		Keys: c.Auth.Keys, Issuer: c.Auth.Issuer, Audience: audienceList(c.Auth.Audience),
		JWKSRefresh: c.Auth.JWKSRefresh, JWKSCooldown: c.Auth.JWKSCooldown, JWKSTimeout: c.Auth.JWKSTimeout,
		JWKSMaxAge: cmp.Or(c.Auth.JWKSMaxAge, none),
		Leeway:     c.Auth.Leeway, NotBeforeLeeway: cmp.Or(c.Auth.NotBeforeLeeway, none),
		CacheEntries: c.Auth.CacheEntries, MaxTokenBytes: int(c.Auth.TokenBytes),
	}
	for _, is := range c.Auth.Issuers {
		o.Issuers = append(o.Issuers, is.policy())
	}
	if c.Auth.RevocationOutage != "open" {
		o.RevocationMaxAge = c.Auth.RevocationMaxAge
		o.RevocationStrict = c.Auth.RevocationOutage == "strict"
	}
	return o
}
