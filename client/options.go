package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Options configure a Client. Only Token is required; zero values stand for the defaults.
type Options struct {
	// Token gives the token for each publish, each subscribe, each connection and each refresh. It is called from
	// several goroutines, for each publish anew, so that a token may be good for that one message alone.
	Token TokenSource

	// Strategy is how the connection itself gets a credential, besides the token of each publish. The default,
	// StrategyMessage, is none: each subscribe carries a token of its own. With any other, Token is asked with
	// ActionConnect for each connection and again before that token expires, and subscribes carry none.
	Strategy Strategy

	// OnState gets each change of state, in order, with the error that led to it, if any. It is called from one
	// goroutine, which also reconnects: it may use the Client but should return soon.
	OnState func(State, error)
	// OnError gets errors that happen in the background and end nothing: the source gave no token for a refresh,
	// events dropped since a handler is too slow. It may be called from several goroutines.
	OnError func(error)

	// HTTPClient makes the handshake; its Transport holds TLS and proxy settings. Default: http.DefaultClient.
	HTTPClient *http.Client
	// Header is sent with the handshake.
	Header http.Header

	// DialTimeout bounds one attempt to connect, the server's welcome included. Default: 10 s.
	DialTimeout time.Duration
	// AckTimeout bounds the wait for the answer to one request; over it the request fails with ErrTimeout.
	// Default: 10 s.
	AckTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pause before the nth attempt to connect again: it is random, between 0 and
	// MinBackoff·2ⁿ, but at most MaxBackoff. When the server says Retry-After, that comes first. Defaults: 250 ms, 30 s.
	MinBackoff, MaxBackoff time.Duration

	// InFlight bounds the publishes that wait for their answer; PublishAsync waits at the bound. Default: 1024.
	InFlight int
	// QueueBytes bounds the events of one subscription that wait for its handler; further ones are dropped, counted
	// and reported to OnError as ErrSlowHandler. Those of durable topics are read from the stream later instead, and
	// reported as ErrBehind. Default: 8 MiB.
	QueueBytes int
	// ReadLimit bounds one message from the server, in bytes; over it the connection is lost. Default: 2 MiB.
	ReadLimit int
}

// Action is what a token is wanted for.
type Action string

// The actions.
const (
	ActionPublish   Action = "publish"
	ActionSubscribe Action = "subscribe"
	ActionConnect   Action = "connect"
)

// Request says what a token is wanted for.
type Request struct {
	Action Action
	Topic  string // a pattern when the action is to subscribe to one; empty when it is to connect
	// Data is what will be published, byte for byte, for a token that is bound to it (notify.digest). It must be neither
	// changed nor kept.
	Data []byte
}

// Strategy is a way to present a connection's credential. The operator decides which are enabled.
type Strategy string

// The strategies. A ticket is fetched by an HTTP call for each connection, and keeps the token out of the handshake;
// clients in Go that can reach the server directly want StrategyHeader.
const (
	StrategyMessage      Strategy = "message"       // none: each subscribe carries a token
	StrategyFirstMessage Strategy = "first-message" // an auth envelope
	StrategyHeader       Strategy = "header"        // Authorization: Bearer
	StrategySubprotocol  Strategy = "subprotocol"   // Sec-WebSocket-Protocol: notifyd.v1, bearer.TOKEN
	StrategyTicket       Strategy = "ticket"        // POST /v1/tickets, then ticket.TICKET as a subprotocol
)

// TokenSource gives a token (a JWT) that permits the request. It must return when ctx ends. A source that makes network
// calls should remember a token until shortly before it expires: it is asked for every publish.
type TokenSource func(ctx context.Context, r Request) (string, error)

// StaticToken is the source that always gives the same token, for programs that end before it expires.
func StaticToken(token string) TokenSource {
	return func(context.Context, Request) (string, error) { return token, nil }
}

// State is where a Client stands.
type State uint8

// The states, in the usual order. StateClosed is the last.
const (
	StateConnected State = iota + 1
	StateReconnecting
	StateClosed
)

func (s State) String() string {
	switch s {
	case StateConnected:
		return "connected"
	case StateReconnecting:
		return "reconnecting"
	case StateClosed:
		return "closed"
	}
	return "unknown"
}

func (o *Options) setDefaults() error {
	if o.Token == nil {
		return errors.New("client: Options.Token is missing: every publish and subscribe needs a token")
	}
	switch o.Strategy {
	case "":
		o.Strategy = StrategyMessage
	case StrategyMessage, StrategyFirstMessage, StrategyHeader, StrategySubprotocol, StrategyTicket:
	default:
		return fmt.Errorf("client: Options.Strategy %q is none of message, first-message, header, subprotocol and ticket", o.Strategy)
	}
	if o.HTTPClient == nil {
		o.HTTPClient = http.DefaultClient
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.DialTimeout, 10 * time.Second},
		{&o.AckTimeout, 10 * time.Second},
		{&o.MinBackoff, 250 * time.Millisecond},
		{&o.MaxBackoff, 30 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *int
		value int
	}{
		{&o.InFlight, 1024},
		{&o.QueueBytes, 8 << 20},
		{&o.ReadLimit, 2 << 20},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return nil
}
