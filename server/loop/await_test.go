package loop

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// answering is a handler whose messages go to another goroutine: deliver brings
// them to the group, as a bus would, and then says Answered.
type answering struct {
	hooks
	g        Group
	eng      *Engine
	asked    chan string
	busy     atomic.Int32 // questions that are not answered
	deliver  bool
	unspoken atomic.Bool // it does not say Answered, nor that it is done
}

func newAnswering(t *testing.T, deliver bool) (*answering, *server) {
	a := &answering{asked: make(chan string, 1000), deliver: deliver}
	a.open = func(c *Conn) { a.g.Join(&Member{Conn: c, Until: forever}) }
	a.message = func(_ *Conn, _ ws.OpCode, p []byte) {
		a.busy.Add(1)
		a.asked <- string(p)
	}
	a.turn = func(*Loop) bool { return a.busy.Load() > 0 }
	s := start(t, Options{Loops: 1}, &a.hooks)
	a.eng = s.Engine
	done := make(chan struct{})
	go func() {
		defer close(done)
		for text := range a.asked {
			if a.deliver {
				a.eng.loops[0].Deliver(&a.g, batch(text))
			} else {
				a.eng.loops[0].Post(func() {
					a.eng.loops[0].Conns(func(c *Conn) bool { c.Send(ws.OpText, []byte(text)); return true })
				})
			}
			if a.unspoken.Load() {
				continue
			}
			a.busy.Add(-1)
			a.eng.Answered()
		}
	}()
	t.Cleanup(func() { close(a.asked); <-done })
	return a, s
}

// A loop that awaits wakes for what is delivered and for what is posted, each
// time. No wake-up is lost, or the watchdog would have to help.
func TestAwaitEndsWithTheAnswer(t *testing.T) {
	for _, deliver := range []bool{true, false} {
		t.Run(fmt.Sprint("deliver=", deliver), func(t *testing.T) {
			a, s := newAnswering(t, deliver)
			c := s.dial()
			for i := range 3000 {
				want := fmt.Sprint("question ", i)
				c.send(text(want))
				if _, got := c.frame(); string(got) != want {
					t.Fatalf("%q, want %q", got, want)
				}
			}
			if a.eng.loops[0].inbox.overdue.Load() {
				t.Error("the watchdog had to end a wait")
			}
		})
	}
}

// An answer that brings nothing for the loop ends its wait too.
func TestAwaitEndsWithAnswered(t *testing.T) {
	var asked atomic.Bool
	h := &hooks{turn: func(*Loop) bool { return asked.Load() }}
	h.message = func(c *Conn, _ ws.OpCode, p []byte) {
		asked.Store(string(p) == "ask")
		c.Send(ws.OpText, p)
	}
	s := start(t, Options{Loops: 1}, h)
	c := s.dial()
	l := s.loops[0]
	for range 200 {
		c.send(text("ask"))
		c.frame()
		eventually(t, "the loop awaits", func() bool { return l.inbox.state.Load() == awaiting || l.inbox.overdue.Load() })
		asked.Store(false)
		s.Answered()
		c.send(text("more"))
		c.frame()
	}
}

// An answer that never comes keeps sockets waiting once, for a moment, and then
// no more until there is one.
func TestAwaitEndsWithoutAnswer(t *testing.T) {
	a, s := newAnswering(t, true)
	a.unspoken.Store(true)
	c, l := s.dial(), s.loops[0]
	c.send(text("first"))
	c.frame()
	c.send(text("second")) // comes in while the loop awaits, or ends that by being overdue
	c.frame()
	eventually(t, "an overdue answer", l.inbox.overdue.Load)
	awaits := l.inbox.awaits.Load()
	for i := range 100 {
		c.send(text(fmt.Sprint(i)))
		c.frame()
	}
	if l.inbox.awaits.Load() != awaits {
		t.Error("the loop waited for what does not answer")
	}
	a.busy.Store(0)
	a.unspoken.Store(false)
	s.Answered()
	eventually(t, "that the loop waits again", func() bool {
		c.send(text("again"))
		c.frame()
		return l.inbox.awaits.Load() != awaits
	})
}

// An engine that awaits can be ended.
func TestAwaitEndsWithTheEngine(t *testing.T) {
	a, s := newAnswering(t, true)
	a.unspoken.Store(true)
	c := s.dial()
	c.send(text("never answered"))
	c.frame()
	_ = c.Close()
	if err := s.Drain(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
}
