//go:build linux && !race

// The race detector makes sync.Pool forget, so these tests run without it.

package loop

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// The stages of a message's way allocate nothing.
func TestAllocs(t *testing.T) {
	zero := func(name string, f func()) {
		t.Run(name, func(t *testing.T) {
			f() // the first time may fill pools
			if n := testing.AllocsPerRun(200, f); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}

	q := &quiet{}
	l := idle(t, Options{}, q)
	c := &Conn{loop: l, fd: -1, state: stateOpen, events: readable}
	frame := text(strings.Repeat("x", 300))
	frames := bytes.Repeat(frame, 3)
	runs := 0
	zero("frame parse", func() {
		b, have := l.room(c)
		l.received(c, b[:have+copy(b[have:], frames)])
		runs += 3
	})
	if q.messages != runs {
		t.Errorf("%d messages, want %d", q.messages, runs)
	}

	x := newBenchGroup(t, 10)
	last := x.g.members[len(x.g.members)-1].Conn
	shared := batch("event")
	zero("inbox post", func() {
		shared.Retain(1)
		x.Deliver(&x.g, shared)
		if len(x.inbox.items) > 100 {
			x.take()
		}
	})
	x.take()
	x.flush()
	x.empty()
	zero("batch flush, one event", func() {
		x.deliver()
		x.take()
		x.flush()
		if n := x.empty(); n != len(event) {
			t.Errorf("%d bytes", n)
		}
	})
	zero("batch flush, merged events", func() {
		for range 20 {
			x.deliver()
		}
		x.take()
		x.flush()
		if n := x.empty(); n != 20*len(event) {
			t.Errorf("%d bytes", n)
		}
	})
	var another Group
	another.Join(&Member{Conn: last, Until: forever})
	zero("batch flush, two groups", func() {
		x.deliver()
		shared.Retain(1)
		x.Deliver(&another, shared)
		x.take()
		x.flush()
		if n := x.empty(); n != len(event)+len(shared.b) {
			t.Errorf("%d bytes", n)
		}
	})
	payload := event[4:]
	zero("send", func() {
		last.Send(ws.OpText, payload)
		x.cork.release()
		x.empty()
	})
	if x.stat.pending != 0 || len(x.endings.dead) > 0 {
		t.Errorf("%+v", x.stat)
	}
}
