package client

import (
	"context"
	"errors"
	"strconv"

	"github.com/notifyd/notifyd/wire"
)

// Stored says where a stream has put an event.
type Stored struct {
	Seq       uint64 // its position in the stream; 0: the topic is not durable
	Duplicate bool   // the stream had an event with this MsgID, and Seq is that one's
}

// Publish sends one event and waits for the server's ack. data is any JSON value and reaches subscribers byte for byte;
// it is not kept. While there is no connection, Publish waits for one, as long as ctx allows.
//
// When the server answers that the token has expired, the source is asked once more: it may have kept one for too long.
func (c *Client) Publish(ctx context.Context, topic string, data []byte) error {
	_, err := c.PublishEvent(ctx, Publication{Topic: topic, Data: data})
	return err
}

// PublishEvent is Publish for an event about which there is more to say, or to learn: nil means, for a durable topic, that
// its stream has stored the event.
func (c *Client) PublishEvent(ctx context.Context, p Publication) (Stored, error) {
	stored, err := c.publishOnce(ctx, p)
	if errors.Is(err, wire.TokenExpired) && p.Token == "" { // it was not published
		stored, err = c.publishOnce(ctx, p)
	}
	return stored, err
}

func (c *Client) publishOnce(ctx context.Context, p Publication) (Stored, error) {
	ack, err := c.PublishEventAsync(ctx, p)
	if err != nil {
		return Stored{}, err
	}
	return ack.Stored(ctx)
}

// PublishAsync is Publish without the wait for the ack: events of one goroutine are sent in the order of its calls, many
// of them on the way at once. It waits while Options.InFlight publishes are unanswered. An error means that
// nothing was sent.
func (c *Client) PublishAsync(ctx context.Context, topic string, data []byte) (*Ack, error) {
	return c.PublishEventAsync(ctx, Publication{Topic: topic, Data: data})
}

// PublishEventAsync is PublishEvent without the wait, as PublishAsync.
func (c *Client) PublishEventAsync(ctx context.Context, p Publication) (*Ack, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	select {
	case c.inFlight <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := func(*wire.Message) { <-c.inFlight }
	for {
		call, err := c.publish(ctx, release, &p)
		if errors.Is(err, errOver) {
			continue // nothing was sent: try on the next connection
		}
		if err != nil {
			release(nil)
			return nil, err
		}
		return (*Ack)(call), nil
	}
}

func (c *Client) publish(ctx context.Context, release func(*wire.Message), p *Publication) (*call, error) {
	s, err := c.live(ctx)
	if err != nil {
		return nil, err
	}
	token := p.Token
	if token == "" {
		if token, err = c.token(ctx, Request{Action: ActionPublish, Topic: p.Topic, Data: p.Data}); err != nil {
			return nil, err
		}
	}
	call, err := s.send(ctx, wire.Publish, release, func(id string) []byte {
		frame := make([]byte, 0, len(p.Topic)+len(token)+len(p.Data)+len(p.MsgID)+128)
		return wire.AppendPublishTTL(frame, id, p.Topic, token, p.Data, p.MsgID, p.ttl())
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

// Stored is Wait, and says where the stream of a durable topic has put the event.
func (a *Ack) Stored(ctx context.Context) (Stored, error) {
	if err := a.Wait(ctx); err != nil {
		return Stored{}, err
	}
	return a.ack, nil
}

func (c *Client) newID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	return strconv.FormatUint(c.nextID, 36)
}
