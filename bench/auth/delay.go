//go:build linux

package auth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/bench/internal/rig"
	"github.com/notifyd/notifyd/wire"
)

const (
	// interval is the time between events, and so how exactly the last one tells
	// when a token ended.
	interval = time.Millisecond
	// after is how long events go on once all tokens have ended, so that those
	// that come too late are seen.
	after = 200 * time.Millisecond
	// patience is how long past its end a subscriber waits for the news.
	patience = 5 * time.Second
)

// watcher is a subscriber whose token ends. Its goroutine owns it until done.
type watcher struct {
	alg, jti string
	conn     *rig.Conn

	due      time.Time // exp, or when the call to revoke was made
	answered time.Time // when that call was answered; exp

	lastSent, lastReceived time.Time // of the last event
	told                   time.Time // zero: was not
	done                   chan struct{}
	end                    chan struct{} // closed when told
}

// end is what became of one watcher: milliseconds after due.
type end struct {
	alg        string
	last, told float64
	late       bool // an event came that was sent after the server had to know
}

// ends are those of all rounds.
type ends struct{ expiry, revocation []end }

// watch subscribes watchers, as many of each algorithm as asked for.
func (b *bench) watch(say func(i int, c *authz.Claims)) ([]*watcher, error) {
	var all []*watcher
	for i := range b.watchers {
		for at := range Algorithms {
			alg := Algorithms[(i+at)%len(Algorithms)] // none is always the last
			c := claims()
			say(i, &c)
			token, err := authz.Sign(b.keys[alg], c)
			if err != nil {
				return all, err
			}
			w := &watcher{
				alg: alg, jti: c.ID, due: c.Expires, answered: c.Expires,
				done: make(chan struct{}), end: make(chan struct{}),
			}
			if w.conn, err = b.connect("", ws.Dialer{}, wire.AppendSubscribe(nil, "1", topic, token)); err != nil {
				return all, err
			}
			all = append(all, w)
			go w.run()
		}
	}
	return all, nil
}

func (w *watcher) run() {
	defer close(w.done)
	var m wire.Message
	for w.conn.Receive(&m) == nil {
		switch m.Kind {
		case wire.MessageEvent:
			w.lastReceived = time.Now()
			ns, _ := strconv.ParseInt(string(m.Data), 10, 64)
			w.lastSent = time.Unix(0, ns)
		case wire.MessageExpired, wire.MessageError:
			if w.told.IsZero() {
				w.told = time.Now()
				close(w.end)
			}
		default: // expiring
		}
	}
}

// stream publishes events, whose data is the time, until stop is called.
func (b *bench) stream() (stop func() error, err error) {
	tokens, err := b.mint("HS256", 1, nil)
	if err != nil {
		return nil, err
	}
	c, err := b.connect("", ws.Dialer{})
	if err != nil {
		return nil, err
	}
	quit, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				ended <- nil
				return
			case <-tick.C:
			}
			data := strconv.AppendInt(nil, time.Now().UnixNano(), 10)
			if err := c.Send(wire.AppendPublish(nil, "", topic, tokens[0], data, "")); err != nil {
				ended <- err
				return
			}
		}
	}()
	return sync.OnceValue(func() error {
		close(quit)
		err := <-ended
		c.Drop()
		return err
	}), nil
}

// expire lets tokens reach their exp, a third of them in each of three seconds.
func (b *bench) expire(out *ends) error {
	first := time.Now().Truncate(time.Second).Add(2 * time.Second)
	watchers, err := b.watch(func(i int, c *authz.Claims) {
		c.Expires = first.Add(time.Duration(i%3) * time.Second)
	})
	defer drop(watchers)
	if err != nil {
		return err
	}
	out.expiry, err = b.outcome(out.expiry, watchers, func(*watcher) error { return nil })
	return err
}

// revoke takes tokens back by jti, one after the other.
func (b *bench) revoke(out *ends) error {
	watchers, err := b.watch(func(int, *authz.Claims) {})
	defer drop(watchers)
	if err != nil {
		return err
	}
	admin, err := b.mint("HS256", 1, func(c *authz.Claims) { c.Admin = true })
	if err != nil {
		return err
	}
	call := func(jti string) error {
		answer, err := b.post(http.DefaultClient, "/v1/revocations", admin[0], `{"jti":"`+jti+`"}`)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		if answer.StatusCode != http.StatusNoContent {
			err = fmt.Errorf("the call was answered with %s", answer.Status)
		}
		_ = answer.Body.Close()
		return err
	}
	// The first call opens the connection, and shows the server the token.
	if err := call("nobody"); err != nil {
		return err
	}
	out.revocation, err = b.outcome(out.revocation, watchers, func(w *watcher) error {
		time.Sleep(10 * interval) // events come and go before the next
		w.due = time.Now()
		err := call(w.jti)
		w.answered = time.Now()
		return err
	})
	return err
}

// outcome streams events to watchers, has finish end each one's token, and adds
// what became of them.
func (b *bench) outcome(to []end, watchers []*watcher, finish func(*watcher) error) ([]end, error) {
	stop, err := b.stream()
	if err != nil {
		return to, err
	}
	defer func() { _ = stop() }()
	for _, w := range watchers {
		if err := finish(w); err != nil {
			return to, err
		}
	}
	for _, w := range watchers {
		select {
		case <-w.end:
		case <-w.done:
			return to, errors.New("a subscriber's connection ended before its token")
		case <-time.After(time.Until(w.due) + patience):
			return to, fmt.Errorf("a subscriber heard nothing of its token's end for %v", patience)
		}
	}
	time.Sleep(after)
	if err := stop(); err != nil {
		return to, err
	}
	drop(watchers)
	for _, w := range watchers {
		if w.lastSent.IsZero() {
			return to, errors.New("a subscriber got no event at all")
		}
		to = append(to, w.outcome())
	}
	return to, nil
}

// outcome is asked after done.
func (w *watcher) outcome() end {
	ms := func(t time.Time) float64 { return float64(t.Sub(w.due).Nanoseconds()) / 1e6 }
	return end{alg: w.alg, last: ms(w.lastReceived), told: ms(w.told), late: w.lastSent.After(w.answered)}
}

func drop(watchers []*watcher) {
	for _, w := range watchers {
		w.conn.Drop()
		<-w.done
	}
}
