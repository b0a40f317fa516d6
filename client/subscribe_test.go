package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestEventsReachTheirHandler(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	plain, pattern := make(chan Event, 1), make(chan Event, 1)
	subscribe(t, c, p, "rooms.42", func(e Event) { plain <- e })
	subscribe(t, c, p, "rooms.*", func(e Event) { pattern <- e })
	data := `{"any" :  "JSON \u00e9"}`
	for _, frame := range [][]byte{
		[]byte(`{"type":"from the future","topic":"rooms.42"}`),
		wire.AppendEvent(nil, "rooms.42", "", []byte(data)),
		wire.AppendEvent(nil, "rooms.7", "rooms.*", []byte(data)),
		wire.AppendEvent(nil, "nobody", "", []byte(data)),
	} {
		if err := p.send(frame); err != nil {
			t.Fatal(err)
		}
	}
	if e := receive(t, plain, "event"); e.Topic != "rooms.42" || e.Pattern != "" || string(e.Data) != data {
		t.Errorf("%+v", e)
	}
	if e := receive(t, pattern, "event"); e.Topic != "rooms.7" || e.Pattern != "rooms.*" || string(e.Data) != data {
		t.Errorf("%+v", e)
	}
}

func TestSubscribeTwiceAndUnsubscribe(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	sub := subscribe(t, c, p, "a", func(Event) {})
	if _, err := c.Subscribe(t.Context(), "a", func(Event) {}); !errors.Is(err, ErrSubscribed) {
		t.Fatalf("second subscription: %v", err)
	}
	result := background(func() error { return sub.Unsubscribe(t.Context()) })
	p.ack(t, p.next(t, wire.Unsubscribe))
	if err := receive(t, result, "Unsubscribe"); err != nil {
		t.Fatal(err)
	}
	if receive(t, sub.Done(), "the end"); sub.Err() != nil {
		t.Fatalf("Err is %v", sub.Err())
	}
	subscribe(t, c, p, "a", func(Event) {})
}

func TestSubscribeIsRefused(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	result := background(func() error { _, err := c.Subscribe(t.Context(), "a", func(Event) {}); return err })
	r := p.next(t, wire.Subscribe)
	if err := p.send(wire.AppendError(nil, []byte(r.id), nil, wire.Forbidden, "")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, receive(t, result, "Subscribe"), wire.Forbidden)
	subscribe(t, c, p, "a", func(Event) {}) // the name is free again
}

func TestResubscribesOnANewConnection(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	p := f.peer(t)
	events := make(chan Event, 1)
	sub := subscribe(t, c, p, "a", func(e Event) { events <- e })
	for i := range 3 {
		_ = p.conn.CloseNow()
		p = f.peer(t)
		r := p.next(t, wire.Subscribe)
		if r.topic != "a" {
			t.Fatalf("subscribed to %s", r.topic)
		}
		p.ack(t, r)
		if err := p.send(wire.AppendEvent(nil, "a", "", fmt.Append(nil, i))); err != nil {
			t.Fatal(err)
		}
		if e := receive(t, events, "event"); string(e.Data) != fmt.Sprint(i) {
			t.Fatalf("event %s after reconnect %d", e.Data, i)
		}
	}
	// A token that the server refuses is asked for again, a few times.
	_ = p.conn.CloseNow()
	p = f.peer(t)
	if n := p.refuseAll(t, wire.TokenExpired, sub.Done()); n < tokenAttempts {
		t.Errorf("%d attempts", n)
	}
	wantCode(t, sub.Err(), wire.TokenExpired)
}

// What heals by itself is tried again for as long as it takes, and ends nothing; nor does one refused token.
func TestRefusalsThatHeal(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	p := f.peer(t)
	sub := subscribe(t, c, p, "a", func(Event) {})
	heal := []wire.Code{wire.Unavailable, wire.TokenNotYetValid, wire.RateLimited}
	for range 5 {
		heal = append(heal, heal[:3]...)
	}
	for _, codes := range [][]wire.Code{heal, {wire.TokenExpired, wire.TokenInvalid}} {
		_ = p.conn.CloseNow()
		p = f.peer(t)
		for _, code := range codes {
			if err := p.send(wire.AppendError(nil, []byte(p.next(t, wire.Subscribe).id), []byte("a"), code, "")); err != nil {
				t.Fatal(err)
			}
		}
		p.ack(t, p.next(t, wire.Subscribe))
	}
	select {
	case <-sub.Done():
		t.Error(sub.Err())
	case <-c.Done():
		t.Error(c.Err())
	default:
	}
}

func TestSlowHandler(t *testing.T) {
	f := newFake(t)
	lost := make(chan error, 64)
	c := f.dial(t, Options{QueueBytes: 10 * 80, OnError: func(err error) { lost <- err }})
	p := f.peer(t)
	gate, handled := make(chan struct{}), make(chan string, 1000)
	subscribe(t, c, p, "a", func(e Event) {
		<-gate
		handled <- string(e.Data)
	})
	for i := range 1000 {
		if err := p.send(wire.AppendEvent(nil, "a", "", fmt.Append(nil, i))); err != nil {
			t.Fatal(err)
		}
	}
	// The handler stands still; the connection does not: pings and acks go on.
	if err := p.conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := background(func() error { return c.Publish(t.Context(), "b", []byte("1")) })
	p.ack(t, p.next(t, wire.Publish))
	if err := receive(t, result, "Publish"); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if err := receive(t, lost, "report"); !errors.Is(err, ErrSlowHandler) {
		t.Fatalf("reported %v", err)
	}
	if first := receive(t, handled, "event"); first != "0" {
		t.Fatalf("first event %s", first)
	}
	if n := len(handled); n > 12 {
		t.Fatalf("%d events were queued, the bound allows 12", n)
	}
}

func TestUnsubscribeFromTheHandler(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	ready, result := make(chan *Subscription, 1), make(chan error, 1)
	sub := subscribe(t, c, p, "a", func(Event) { result <- (<-ready).Unsubscribe(t.Context()) })
	ready <- sub
	for range 2 {
		if err := p.send(wire.AppendEvent(nil, "a", "", []byte("1"))); err != nil {
			t.Fatal(err)
		}
	}
	p.ack(t, p.next(t, wire.Unsubscribe))
	if err := receive(t, result, "Unsubscribe"); err != nil {
		t.Fatal(err)
	}
	if len(result) != 0 {
		t.Fatal("the handler was called after Unsubscribe")
	}
}

// The server may drop a subscription unasked, with an error that answers no request: the next token is tried.
func TestSubscriptionThatTheServerDrops(t *testing.T) {
	f := newFake(t)
	tokens := 0
	c := f.dial(t, Options{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Token: func(context.Context, Request) (string, error) {
		tokens++
		return fmt.Sprint(tokens), nil
	}})
	p := f.peer(t)
	sub := subscribe(t, c, p, "a.*", func(Event) {})
	for want := 2; want <= 4; want++ {
		if err := p.send(wire.AppendError(nil, nil, []byte("a.*"), wire.TokenInvalid, "")); err != nil {
			t.Fatal(err)
		}
		r := p.next(t, wire.Subscribe)
		if r.token != fmt.Sprint(want) {
			t.Fatalf("token %s, want %d", r.token, want)
		}
		if want < 4 {
			p.ack(t, r)
		} else {
			p.refuse(t, r, wire.TokenInvalid)
		}
	}
	if n := p.refuseAll(t, wire.TokenInvalid, sub.Done()); n < tokenAttempts-1 {
		t.Errorf("%d attempts", n+1)
	}
	wantCode(t, sub.Err(), wire.TokenInvalid)
}

// What was handled makes room again, so that bursts within the bound lose nothing however many there are.
func TestBurstsWithinTheBoundLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const burst = 4
		e := Event{Topic: "a", Data: []byte("1")}
		q := newQueue(burst * e.size())
		next, handled := make(chan struct{}), 0
		go q.serve(func(*item) { <-next; handled++ }, func(n uint64) { t.Errorf("%d events were lost", n) })
		for round := 1; round <= 3; round++ {
			for range burst {
				q.push(e)
			}
			synctest.Wait()
			for range burst {
				select {
				case next <- struct{}{}:
				case <-time.After(time.Minute):
					t.Fatal("an event is missing")
				}
			}
			synctest.Wait()
			if handled != round*burst {
				t.Fatalf("%d events of %d", handled, round*burst)
			}
		}
		q.close()
	})
}
