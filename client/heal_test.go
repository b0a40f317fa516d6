package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

// A server that accepts every connection and then closes it with 4401 is left in the end; but not when it takes what the
// client sends on each.
func TestConnectionsThatEndWith4401(t *testing.T) {
	for _, strategy := range []Strategy{StrategyMessage, StrategyHeader} {
		for _, serves := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, serves %v", strategy, serves), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newPipeFake(t)
					f.welcome(0)
					c := f.dial(t, Options{Strategy: strategy})
					connections := 0
					serve := func(p *peer) {
						connections++
						if serves {
							published(t, c, p)
						}
						_ = p.conn.Close(websocket.StatusCode(wire.CloseUnauthenticated), "")
					}
					for end := time.After(time.Hour); ; {
						select {
						case p := <-f.peers:
							serve(p)
							continue
						case <-c.Done():
							if closed := (*CloseError)(nil); serves || !errors.As(c.Err(), &closed) || connections < tokenAttempts {
								t.Errorf("ended after %d connections: %v", connections, c.Err())
							}
						case <-end:
							if !serves {
								t.Errorf("still there after %d connections", connections)
							}
							c.Close()
						}
						return
					}
				})
			})
		}
	}
}

// Good tokens that are refused for a while, such as by a server that still has the keys of before a rotation, end nothing.
func TestTokensRefusedForAWhile(t *testing.T) {
	for _, code := range []wire.Code{wire.TokenInvalid, wire.TokenExpired, wire.TokenRevoked} {
		synctest.Test(t, func(t *testing.T) {
			f := newPipeFake(t)
			f.welcome(0)
			c := f.dial(t, Options{})
			p := f.peer(t)
			sub := subscribe(t, c, p, "a", func(Event) {})
			_ = p.send(wire.AppendError(nil, nil, []byte("a"), code, ""))
			heals := time.Now().Add(45 * time.Second)
			r := p.next(t, wire.Subscribe)
			for ; time.Now().Before(heals); r = p.next(t, wire.Subscribe) {
				p.refuse(t, r, code)
			}
			p.ack(t, r)
			synctest.Wait()
			if sub.Err() != nil || c.Err() != nil {
				t.Error(sub.Err(), c.Err())
			}
			c.Close()
		})
	}
}

// Between a refused handshake and the next attempt there is the time that the server asks for, and more, since it asked
// others too; a ticket's call is a part of the handshake.
func TestRetryAfter(t *testing.T) {
	date := func(in time.Duration) func() string {
		return func() string { return time.Now().Add(in).UTC().Format(http.TimeFormat) }
	}
	text := func(s string) func() string { return func() string { return s } }
	for _, test := range []struct {
		header func() string
		least  time.Duration
	}{
		{text("7"), 7 * time.Second},
		{date(90 * time.Second), 89 * time.Second}, // a date has no fractions
		{date(-time.Hour), 0},
		{text("soon"), 0},
		{text("-3"), 0},
		{text("99999999999"), 0}, // no number of seconds
		{text("999999999"), maxRetryAfter},
	} {
		for _, status := range []int{401, 429, 503} {
			for _, strategy := range []Strategy{StrategyHeader, StrategyTicket} {
				synctest.Test(t, func(t *testing.T) {
					f := newPipeFake(t)
					f.welcome(0)
					f.answerWith(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ticket":"t"}`) })
					c := f.dial(t, Options{Strategy: strategy, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
					p := f.peer(t)
					var attempts []time.Time
					refuse := func() int {
						if attempts = append(attempts, time.Now()); len(attempts) < 3 {
							f.after = test.header()
							return -status
						}
						return 0
					}
					if strategy == StrategyTicket {
						f.answerWith(func(w http.ResponseWriter, _ *http.Request) {
							f.mu.Lock()
							defer f.mu.Unlock()
							if refuse() != 0 {
								w.Header().Set("Retry-After", f.after)
								w.WriteHeader(status)
								return
							}
							_, _ = io.WriteString(w, `{"ticket":"t"}`)
						})
					} else {
						f.refuseWith(refuse)
					}
					_ = p.conn.CloseNow()
					var wait time.Duration
					select {
					case <-f.peers:
						for i := 1; i < len(attempts); i++ {
							if wait = attempts[i].Sub(attempts[i-1]); wait < test.least || wait > test.least+1100*time.Millisecond {
								t.Errorf("%q to %d, %s: waited %v", test.header(), status, strategy, wait)
							}
						}
					case <-time.After(time.Hour):
						t.Errorf("%q to %d, %s: never came back", test.header(), status, strategy)
					}
					c.Close()
				})
			}
		}
	}
}

// Dial tries again when the refusal heals in the time that there is for one attempt.
func TestDialHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		n := 0
		opts := Options{Strategy: StrategyHeader, Token: StaticToken("t"), HTTPClient: f.client}
		f.refuseWith(func() int { n++; return []int{-503, -401, 0}[n-1] })
		c, err := Dial(t.Context(), f.url, opts)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		f.peer(t)

		// It would not heal in time: Dial says so at once.
		f.mu.Lock()
		f.after = "11"
		f.mu.Unlock()
		f.refuseWith(func() int { return -503 })
		waited := stopwatch()
		if _, err := Dial(t.Context(), f.url, opts); err == nil || !strings.Contains(err.Error(), "503") {
			t.Error(err)
		}
		if waited() != 0 {
			t.Error("it waited for what does not come in time")
		}

		// Nor does it outlive its context.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		f.mu.Lock()
		f.after = "2"
		f.mu.Unlock()
		if _, err := Dial(ctx, f.url, opts); err == nil || !strings.Contains(err.Error(), "503") || waited() > 5*time.Second {
			t.Error(err, waited())
		}
	})
}

// The first Subscribe tries again what heals, as long as its context allows.
func TestFirstSubscribeHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		reports := 0
		c := f.dial(t, Options{OnError: func(error) { reports++ }})
		defer c.Close()
		p := f.peer(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		first := background(func() error { _, err := c.Subscribe(ctx, "a", func(Event) {}); return err })
		codes := []wire.Code{wire.Unavailable, wire.TokenNotYetValid, wire.RateLimited, wire.TokenExpired}
		for _, code := range codes {
			p.refuse(t, p.next(t, wire.Subscribe), code)
		}
		p.ack(t, p.next(t, wire.Subscribe))
		if err := receive(t, first, "Subscribe"); err != nil || reports != len(codes) {
			t.Errorf("%v, %d reports", err, reports)
		}

		// Its error says what it waited for in vain.
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		second := background(func() error { _, err := c.Subscribe(ctx, "b", func(Event) {}); return err })
		done := make(chan struct{})
		go func() { <-ctx.Done(); close(done) }()
		if n := p.refuseAll(t, wire.Unavailable, done); n < 3 {
			t.Errorf("%d attempts", n)
		}
		if err := receive(t, second, "Subscribe"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, wire.Unavailable) {
			t.Error(err)
		}
	})
}

// What does not heal by itself is the first Subscribe's error at once, but for a token that may have been kept too long.
func TestFirstSubscribeIsRefused(t *testing.T) {
	f := newFake(t)
	c := f.dial(t, Options{MinBackoff: time.Millisecond})
	p := f.peer(t)
	for _, code := range wire.Codes() {
		if code.Retry() {
			continue
		}
		first := background(func() error { _, err := c.Subscribe(t.Context(), "a", func(Event) {}); return err })
		times := 1
		if code == wire.TokenExpired {
			times = 2
		}
		for range times {
			p.refuse(t, p.next(t, wire.Subscribe), code)
		}
		wantCode(t, receive(t, first, "Subscribe"), code)
	}
}

// A server that confirms a subscription and drops it at once is asked again after growing pauses; one that held is asked
// soon.
func TestDroppedSubscriptionsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		c := f.dial(t, Options{})
		defer c.Close()
		p := f.peer(t)
		subscribe(t, c, p, "a", func(Event) {})
		drop := func() { _ = p.send(wire.AppendExpired(nil, "a")) }
		waited := stopwatch()
		for range 1000 {
			drop()
			p.ack(t, p.next(t, wire.Subscribe))
			synctest.Wait()
		}
		// 15 s on average, once the ceiling of 30 s is reached.
		if took := waited(); took < 3*time.Hour || took > 5*time.Hour {
			t.Errorf("1000 times in %v", took)
		}
		for range 100 {
			time.Sleep(30 * time.Second)
			waited := stopwatch()
			drop()
			p.ack(t, p.next(t, wire.Subscribe))
			synctest.Wait()
			if took := waited(); took > 250*time.Millisecond {
				t.Fatalf("asked again after %v", took)
			}
		}
	})
}

// An issuer whose clock is ahead gives tokens that are valid in some seconds, and so does the next time: the client has
// to come back with the one that it has.
func TestTokensOfAnIssuerAhead(t *testing.T) {
	const ahead = 3 * time.Second
	for _, strategy := range []Strategy{StrategyMessage, StrategyFirstMessage, StrategyHeader, StrategySubprotocol, StrategyTicket} {
		t.Run(string(strategy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newPipeFake(t)
				f.welcome(0)
				early := func(token string) bool {
					begins, err := strconv.ParseInt(token, 10, 64)
					if err != nil {
						t.Errorf("token %q", token)
					}
					return time.Now().UnixNano() < begins
				}
				f.judge(func(r *http.Request) int {
					token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
					if _, item, ok := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), "bearer."); ok {
						token = item
					}
					if (strategy == StrategyHeader || strategy == StrategySubprotocol) && early(token) {
						return -401
					}
					return 0
				})
				f.answerWith(func(w http.ResponseWriter, r *http.Request) {
					if early(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
						w.Header().Set("Retry-After", "1")
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					_, _ = io.WriteString(w, `{"ticket":"t"}`)
				})
				asked := 0
				var expires atomic.Bool // the first subscription's token, or the credential that it relies on
				expires.Store(true)
				serve := func(p *peer) {
					for r := range p.got {
						if r.token != "" && early(r.token) {
							p.refuse(t, r, wire.TokenNotYetValid)
							continue
						}
						p.ack(t, r)
						if r.kind == wire.Subscribe && expires.Swap(false) {
							topic := ""
							if strategy == StrategyMessage {
								topic = "a"
							}
							_ = p.send(wire.AppendExpiring(nil, topic, time.Now().Add(30*time.Second).Unix()))
						}
					}
				}
				peers := make(chan *peer, 1000)
				go func() {
					for {
						select {
						case p := <-f.peers:
							peers <- p
							go serve(p)
						case <-t.Context().Done():
							return
						}
					}
				}()
				c := f.dial(t, Options{Strategy: strategy, Token: func(context.Context, Request) (string, error) {
					asked++
					return fmt.Sprint(time.Now().Add(ahead).UnixNano()), nil
				}})
				sub, err := c.Subscribe(t.Context(), "a", func(Event) {})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute) // the refresh
				for len(peers) > 0 {
					_ = (<-peers).conn.CloseNow()
				}
				time.Sleep(time.Minute)
				if c.Err() != nil || sub.Err() != nil || asked != 3 {
					t.Errorf("%v, %v; %d tokens, for a connection, its refresh and the next connection", c.Err(), sub.Err(), asked)
				}
				if len(peers) == 0 {
					t.Error("no connection after the first")
				}
				c.Close()
			})
		})
	}
}
