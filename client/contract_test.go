package client

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestDefaults(t *testing.T) {
	o := Options{Token: StaticToken("t")}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	o.Token = nil // functions do not compare
	got := []any{o.Strategy, o.HTTPClient, o.DialTimeout, o.AckTimeout, o.MinBackoff, o.MaxBackoff, o.InFlight, o.QueueBytes, o.ReadLimit}
	want := []any{StrategyMessage, http.DefaultClient, 10 * time.Second, 10 * time.Second, 250 * time.Millisecond, 30 * time.Second, 1024, 8 << 20, 2 << 20}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("default %d is %v, want %v", i, got[i], want[i])
		}
	}
	o = Options{Token: StaticToken("t"), AckTimeout: time.Hour, InFlight: 3}
	if err := o.setDefaults(); err != nil || o.AckTimeout != time.Hour || o.InFlight != 3 {
		t.Errorf("%v: %v, %d", err, o.AckTimeout, o.InFlight)
	}
	if writeTimeout != 10*time.Second || maxRetryAfter != 5*time.Minute {
		t.Errorf("%v, %v", writeTimeout, maxRetryAfter)
	}
}

func TestTexts(t *testing.T) {
	for _, text := range []struct{ got, want string }{
		{StateConnected.String(), "connected"},
		{StateReconnecting.String(), "reconnecting"},
		{StateClosed.String(), "closed"},
		{State(0).String(), "unknown"},
		{(&CloseError{Code: wire.CloseRate}).Error(), "server closed the connection: 4429 over the rate limit"},
		{(&CloseError{Code: wire.CloseRate, Reason: "slow"}).Error(), "server closed the connection: 4429 slow"},
		{(&CloseError{Code: 4999, Reason: "somebody else's"}).Error(), "server closed the connection: 4999 somebody else's"},
		{errorText(Revoke(t.Context(), "ftp://h", "t", Revocation{})), `revoke: "ftp" is not the scheme of a server; use ws, wss, http or https`},
		{refusalText(answerOf(502), long(256)).Error(), "the server answered 502 Bad Gateway: " + string(long(256))},
		{refusalText(answerOf(502), long(257)).Error(), "the server answered 502 Bad Gateway"},
		{refusalText(answerOf(502), []byte(" one \n two")).Error(), "the server answered 502 Bad Gateway: one"},
		{errorText(refusalText(answerOf(401), []byte(`{"code":"x"}`))), `token_invalid: the server answered 401 Unauthorized: {"code":"x"}`},
	} {
		if text.got != text.want {
			t.Errorf("%q, want %q", text.got, text.want)
		}
	}
}

func long(n int) []byte { return []byte(strings.Repeat("x", n)) }

func answerOf(status int) *http.Response {
	r := &http.Response{StatusCode: status}
	r.Status = map[int]string{401: "401 ", 502: "502 "}[status] + http.StatusText(status)
	return r
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A pause that is too long to be counted in nanoseconds is the longest one, and not none.
func TestBackoffDoesNotOverflow(t *testing.T) {
	var longest time.Duration
	for range 1000 {
		longest = max(longest, backoff(31, 1<<40, 2*time.Hour))
	}
	if longest < time.Hour {
		t.Errorf("the longest of 1000 pauses was %v", longest)
	}
}

// An ended client takes no connection, and an ended connection no request.
func TestNothingAfterTheEnd(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	c.Close()
	receive(t, c.Done(), "the client's end")
	if c.attach(s) {
		t.Error("an ended client has a connection")
	}
	if _, err := s.send(t.Context(), wire.Publish, nil, func(string) []byte { return nil }); !errors.Is(err, errOver) {
		t.Error(err)
	}
}

// An answer to what nobody waits for any more does no harm.
func TestLateAnswer(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{})
	p := f.peer(t)
	for _, frame := range [][]byte{wire.AppendAck(nil, []byte("zzz")), wire.AppendError(nil, []byte("zzz"), nil, wire.Forbidden, ""), wire.AppendPong(nil, nil)} {
		if err := p.send(frame); err != nil {
			t.Fatal(err)
		}
	}
	published(t, c, p)
}

// A subscribe whose connection is lost goes to the next one, which is nothing to report.
func TestConnectionLostWhileSubscribing(t *testing.T) {
	f := newFake(t)
	reports := make(chan error, 16)
	c := f.dial(t, Options{MinBackoff: time.Millisecond, OnError: func(err error) { reports <- err }})
	p := f.peer(t)
	first := background(func() error { _, err := c.Subscribe(t.Context(), "a", func(Event) {}); return err })
	p.next(t, wire.Subscribe)
	_ = p.conn.CloseNow()
	p = f.peer(t)
	p.ack(t, p.next(t, wire.Subscribe))
	if err := receive(t, first, "Subscribe"); err != nil || len(reports) > 0 {
		t.Errorf("%v, %d reports", err, len(reports))
	}
}

// countedBody knows how often it was closed.
type countedBody struct {
	io.Reader
	closed int
}

func (b *countedBody) Close() error { b.closed++; return nil }

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An HTTP answer is closed, and one that is no JSON is an error.
func TestAnswersOfCalls(t *testing.T) {
	for text, works := range map[string]bool{`{"ticket":"t"}`: true, `<html>`: false} {
		body := &countedBody{Reader: strings.NewReader(text)}
		client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: body}, nil
		})}
		var answer struct{ Ticket string }
		err := post(t.Context(), client, nil, "ws://h", "/v1/tickets", "t", nil, &answer)
		if (err == nil) != works || body.closed == 0 {
			t.Errorf("%s: %v, closed %d times", text, err, body.closed)
		}
	}
}
