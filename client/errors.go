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

// final reports whether err forbids to connect again. The end of a credential does not, since the source may have the
// next one; that one's refusal does.
func (c *Client) final(err error) bool {
	if closed := (*CloseError)(nil); errors.As(err, &closed) {
		expired := closed.Code == wire.CloseUnauthenticated && c.opts.Strategy != StrategyMessage
		return !closed.Code.Reconnect() && !expired
	}
	var refused *wire.Error
	return errors.As(err, &refused) && refused.Code.Auth()
}
