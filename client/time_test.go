package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notifyd/notifyd/wire"
)

func TestBackoff(t *testing.T) {
	for n, ceiling := range map[int]time.Duration{0: 250, 1: 500, 2: 1000, 6: 16000, 7: 30000, 31: 30000, 40: 30000, 1000: 30000} {
		ceiling *= time.Millisecond
		var longest time.Duration
		for range 2000 {
			d := backoff(n, 250*time.Millisecond, 30*time.Second)
			if d < 0 || d > ceiling {
				t.Fatalf("attempt %d: pause %v, at most %v is allowed", n, d, ceiling)
			}
			longest = max(longest, d)
		}
		if longest < ceiling/2 {
			t.Errorf("attempt %d: the longest of 2000 pauses was %v, of %v possible: no full jitter", n, longest, ceiling)
		}
	}
}

func TestReconnectsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		c := f.dial(t, Options{})
		p := f.peer(t)
		var attempts []time.Time
		f.refuseWith(func() int {
			attempts = append(attempts, time.Now())
			return http.StatusBadGateway
		})
		_ = p.conn.CloseNow()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		// A pause is 15 s on average, once the ceiling of 30 s is reached: 5,760 of them make a day.
		if n := len(attempts); n < 5000 || n > 6500 {
			t.Errorf("%d attempts in a day", n)
		}
		for i := 1; i < len(attempts); i++ {
			if pause := attempts[i].Sub(attempts[i-1]); pause > 31*time.Second {
				t.Fatalf("pause of %v before attempt %d", pause, i)
			}
		}
		f.refuseWith(func() int { return 0 })
		f.peer(t)
		c.Close()
	})
}

func TestServerThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		c := f.dial(t, Options{AckTimeout: 3 * time.Second})
		f.peer(t)
		elapsed := stopwatch()
		if err := c.Publish(t.Context(), "a", []byte("1")); !errors.Is(err, ErrTimeout) {
			t.Errorf("Publish: %v", err)
		}
		if waited := elapsed(); waited != 3*time.Second {
			t.Errorf("waited %v", waited)
		}
		if _, err := c.Subscribe(t.Context(), "a", func(Event) {}); !errors.Is(err, ErrTimeout) {
			t.Errorf("Subscribe: %v", err)
		}
		if len(c.inFlight) != 0 {
			t.Error("the place of the unanswered publish is not free")
		}
		c.Close()
	})
}

func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		stop := make(chan struct{})
		f.greetWith(func() []byte { <-stop; return nil })
		waited := stopwatch()
		_, err := Dial(t.Context(), f.url, Options{Token: StaticToken("x"), HTTPClient: f.client, DialTimeout: 4 * time.Second})
		if !errors.Is(err, context.DeadlineExceeded) || waited() != 4*time.Second {
			t.Errorf("%v after %v", err, waited())
		}
		close(stop)
	})
}

func TestSilentServerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(10 * time.Second)
		lost := make(chan error, 1)
		c := f.dial(t, Options{OnState: func(s State, err error) {
			if s == StateReconnecting {
				lost <- err
			}
		}})
		p := f.peer(t)
		for range 30 { // as long as it pings, it may say nothing else
			time.Sleep(10 * time.Second)
			if err := p.conn.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		silence := stopwatch()
		if err := receive(t, lost, "the loss"); !errors.Is(err, errSilent) {
			t.Errorf("lost by %v", err)
		}
		if d := silence(); d < 20*time.Second || d > 30*time.Second {
			t.Errorf("noticed after %v", d)
		}
		f.peer(t)
		c.Close()
	})
}

func TestTokenIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		asked := 0
		c := f.dial(t, Options{Token: func(_ context.Context, r Request) (string, error) {
			asked++
			return fmt.Sprintf("%s-%d", r.Action, asked), nil
		}})
		p := f.peer(t)
		sub := subscribe(t, c, p, "a", func(Event) {})
		for i := 2; i < 50; i++ {
			waited := stopwatch()
			if err := p.send(wire.AppendExpiring(nil, "a", time.Now().Add(30*time.Second).Unix())); err != nil {
				t.Fatal(err)
			}
			r := p.next(t, wire.Subscribe)
			if want := fmt.Sprintf("subscribe-%d", i); r.token != want {
				t.Fatalf("token %s, want %s", r.token, want)
			}
			if d := waited(); d < time.Second || d > 15*time.Second {
				t.Fatalf("refreshed %v after the notice", d)
			}
			p.ack(t, r)
			synctest.Wait()
		}
		// Dropped all the same: it subscribes again at once.
		if err := p.send(wire.AppendExpired(nil, "a")); err != nil {
			t.Fatal(err)
		}
		p.ack(t, p.next(t, wire.Subscribe))
		if sub.Err() != nil {
			t.Fatal(sub.Err())
		}
		c.Close()
	})
}

// A source that knows no newer token is asked once more at the notice, not again and again.
func TestRefreshWithTheSameTokenIsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		c := f.dial(t, Options{})
		p := f.peer(t)
		sub := subscribe(t, c, p, "a", func(Event) {})
		exp := time.Now().Add(30 * time.Second)
		notice := wire.AppendExpiring(nil, "a", exp.Unix())
		_ = p.send(notice)
		p.ack(t, p.next(t, wire.Subscribe))
		for range 10 {
			_ = p.send(notice)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if len(p.got) != 0 {
			t.Fatalf("%d more refreshes", len(p.got))
		}
		time.Sleep(time.Until(exp))
		_ = p.send(wire.AppendExpired(nil, "a"))
		if n := p.refuseAll(t, wire.TokenExpired, sub.Done()); n < tokenAttempts {
			t.Errorf("%d attempts", n)
		}
		wantCode(t, sub.Err(), wire.TokenExpired)
		c.Close()
	})
}

// While the issuer is down, a live subscription tries on, and says so.
func TestRefreshIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		down := errors.New("issuer is down")
		fail, reports := 0, 0
		c := f.dial(t, Options{
			Token: func(context.Context, Request) (string, error) {
				if fail > 0 {
					fail--
					return "", down
				}
				return "t0ken", nil
			},
			OnError: func(err error) {
				if errors.Is(err, down) {
					reports++
				}
			},
		})
		p := f.peer(t)
		subscribe(t, c, p, "a", func(Event) {})
		fail = 5
		_ = p.send(wire.AppendExpired(nil, "a"))
		r := p.next(t, wire.Subscribe)
		if reports != 5 {
			t.Errorf("%d reports of 5", reports)
		}
		// A refusal that asks to try again is retried as well.
		_ = p.send(wire.AppendError(nil, []byte(r.id), nil, wire.Unavailable, ""))
		p.ack(t, p.next(t, wire.Subscribe))
		c.Close()
	})
}

func TestRefreshDelay(t *testing.T) {
	for _, left := range []time.Duration{-time.Hour, 0} {
		if d := refreshDelay(left); d != 0 {
			t.Errorf("%v left: %v", left, d)
		}
	}
	for _, left := range []time.Duration{time.Minute, 2 * time.Second, 200 * time.Millisecond} {
		for range 1000 {
			if d := refreshDelay(left); d < left/4 || d > left/2 {
				t.Fatalf("%v left: %v", left, d)
			}
		}
	}
}

// A server that takes no more data is left, however many pings it sends.
func TestStuckServerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.welcome(0)
		lost := make(chan error, 1)
		c := f.dial(t, Options{InFlight: 10_000, AckTimeout: time.Hour, OnState: func(s State, err error) {
			if s == StateReconnecting {
				lost <- err
			}
		}})
		p := f.peer(t)
		ctx, cancel := context.WithCancel(t.Context())
		sending := background(func() error { // until the fake has no room for more, and then sendQueue is full too
			for {
				if _, err := c.PublishAsync(ctx, "a", []byte("1")); err != nil {
					return err
				}
			}
		})
		synctest.Wait()
		stuck := stopwatch()
		if err := receive(t, lost, "the loss"); !errors.Is(err, errWriteStuck) {
			t.Errorf("lost by %v", err)
		}
		if d := stuck(); d != writeTimeout {
			t.Errorf("noticed after %v", d)
		}
		cancel()
		c.Close()
		if err := receive(t, sending, "the sender's end"); err == nil {
			t.Error("no error for the sender")
		}
		for range p.got { // lets the fake end
		}
	})
}
