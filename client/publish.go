package client

import (
	"context"
	"errors"
	"strconv"

	"github.com/notifyd/notifyd/wire"
)

// Publish sends one event and waits for the server's ack. data is any JSON value and reaches subscribers byte for byte;
// it is not kept. While there is no connection, Publish waits for one, as long as ctx allows.
//
// When the server answers that the token has expired, the source is asked once more: it may have kept one for too long.
func (c *Client) Publish(ctx context.Context, topic string, data []byte) error {
	err := c.publishOnce(ctx, topic, data)
	if errors.Is(err, wire.TokenExpired) { // it was not published
		err = c.publishOnce(ctx, topic, data)
	}
	return err
}

func (c *Client) publishOnce(ctx context.Context, topic string, data []byte) error {
	ack, err := c.PublishAsync(ctx, topic, data)
	if err != nil {
		return err
	}
	return ack.Wait(ctx)
}

// PublishAsync is Publish without the wait for the ack: events of one goroutine are sent in the order of its calls, many
// of them on the way at once. It waits while Options.InFlight publishes are unanswered. An error means that
// nothing was sent.
func (c *Client) PublishAsync(ctx context.Context, topic string, data []byte) (*Ack, error) {
	if !wire.ValidTopic(topic) {
		return nil, &wire.Error{Code: wire.BadTopic}
	}
	if !wire.ValidJSON(data) {
		return nil, &wire.Error{Code: wire.BadEnvelope, Detail: "data must be one JSON value"}
	}
	select {
	case c.inFlight <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := func() { <-c.inFlight }
	for {
		call, err := c.publish(ctx, release, topic, data)
		if errors.Is(err, errOver) {
			continue // nothing was sent: try on the next connection
		}
		if err != nil {
			release()
			return nil, err
		}
		return (*Ack)(call), nil
	}
}

func (c *Client) publish(ctx context.Context, release func(), topic string, data []byte) (*call, error) {
	s, err := c.live(ctx)
	if err != nil {
		return nil, err
	}
	token, err := c.token(ctx, Request{Action: ActionPublish, Topic: topic, Data: data})
	if err != nil {
		return nil, err
	}
	call, err := s.send(ctx, wire.Publish, release, func(id string) []byte {
		return wire.AppendPublish(make([]byte, 0, len(topic)+len(token)+len(data)+96), id, topic, token, data, "")
	})
	if errors.Is(err, errOver) {
		select {
		case <-s.down:
		case <-s.moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return call, err
}

// Ack stands for the answer to one PublishAsync. Its methods may be called from any goroutine.
type Ack call

// Done is closed when the answer is there: the server's, or that there will be none.
func (a *Ack) Done() <-chan struct{} { return a.done }

// Wait gives the answer: nil if the server took the event.
func (a *Ack) Wait(ctx context.Context) error { return (*call)(a).wait(ctx) }

func (c *Client) newID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	return strconv.FormatUint(c.nextID, 36)
}
