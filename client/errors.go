package client

import (
	"errors"
	"fmt"

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

// tokenAttempts is how often in a row tokens may be refused before a client, or a subscription, gives up. The source is
// asked anew each time: it may have given a token that it had kept for too long, or one that was revoked just now.
const tokenAttempts = 3

// final reports whether err forbids to connect again. refused is how many attempts in a row, this one included, failed
// because of their credential.
func (c *Client) final(err error, refused int) bool {
	if closed := (*CloseError)(nil); errors.As(err, &closed) && !c.unauthenticated(err) {
		return !closed.Code.Reconnect()
	}
	return c.unauthenticated(err) && refused >= tokenAttempts
}

// unauthenticated reports whether err says that the connection's credential was not accepted, or has ended, so that
// only another one can help.
func (c *Client) unauthenticated(err error) bool {
	if closed := (*CloseError)(nil); errors.As(err, &closed) {
		return closed.Code == wire.CloseUnauthenticated && c.opts.Strategy != StrategyMessage
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
