package client

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/notifyd/notifyd/wire"
)

// node has the fake speak as that node from the next connection on.
func (f *fake) node(name string) {
	f.greetWith(func() []byte { return wire.AppendWelcome(nil, "c", name, time.Unix(0, 0), 0, 1024) })
}

// event sends an event of the subscription to a.*.
func (p *peer) event(t *testing.T, topic, data string) {
	t.Helper()
	if err := p.send(wire.AppendEvent(nil, topic, "a.*", []byte(data))); err != nil {
		t.Errorf("event: %v", err)
	}
}

func (p *peer) restart(t *testing.T) {
	t.Helper()
	if err := p.send(wire.AppendRestart(nil, 4*time.Second)); err != nil {
		t.Errorf("restart: %v", err)
	}
}

// closes waits until the client closes the connection, and gives the requests that came before.
func (p *peer) closes(t *testing.T) (rest []request) {
	t.Helper()
	for {
		select {
		case r, ok := <-p.got:
			if !ok {
				return rest
			}
			rest = append(rest, r)
		case <-time.After(time.Minute):
			t.Fatal("the client keeps the connection")
		}
	}
}

// moved is a client with a subscription that is about to move from the node "one" to "two".
type moved struct {
	f        *fake
	c        *Client
	sub      *Subscription
	one, two *peer
	events   chan string
	states   chan State
}

func startMove(t *testing.T) *moved {
	t.Helper()
	m := &moved{f: newPipeFake(t), events: make(chan string, 100), states: make(chan State, 100)}
	m.f.node("one")
	m.c = m.f.dial(t, Options{OnState: func(s State, _ error) { m.states <- s }})
	m.one = m.f.peer(t)
	m.sub = subscribe(t, m.c, m.one, "a.*", func(e Event) { m.events <- string(e.Data) })
	m.f.node("two")
	m.one.restart(t)
	m.two = m.f.peer(t)
	return m
}

func (m *moved) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(m.events) > 0 {
		got = append(got, <-m.events)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// A client of a node that restarts has its subscriptions on another one before it leaves; no event is lost, none comes
// twice, and the order holds.
func TestRestartMovesSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		m.one.event(t, "a.1", "1")
		ask := m.two.next(t, wire.Subscribe)
		if ask.topic != "a.*" {
			t.Fatalf("subscribed to %s", ask.topic)
		}
		m.one.event(t, "a.1", "2")
		m.want(t, "1", "2")
		m.two.ack(t, ask)
		m.two.event(t, "a.1", "3") // on the other connection it is still on its way
		m.two.event(t, "a.1", "4")
		synctest.Wait()
		m.one.event(t, "a.1", "3")
		m.want(t, "3")
		m.one.ack(t, m.one.next(t, wire.Unsubscribe))
		m.want(t, "4")
		m.two.event(t, "a.1", "5")
		m.want(t, "5")
		if rest := m.one.closes(t); len(rest) > 0 {
			t.Errorf("%d more requests to the node that restarts", len(rest))
		}
		m.two.event(t, "a.1", "5") // the same bytes again are another event
		m.want(t, "5")
		if len(m.states) != 1 || <-m.states != StateConnected {
			t.Error("the move was told as a change of state")
		}
		if m.sub.Err() != nil {
			t.Error(m.sub.Err())
		}
		m.c.Close()
	})
}

// What the old connection has brought while the new one was asked may come late on the new one, and then not for the first
// time. Equal events are counted.
func TestRestartWithALateNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		ask := m.two.next(t, wire.Subscribe)
		m.two.ack(t, ask)
		unsubscribe := m.one.next(t, wire.Unsubscribe)
		for _, data := range []string{"1", "2", "2", "2"} {
			m.one.event(t, "a.1", data)
		}
		m.one.event(t, "a.2", "1")
		m.one.ack(t, unsubscribe)
		m.want(t, "1", "2", "2", "2", "1")
		for _, data := range []string{"1", "2", "2", "1", "2", "2"} { // the second 1, and the fourth 2, are new
			m.two.event(t, "a.1", data)
		}
		m.two.event(t, "a.2", "1")
		m.two.event(t, "a.2", "3")
		m.want(t, "1", "2", "3")
		time.Sleep(2 * overlapLag)
		m.two.event(t, "a.1", "2")
		m.want(t, "2")
		m.c.Close()
	})
}

// What the old connection has brought before the new one was asked may come late on the new one too.
func TestRestartWithANodeBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &moved{f: newPipeFake(t), events: make(chan string, 100)}
		m.f.node("one")
		m.c = m.f.dial(t, Options{})
		m.one = m.f.peer(t)
		m.sub = subscribe(t, m.c, m.one, "a.*", func(e Event) { m.events <- string(e.Data) })
		m.f.node("two")
		m.one.restart(t)
		synctest.Wait()
		m.f.refuseWith(func() int { m.one.event(t, "a.1", "1"); return 0 })
		m.two = m.f.peer(t)
		m.two.ack(t, m.two.next(t, wire.Subscribe))
		m.two.event(t, "a.1", "1")
		m.two.event(t, "a.1", "2")
		m.one.ack(t, m.one.next(t, wire.Unsubscribe))
		m.want(t, "1", "2")
		m.c.Close()
	})
}

// The same event again and again is not taken for one that another node is late with.
func TestRestartOfAMetronome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		tick := func() {
			time.Sleep(time.Second)
			m.one.event(t, "a.1", "0")
		}
		tick()
		ask := m.two.next(t, wire.Subscribe)
		tick()
		tick()
		m.want(t, "0", "0", "0")
		m.two.ack(t, ask)
		unsubscribe := m.one.next(t, wire.Unsubscribe)
		tick()
		m.two.event(t, "a.1", "0")
		tick()
		m.two.event(t, "a.1", "0")
		m.want(t, "0", "0")
		m.one.ack(t, unsubscribe)
		for range 3 {
			time.Sleep(time.Second)
			m.two.event(t, "a.1", "0")
			m.want(t, "0")
		}
		m.c.Close()
	})
}

// What the new connection never brings is forgotten soon.
func TestOverlapEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		ask := m.two.next(t, wire.Subscribe)
		m.one.event(t, "a.1", "1") // before the new subscription began
		m.two.ack(t, ask)
		m.one.ack(t, m.one.next(t, wire.Unsubscribe))
		m.want(t, "1")
		time.Sleep(2 * overlapLag)
		m.two.event(t, "a.1", "1")
		m.want(t, "1")
		if m.sub.overlap.Load() != nil {
			t.Error("it still compares")
		}
		m.c.Close()
	})
}

// The old node may end before the client has left it: what the new one has brought comes then.
func TestRestartTooSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		ask := m.two.next(t, wire.Subscribe)
		m.two.ack(t, ask)
		m.one.next(t, wire.Unsubscribe)
		m.two.event(t, "a.1", "1")
		m.want(t)
		_ = m.one.conn.Close(websocket.StatusCode(wire.CloseRestart), "")
		m.want(t, "1")
		m.c.Close()
	})
}

// The new node may refuse for a while, or go too: the old one serves until another has confirmed.
func TestRestartWithANodeThatRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		m.one.event(t, "a.1", "1")
		m.two.refuse(t, m.two.next(t, wire.Subscribe), wire.Unavailable)
		m.one.event(t, "a.1", "2")
		m.two.next(t, wire.Subscribe)
		m.two.event(t, "a.1", "2") // it has begun, and dies before it says so
		_ = m.two.conn.CloseNow()
		m.two = m.f.peer(t)
		ask := m.two.next(t, wire.Subscribe)
		m.one.event(t, "a.1", "3")
		m.want(t, "1", "2", "3")
		m.two.ack(t, ask)
		m.two.event(t, "a.1", "3")
		m.two.event(t, "a.1", "4")
		m.one.ack(t, m.one.next(t, wire.Unsubscribe))
		m.want(t, "4")
		m.one.closes(t)
		m.c.Close()
	})
}

// Publishes that are on their way keep their acks, and those behind them wait for that, so that their order holds.
func TestRestartKeepsAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.node("one")
		c := f.dial(t, Options{})
		one := f.peer(t)
		before := background(func() error { return c.Publish(t.Context(), "a", []byte("1")) })
		first := one.next(t, wire.Publish)
		f.node("two")
		one.restart(t)
		two := f.peer(t)
		synctest.Wait()
		behind := background(func() error { return c.Publish(t.Context(), "a", []byte("2")) })
		time.Sleep(time.Second)
		if len(two.got) > 0 || len(one.got) > 0 {
			t.Error("a publish was sent before the one ahead of it was answered")
		}
		one.ack(t, first)
		if err := receive(t, before, "Publish"); err != nil {
			t.Error(err)
		}
		time.Sleep(arriveLag - 1)
		if synctest.Wait(); len(two.got) > 0 {
			t.Error("a publish was sent while the one ahead of it may be on its way to NATS")
		}
		two.ack(t, two.next(t, wire.Publish))
		if err := receive(t, behind, "Publish"); err != nil {
			t.Error(err)
		}
		one.closes(t)
		c.Close()
	})
}

// A connection to the node that restarts is no help: the client tries on, and in the end comes back like from any loss.
func TestRestartOfTheOnlyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeFake(t)
		f.node("one")
		c := f.dial(t, Options{})
		one := f.peer(t)
		subscribe(t, c, one, "a", func(Event) {})
		one.restart(t)
		for range 3 {
			f.peer(t).closes(t)
		}
		published(t, c, one)
		f.refuseWith(func() int { return 502 })
		time.Sleep(time.Minute)
		f.refuseWith(func() int { return 0 })
		f.node("one, restarted")
		_ = one.conn.Close(websocket.StatusCode(wire.CloseRestart), "")
		again := f.peer(t)
		again.ack(t, again.next(t, wire.Subscribe))
		published(t, c, again)
		c.Close()
	})
}

// Close ends both connections.
func TestCloseDuringAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMove(t)
		m.two.next(t, wire.Subscribe)
		m.c.Close()
		m.one.closes(t)
		m.two.closes(t)
		receive(t, m.c.Done(), "the client's end")
		if !errors.Is(m.sub.Err(), ErrClosed) {
			t.Error(m.sub.Err())
		}
	})
}

// The clients of one node do not move all at once.
func TestMovesAreSpread(t *testing.T) {
	var least, most time.Duration = time.Hour, 0
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			f := newPipeFake(t)
			f.node("one")
			c := f.dial(t, Options{})
			one := f.peer(t)
			f.node("two")
			waited := stopwatch()
			one.restart(t)
			f.peer(t)
			least, most = min(least, waited()), max(most, waited())
			c.Close()
		})
	}
	if most > overlapLag+2*time.Second || most < overlapLag+time.Second || least > overlapLag+time.Second || least < overlapLag {
		t.Errorf("within 4 s, 50 clients moved between %v and %v", least, most)
	}
}
