package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

// numbered gives connect-1, connect-2, … and so on for each action.
func numbered() TokenSource {
	var connects, others atomic.Int64
	return func(_ context.Context, r Request) (string, error) {
		if r.Action == ActionConnect {
			if r.Topic != "" || r.Data != nil {
				return "", errors.New("a connection has neither topic nor data")
			}
			return fmt.Sprint("connect-", connects.Add(1)), nil
		}
		return fmt.Sprint(r.Action, "-", others.Add(1)), nil
	}
}

// Each strategy presents the token in its place and nowhere else, and subscribes leave it out.
func TestStrategies(t *testing.T) {
	for _, c := range []struct {
		strategy                   Strategy
		authorization, subprotocol string
	}{
		{"", "", "notifyd.v1"},
		{StrategyMessage, "", "notifyd.v1"},
		{StrategyFirstMessage, "", "notifyd.v1"},
		{StrategyHeader, "Bearer connect-1", "notifyd.v1"},
		{StrategySubprotocol, "", "notifyd.v1,bearer.connect-1"},
		{StrategyTicket, "", "notifyd.v1,ticket.t1cket"},
	} {
		t.Run(string(c.strategy), func(t *testing.T) {
			f := newFake(t)
			f.answerWith(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/tickets" || r.Header.Get("Authorization") != "Bearer connect-1" {
					t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
				}
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"ticket":"t1cket","expires_in":30}`)
			})
			type dialled struct {
				c   *Client
				err error
			}
			result := make(chan dialled, 1)
			opts := Options{Strategy: c.strategy, Token: numbered(), HTTPClient: f.client}
			go func() {
				c, err := Dial(t.Context(), f.url, opts)
				result <- dialled{c, err}
			}()
			p := f.peer(t)
			if c.strategy == StrategyFirstMessage {
				r := p.next(t, wire.Auth)
				if r.token != "connect-1" {
					t.Fatalf("auth with %q", r.token)
				}
				select {
				case <-result:
					t.Fatal("Dial returned before the server took the credential")
				default:
				}
				p.ack(t, r)
			}
			d := receive(t, result, "Dial")
			if d.err != nil {
				t.Fatal(d.err)
			}
			defer d.c.Close()
			r := receive(t, f.asked, "request")
			if c.strategy == StrategyTicket {
				r = receive(t, f.asked, "request with the ticket")
			}
			protocols := strings.ReplaceAll(strings.Join(r.Header.Values("Sec-Websocket-Protocol"), ","), " ", "")
			if r.Header.Get("Authorization") != c.authorization || protocols != c.subprotocol || r.URL.RawQuery != "" {
				t.Errorf("handshake %s %v", r.URL, r.Header)
			}
			subscribed := background(func() error { _, err := d.c.Subscribe(t.Context(), "a", func(Event) {}); return err })
			sub := p.next(t, wire.Subscribe)
			if want := map[bool]string{true: "subscribe-1", false: ""}[c.strategy == "" || c.strategy == StrategyMessage]; sub.token != want {
				t.Errorf("subscribe with %q, want %q", sub.token, want)
			}
			p.ack(t, sub)
			if err := receive(t, subscribed, "Subscribe"); err != nil {
				t.Fatal(err)
			}
			published := background(func() error { return d.c.Publish(t.Context(), "a", []byte("1")) })
			pub := p.next(t, wire.Publish)
			if !strings.HasPrefix(pub.token, "publish-") {
				t.Errorf("publish with %q", pub.token)
			}
			p.ack(t, pub)
			if err := receive(t, published, "Publish"); err != nil {
				t.Fatal(err)
			}
		})
	}
	if _, err := Dial(t.Context(), "ws://h", Options{Strategy: "cookie", Token: StaticToken("t")}); err == nil || !strings.Contains(err.Error(), `"cookie"`) {
		t.Errorf("unknown strategy: %v", err)
	}
}

// A credential that is refused fails Dial with the server's code, and ends a client that comes back with it.
func TestCredentialRefused(t *testing.T) {
	f := newFake(t)
	f.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"code":"token_expired","message":"no more"}`)
	})
	_, err := Dial(t.Context(), f.url, Options{Strategy: StrategyTicket, Token: StaticToken("s3cret"), HTTPClient: f.client})
	wantCode(t, err, wire.TokenExpired)

	first := background(func() error {
		_, err := Dial(t.Context(), f.url, Options{Strategy: StrategyFirstMessage, Token: StaticToken("s3cret"), HTTPClient: f.client})
		return err
	})
	p := f.peer(t)
	if err := p.send(wire.AppendError(nil, []byte(p.next(t, wire.Auth).id), nil, wire.TokenRevoked, "")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, receive(t, first, "Dial"), wire.TokenRevoked)

	c := f.dial(t, Options{Strategy: StrategyHeader, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	// The end of a credential is not the end of the client, nor is one that is refused; but several in a row are.
	p = f.peer(t)
	published(t, c, p)
	_ = p.conn.Close(websocket.StatusCode(wire.CloseUnauthenticated), "")
	p = f.peer(t)
	published(t, c, p)
	var refused atomic.Int64
	f.refuseWith(func() int {
		if refused.Add(1) == 1 {
			return http.StatusUnauthorized
		}
		return 0
	})
	_ = p.conn.Close(websocket.StatusCode(wire.CloseUnauthenticated), "")
	p = f.peer(t)
	published(t, c, p) // so the row of refusals is over
	refused.Store(0)
	f.refuseWith(func() int {
		refused.Add(1)
		return http.StatusUnauthorized
	})
	_ = p.conn.CloseNow()
	receive(t, c.Done(), "the end of the client")
	wantCode(t, c.Err(), wire.TokenInvalid)
	if n := refused.Load(); n < tokenAttempts {
		t.Errorf("%d attempts", n)
	}
}

// Handshakes that are refused for now do not end a client, however many.
func TestHandshakeThatHeals(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{Strategy: StrategyHeader, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	p := f.peer(t)
	answers := []int{503, 429, -401, -401, -401, -401, -401, 503}
	var n atomic.Int64
	f.refuseWith(func() int {
		if i := int(n.Add(1)); i <= len(answers) {
			return answers[i-1]
		}
		return 0
	})
	_ = p.conn.CloseNow()
	f.peer(t)
	if c.Err() != nil {
		t.Error(c.Err())
	}
}

// A server that restarts has chosen the moment: its clients come back at once.
func TestRestartIsNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		c := f.dial(t, Options{MinBackoff: time.Hour, MaxBackoff: time.Hour})
		p := f.peer(t)
		waited := stopwatch()
		_ = p.conn.Close(websocket.StatusCode(wire.CloseRestart), "")
		f.peer(t)
		if waited() != 0 {
			t.Error("it waited")
		}
		c.Close()
	})
}

// When the server says that the credential expires, the client sends the next one; given the same again, it stops.
func TestCredentialRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		var failed atomic.Bool
		source, errors := numbered(), make(chan error, 8)
		c := f.dial(t, Options{Strategy: StrategyHeader, OnError: func(err error) { errors <- err }, Token: func(ctx context.Context, r Request) (string, error) {
			if failed.Load() {
				return "", io.ErrUnexpectedEOF
			}
			return source(ctx, r)
		}})
		defer c.Close()
		p := f.peer(t)
		expiring := func(in time.Duration) {
			if err := p.send(wire.AppendExpiring(nil, "", time.Now().Add(in).Unix())); err != nil {
				t.Fatal(err)
			}
		}
		notice, waited := time.Now(), stopwatch()
		expiring(30 * time.Second)
		r := p.next(t, wire.Auth)
		if wait := waited(); r.token != "connect-2" || wait < 7*time.Second || wait > 15*time.Second {
			t.Errorf("refreshed with %q after %v", r.token, wait)
		}
		p.ack(t, r)
		expiring(time.Until(notice.Add(30 * time.Second))) // the same token again
		time.Sleep(time.Minute)
		if len(p.got) > 0 {
			t.Error("asked again for a token that the source gives again")
		}
		failed.Store(true)
		expiring(time.Minute)
		if err := receive(t, errors, "error of the source"); !strings.Contains(err.Error(), "token to connect: unexpected EOF") {
			t.Error(err)
		}
		failed.Store(false)
		if r = p.next(t, wire.Auth); r.token != "connect-3" {
			t.Errorf("after a failure: %q", r.token)
		}
		p.ack(t, r)
	})
}

// The source sees what is published, so that a token may be bound to it; each publish has its own.
func TestTokenForOneMessage(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{Token: func(_ context.Context, r Request) (string, error) {
		return fmt.Sprintf("%s|%s|%s", r.Action, r.Topic, r.Data), nil
	}})
	p := f.peer(t)
	for _, data := range []string{`{"a": 1}`, `2`} {
		done := background(func() error { return c.Publish(t.Context(), "t", []byte(data)) })
		r := p.next(t, wire.Publish)
		if r.token != "publish|t|"+data {
			t.Errorf("token %q", r.token)
		}
		p.ack(t, r)
		if err := receive(t, done, "Publish"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRevoke(t *testing.T) {
	f := newFake(t)
	answer, body := func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }, ""
	f.answerWith(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body = r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(text)
		answer(w)
	})
	for want, r := range map[string]Revocation{
		`{"jti":"j"}`:           {ID: "j"},
		`{"sub":"s","iss":"i"}`: {Subject: "s", Issuer: "i"},
		`{"sub":"s","before":"2026-01-02T03:04:05Z"}`: {Subject: "s", Before: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	} {
		if err := Revoke(t.Context(), f.url, "t0ken", r); err != nil || body != "/v1/revocations Bearer t0ken "+want {
			t.Errorf("%v: sent %s", err, body)
		}
	}
	answer = func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"code":"forbidden","message":"no"}`)
	}
	wantCode(t, Revoke(t.Context(), f.url, "t0ken", Revocation{ID: "j"}), wire.Forbidden)
	answer = func(w http.ResponseWriter) { http.Error(w, "the body is bad", http.StatusBadRequest) }
	if err := Revoke(t.Context(), f.url, "t0ken", Revocation{}); err == nil || err.Error() != "revoke: the server answered 400 Bad Request: the body is bad" {
		t.Error(err)
	}
	for _, bad := range []string{"ftp://h", "://", "ws://127.0.0.1:1/v1/ws?ticket=s3cret"} {
		if err := Revoke(t.Context(), bad, "t0ken", Revocation{ID: "j"}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCallURL(t *testing.T) {
	for raw, want := range map[string]string{
		"ws://h:1/v1/ws":         "http://h:1/v1/tickets",
		"wss://h/base/v1/ws?x=1": "https://h/base/v1/tickets",
		"http://h":               "http://h/v1/tickets",
		"https://h/":             "https://h/v1/tickets",
	} {
		if got, err := callURL(raw, "/v1/tickets"); got != want || err != nil {
			t.Errorf("%s: %s, %v", raw, got, err)
		}
	}
}
