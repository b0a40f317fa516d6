package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server"
	"github.com/notifyd/notifyd/wire"
)

// authorizer gives the server its interface to authz, and times the verifications.
type authorizer struct {
	verifier *authz.Verifier
	took     prometheus.Observer
}

// Find implements [server.Authorizer].
func (a authorizer) Find(token []byte) server.Token {
	if t := a.verifier.Find(token); t != nil {
		return t
	}
	return nil // a nil *authz.Token in the interface would not be nil
}

// Slow implements [server.Authorizer].
func (a authorizer) Slow(token []byte) bool { return a.verifier.Slow(token) }

// Brief implements [server.Authorizer].
func (a authorizer) Brief(token []byte) bool { return a.verifier.Brief(token) }

// Verify implements [server.Authorizer].
func (a authorizer) Verify(token []byte) (server.Token, wire.Code) {
	began := time.Now()
	t, code := a.verifier.Verify(token)
	a.took.Observe(time.Since(began).Seconds())
	if t == nil {
		return nil, code
	}
	return t, code
}

// Restore implements [server.Authorizer].
func (a authorizer) Restore(record []byte) (server.Token, wire.Code) {
	t, code := a.verifier.Restore(record)
	if t == nil {
		return nil, code
	}
	return t, code
}

// NewTicket implements [server.Authorizer].
func (authorizer) NewTicket() string { return authz.NewTicket() }

// TicketKey implements [server.Authorizer].
func (authorizer) TicketKey(ticket string) string { return authz.TicketKey(ticket) }

func newVerifyTime() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "notifyd_verify_seconds",
		Help:    "Time to verify a token that was not remembered.",
		Buckets: prometheus.ExponentialBuckets(1e-6, 4, 9), // 1 µs to 65 ms
	})
}
