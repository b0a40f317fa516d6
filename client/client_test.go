package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/notifyd/notifyd/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// background runs f and gives its error.
func background(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

func TestPublishWaitsForTheAck(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{Token: func(_ context.Context, r Request) (string, error) {
		return fmt.Sprintf("%s:%s", r.Action, r.Topic), nil
	}})
	p := f.peer(t)
	result := background(func() error { return c.Publish(t.Context(), "rooms.42", []byte(`{"a": 1}`)) })
	r := p.next(t, wire.Publish)
	if r.topic != "rooms.42" || r.data != `{"a": 1}` || r.token != "publish:rooms.42" {
		t.Fatalf("server received %+v", r)
	}
	select {
	case err := <-result:
		t.Fatalf("Publish returned %v before the ack", err)
	default:
	}
	p.ack(t, r)
	if err := receive(t, result, "Publish"); err != nil {
		t.Fatal(err)
	}
}

func TestPublishAsyncKeepsOrder(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{InFlight: 8})
	p := f.peer(t)
	const n = 200
	sent := background(func() error {
		for i := range n {
			if _, err := c.PublishAsync(t.Context(), "a", fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range n {
		r := p.next(t, wire.Publish)
		if r.data != fmt.Sprint(i) {
			t.Fatalf("event %d holds %s", i, r.data)
		}
		if len(c.inFlight) > 8 {
			t.Fatalf("%d publishes in flight, the bound is 8", len(c.inFlight))
		}
		p.ack(t, r)
	}
	if err := receive(t, sent, "PublishAsync"); err != nil {
		t.Fatal(err)
	}
}

func TestPublishIsRefused(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	for _, code := range wire.Codes() {
		result := background(func() error { return c.Publish(t.Context(), "a", []byte("1")) })
		times := 1
		if code == wire.TokenExpired {
			times = 2 // another token is asked for, once
		}
		for range times {
			r := p.next(t, wire.Publish)
			if err := p.send(wire.AppendError(nil, []byte(r.id), []byte("a"), code, "because")); err != nil {
				t.Fatal(err)
			}
		}
		err := receive(t, result, "Publish")
		wantCode(t, err, code)
		if !strings.Contains(err.Error(), "because") {
			t.Errorf("%v does not hold the server's text", err)
		}
	}
}

func TestPublishAsksForAnotherToken(t *testing.T) {
	f := newFake(t)
	n := 0
	c := f.dial(t, Options{Token: func(context.Context, Request) (string, error) {
		n++
		return fmt.Sprint("token ", n), nil
	}})
	p := f.peer(t)
	result := background(func() error { return c.Publish(t.Context(), "a", []byte("1")) })
	r := p.next(t, wire.Publish)
	if err := p.send(wire.AppendError(nil, []byte(r.id), []byte("a"), wire.TokenExpired, "")); err != nil {
		t.Fatal(err)
	}
	r = p.next(t, wire.Publish)
	if r.token != "token 2" {
		t.Errorf("token %s", r.token)
	}
	p.ack(t, r)
	if err := receive(t, result, "Publish"); err != nil {
		t.Error(err)
	}
}

func TestPublishThatTheServerWouldRefuseIsNotSent(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	wantCode(t, c.Publish(t.Context(), "a.*", []byte("1")), wire.BadTopic)
	wantCode(t, c.Publish(t.Context(), "a", []byte("hello")), wire.BadEnvelope)
	wantCode(t, c.Publish(t.Context(), "a", []byte(`"`+strings.Repeat("x", 1024)+`"`)), wire.TooLarge)
	_, err := c.Subscribe(t.Context(), "a..b", func(Event) {})
	wantCode(t, err, wire.BadTopic)
	if len(p.got) != 0 {
		t.Fatalf("%d requests reached the server", len(p.got))
	}
}

func TestTokenSourceFails(t *testing.T) {
	f := newFake(t)
	broken := errors.New("issuer is down")
	token := ""
	c := f.dial(t, Options{Token: func(context.Context, Request) (string, error) { return token, broken }})
	if err := c.Publish(t.Context(), "a", []byte("1")); !errors.Is(err, broken) {
		t.Fatalf("Publish: %v", err)
	}
	if _, err := c.Subscribe(t.Context(), "a", func(Event) {}); !errors.Is(err, broken) {
		t.Fatalf("Subscribe: %v", err)
	}
	broken = nil
	wantCode(t, c.Publish(t.Context(), "a", []byte("1")), wire.TokenMissing)
}

func TestPublishInFlightFailsWithTheConnection(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{MinBackoff: time.Millisecond})
	p := f.peer(t)
	result := background(func() error { return c.Publish(t.Context(), "a", []byte("1")) })
	p.next(t, wire.Publish)
	_ = p.conn.CloseNow()
	if err := receive(t, result, "Publish"); !errors.Is(err, ErrDisconnected) {
		t.Fatalf("error %v, want ErrDisconnected", err)
	}
	// The next one waits for the new connection.
	result = background(func() error { return c.Publish(t.Context(), "a", []byte("2")) })
	p = f.peer(t)
	p.ack(t, p.next(t, wire.Publish))
	if err := receive(t, result, "Publish"); err != nil {
		t.Fatal(err)
	}
}

func TestContextEndsTheWait(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{AckTimeout: time.Hour})
	p := f.peer(t)
	ctx, cancel := context.WithCancel(t.Context())
	published := background(func() error { return c.Publish(ctx, "a", []byte("1")) })
	p.next(t, wire.Publish)
	subscribed := background(func() error { _, err := c.Subscribe(ctx, "b", func(Event) {}); return err })
	p.next(t, wire.Subscribe)
	cancel()
	for _, result := range []<-chan error{published, subscribed} {
		if err := receive(t, result, "the end"); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
	}
	// The subscription that nobody waits for is taken back.
	if r := p.next(t, wire.Unsubscribe); r.topic != "b" {
		t.Fatalf("unsubscribed from %s", r.topic)
	}
}

func TestCloseCodes(t *testing.T) {
	codes := []wire.CloseCode{
		wire.CloseNormal, wire.CloseGoingAway, wire.CloseProtocol, wire.CloseBadUTF8, wire.ClosePolicy, wire.CloseTooBig,
		wire.CloseRestart, wire.CloseTryLater, wire.CloseBadEnvelopes, wire.CloseUnauthenticated, wire.CloseForbidden,
		wire.CloseAuthTimeout, wire.CloseSlowConsumer, wire.CloseRate, 4999,
	}
	for _, code := range codes {
		t.Run(fmt.Sprint(int(code)), func(t *testing.T) {
			f := newFake(t)
			states := make(chan State, 8)
			c := f.dial(t, Options{MinBackoff: time.Millisecond, OnState: func(s State, _ error) { states <- s }})
			p := f.peer(t)
			if s := receive(t, states, "state"); s != StateConnected {
				t.Fatalf("state %s", s)
			}
			_ = p.conn.Close(websocket.StatusCode(code), "the reason")
			if code.Reconnect() {
				if s := receive(t, states, "state"); s != StateReconnecting {
					t.Fatalf("state %s", s)
				}
				f.peer(t)
				if s := receive(t, states, "state"); s != StateConnected {
					t.Fatalf("state %s", s)
				}
				return
			}
			receive(t, c.Done(), "the client's end")
			var closed *CloseError
			if !errors.As(c.Err(), &closed) || closed.Code != code || closed.Reason != "the reason" {
				t.Fatalf("Err is %v", c.Err())
			}
			if s := receive(t, states, "state"); s != StateClosed {
				t.Fatalf("state %s", s)
			}
			if err := c.Publish(t.Context(), "a", []byte("1")); !errors.As(err, &closed) {
				t.Fatalf("Publish: %v", err)
			}
			if len(f.peers) != 0 {
				t.Fatal("the client came back")
			}
		})
	}
}

func TestCloseEndsEverything(t *testing.T) {
	f := newFake(t)
	states := make(chan State, 8)
	c := f.dial(t, Options{OnState: func(s State, _ error) { states <- s }})
	p := f.peer(t)
	sub := subscribe(t, c, p, "a", func(Event) {})
	result := background(func() error { return c.Publish(t.Context(), "a", []byte("1")) })
	p.next(t, wire.Publish)
	c.Close()
	c.Close()
	if err := receive(t, result, "Publish"); !errors.Is(err, ErrDisconnected) {
		t.Fatalf("Publish in flight: %v", err)
	}
	receive(t, sub.Done(), "the subscription's end")
	receive(t, c.Done(), "the client's end")
	if !errors.Is(sub.Err(), ErrClosed) || !errors.Is(c.Err(), ErrClosed) {
		t.Fatalf("subscription: %v; client: %v", sub.Err(), c.Err())
	}
	if err := c.Publish(t.Context(), "a", []byte("1")); !errors.Is(err, ErrClosed) {
		t.Fatalf("Publish: %v", err)
	}
	if _, err := c.Subscribe(t.Context(), "b", func(Event) {}); !errors.Is(err, ErrClosed) {
		t.Fatalf("Subscribe: %v", err)
	}
	if receive(t, states, "state"); receive(t, states, "state") != StateClosed {
		t.Fatal("OnState was not told")
	}
}

func TestCloseFromOnState(t *testing.T) {
	f := newFake(t)
	ready := make(chan *Client, 1)
	ended := make(chan struct{})
	c := f.dial(t, Options{OnState: func(s State, _ error) {
		if s == StateConnected {
			(<-ready).Close()
			close(ended)
		}
	}})
	ready <- c
	receive(t, ended, "Close")
	receive(t, c.Done(), "the client's end")
}

func TestDialFails(t *testing.T) {
	f := newFake(t)
	dial := func(url string) error {
		c, err := Dial(t.Context(), url, Options{Token: StaticToken("x"), HTTPClient: f.client})
		if err == nil {
			c.Close()
		}
		return err
	}
	f.refuseWith(func() int { return http.StatusServiceUnavailable })
	if err := dial(f.url); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("refused handshake: %v", err)
	}
	f.refuseWith(func() int { return 0 })
	f.greetWith(func() []byte { return wire.AppendAck(nil, []byte("1")) })
	if err := dial(f.url); err == nil || !strings.Contains(err.Error(), "not a notifyd server") {
		t.Errorf("no welcome: %v", err)
	}
	for _, url := range []string{
		"ws://user:s3cret@127.0.0.1:1/v1/ws?access_token=s3cret", "ftp://s3cret@h/", "ws://h:s3cret", "://s3cret",
	} {
		if err := dial(url); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("dial gave %v", err)
		}
	}
	if _, err := Dial(t.Context(), f.url, Options{}); err == nil {
		t.Error("Dial without a token source succeeded")
	}
}

func TestMessageOverTheReadLimit(t *testing.T) {
	f := newFake(t)
	lost := make(chan error, 1)
	c := f.dial(t, Options{ReadLimit: 2048, MinBackoff: time.Millisecond, OnState: func(s State, err error) {
		if s == StateReconnecting {
			lost <- err
		}
	}})
	p := f.peer(t)
	events := make(chan Event, 1)
	subscribe(t, c, p, "a", func(e Event) { events <- e })
	for _, n := range []int{1900, 2048} {
		if err := p.send(wire.AppendEvent(nil, "a", "", []byte(`"`+strings.Repeat("x", n)+`"`))); err != nil {
			t.Fatal(err)
		}
	}
	if e := receive(t, events, "the event within the limit"); len(e.Data) != 1902 {
		t.Errorf("%d bytes", len(e.Data))
	}
	if err := receive(t, lost, "the loss"); !errors.Is(err, websocket.ErrMessageTooBig) {
		t.Errorf("lost by %v", err)
	}
	p = f.peer(t)
	p.ack(t, p.next(t, wire.Subscribe))
}
