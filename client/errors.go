package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Errors that a Client returns besides *wire.Error, *CloseError, those of the context and those of the TokenSource.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("client is closed")
	// ErrDisconnected: the connection was lost before the server answered. A publish may or may not have arrived.
	ErrDisconnected = errors.New("connection lost before the server answered")
	// ErrTimeout: the server did not answer within Options.AckTimeout. A publish may or may not have arrived.
	ErrTimeout = errors.New("the server did not answer in time")
	// ErrSubscribed: this Client has a subscription to that very pattern.
	ErrSubscribed = errors.New("already subscribed")
	// ErrSlowHandler: events were dropped since the handler did not keep up.
	ErrSlowHandler = errors.New("handler too slow, events dropped")
	// ErrBehind: events of a durable topic found no room in the queue. They are read from the stream when the handler has
	// caught up, so that it gets them all.
	ErrBehind = errors.New("handler too slow, the events that follow are read from the stream later")
)

// CloseError says that the server closed the connection, and how.
type CloseError struct {
	Code   wire.CloseCode
	Reason string // what the server wrote; may be empty
}

func (e *CloseError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = e.Code.Text()
	}
	return fmt.Sprintf("server closed the connection: %d %s", e.Code, reason)
}

// tokenAttempts is how often in a row tokens must be refused, at least, before a client, or a subscription, gives up. The
// source is asked anew each time: it may have given a token that it had kept for too long, or one that was revoked just
// now.
const tokenAttempts = 3

// refusals counts the refused tokens of a row.
type refusals struct {
	n     int
	since time.Time // of the first
}

func (r *refusals) add() {
	if r.n == 0 {
		r.since = time.Now()
	}
	r.n++
}

// giveUp reports whether r is enough to stop. A server may refuse good tokens for a while, such as when it still has the
// issuer's keys of before a rotation, so that a number alone does not say that no token will do.
func (c *Client) giveUp(r refusals) bool {
	return r.n >= tokenAttempts && time.Since(r.since) >= 2*c.opts.MaxBackoff
}

// final reports whether err forbids to connect again. refused is the row of refused credentials, err's own included.
func (c *Client) final(err error, refused refusals) bool {
	if unauthenticated(err) {
		return c.giveUp(refused)
	}
	closed := (*CloseError)(nil)
	return errors.As(err, &closed) && !closed.Code.Reconnect()
}

// unauthenticated reports whether err says that a credential was not accepted, or has ended, so that only another one
// can help.
func unauthenticated(err error) bool {
	if closed := (*CloseError)(nil); errors.As(err, &closed) {
		return closed.Code == wire.CloseUnauthenticated
	}
	var refusal *wire.Error
	return errors.As(err, &refusal) && refusal.Code.Auth() && !refusal.Code.Retry()
}

// restarts reports whether the server has asked the client to come back: it restarts, and has spread its clients over
// a while itself.
func restarts(err error) bool {
	closed := (*CloseError)(nil)
	return errors.As(err, &closed) && closed.Code == wire.CloseRestart
}

// heals reports whether err is the server's word that the same request may succeed later.
func heals(err error) bool {
	if later := (*laterError)(nil); errors.As(err, &later) {
		return true
	}
	var refusal *wire.Error
	return errors.As(err, &refusal) && refusal.Code.Retry()
}

// laterError is a refusal over HTTP that says when to try again (RFC 9110 §10.2.3).
type laterError struct {
	refusal error
	after   time.Duration
}

func (e *laterError) Error() string { return e.refusal.Error() }
func (e *laterError) Unwrap() error { return e.refusal }
