package client

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Options configure a Client. Only Token is required; zero values stand for the defaults.
type Options struct {
	// Token gives the token for each publish, each subscribe and each refresh. It is called from several goroutines.
	Token TokenSource

	// OnState is told of each change of state, in order, with the error that led to it, if any. It is called from one
	// goroutine, which also reconnects: it may use the Client but should return soon.
	OnState func(State, error)
	// OnError is told of what happens in the background and ends nothing: a token that could not be had for a refresh,
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
	// MinBackoff·2ⁿ, but at most MaxBackoff. Defaults: 250 ms, 30 s.
	MinBackoff, MaxBackoff time.Duration

	// InFlight bounds the publishes that wait for their answer; PublishAsync waits at the bound. Default: 1024.
	InFlight int
	// QueueBytes bounds the events of one subscription that wait for its handler; further ones are dropped, counted
	// and reported to OnError as ErrSlowHandler. Default: 8 MiB.
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
)

// Request says what a token is wanted for. Topic is a pattern when the action is to subscribe to one.
type Request struct {
	Action Action
	Topic  string
}

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
