package server

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// both calls f on the loop with the stage's two connections.
func (x *stage) both(f func(l *loop.Loop, a, b *loop.Conn)) {
	x.t.Helper()
	x.engine.Do(func(l *loop.Loop) {
		var conns []*loop.Conn
		l.Conns(func(c *loop.Conn) bool { conns = append(conns, c); return true })
		if len(conns) != 2 {
			x.t.Errorf("%d connections", len(conns))
			return
		}
		f(l, conns[0], conns[1])
	})
}

func (x *stage) publish(c *loop.Conn, token string) {
	x.Message(c, ws.OpText, fmt.Appendf(nil, `{"type":"publish","topic":"other","token":%q,"data":1}`, token))
}

// roomy is a bus with room for no event, or for as many as come.
type roomy struct {
	nowhere
	room      atomic.Bool
	onPublish func()
}

func (b *roomy) HasRoom() bool { return b.room.Load() }

func (b *roomy) Publish(_, _ []byte) wire.Code {
	b.onPublish()
	return wire.OK
}

// When many go on that waited for room, each token is checked by the time at which its
// envelope goes on, not by that at which the first did.
func TestTokenExpiresWhileOthersGoOn(t *testing.T) {
	x := newStage(t, Options{})
	x.dial()
	expires := time.Now().Truncate(time.Second).Add(2 * time.Second)
	lasting, short := x.fresh(time.Now().Add(time.Hour)), x.fresh(expires)
	published := 0
	b := &roomy{onPublish: func() {
		published++
		time.Sleep(time.Until(expires)) // the one before takes long
	}}
	x.both(func(l *loop.Loop, first, second *loop.Conn) {
		x.bus = b
		x.publish(first, lasting)
		x.publish(second, short)
		if n := len(stateOf(l).forRoom); n != 2 {
			t.Errorf("%d wait for room", n)
		}
	})
	x.both(func(l *loop.Loop, _, _ *loop.Conn) {
		b.room.Store(true)
		x.room(l)
		if n := stateOf(l).counts.published[wire.TokenExpired]; n != 1 || published != 1 {
			t.Errorf("%d refused as expired, %d published", n, published)
		}
	})
}

// The timer of a penalty ends with its connection: else it keeps the connection's memory.
func TestPenaltyEndsWithItsConnection(t *testing.T) {
	x := newStage(t, Options{})
	var timer *time.Timer
	var ses *session
	x.with(func(c *loop.Conn) {
		x.request(c).awaitPenalty(time.Hour)
		ses = sessionOf(c)
		timer = ses.waiting.timer
	})
	_ = x.conn.Close()
	for waits := true; waits; { // a paused connection hears of its end when it is written to
		x.engine.Do(func(l *loop.Loop) {
			l.Conns(func(c *loop.Conn) bool { c.Close(ws.StatusGoingAway, ""); return true })
			waits = ses.waiting != nil
		})
	}
	if timer.Stop() {
		t.Error("the timer still runs")
	}
}

// The timer that holds the answer to a handshake back ends with its connection too.
func TestHeldBackAnswerEndsWithItsConnection(t *testing.T) {
	x := newStage(t, Options{})
	hs := &handshake{}
	queued := make(chan bool, 1)
	x.with(func(c *loop.Conn) {
		ses := c.Data
		queued <- x.redeemByWorker(&x.verify, c, hs, 0, func() time.Duration { return time.Hour })
		c.Data = hs
		t.Cleanup(func() { x.engine.Do(func(*loop.Loop) { c.Data = ses }) })
	})
	if !<-queued {
		t.Fatal("not queued")
	}
	for held := false; !held; {
		x.engine.Do(func(*loop.Loop) { held = hs.timer != nil })
	}
	x.with(func(c *loop.Conn) { x.Abandoned(c) })
	if hs.timer.Stop() {
		t.Error("the timer still runs")
	}
}

// After a bad signature a loop verifies none for a while, of no connection: its sender
// could open another for each. Workers do it meanwhile.
func TestBadSignatureOfOneConnectionSendsOthersToWorkers(t *testing.T) {
	x := newStage(t, Options{})
	x.dial()
	hour := time.Now().Add(time.Hour)
	good, again, third, bad := x.fresh(hour), x.fresh(hour), x.fresh(hour), x.fresh(hour)
	bad = bad[:len(bad)-20] + strings.Repeat("A", 20)
	x.both(func(l *loop.Loop, first, second *loop.Conn) {
		x.publish(first, bad)
		if n := stateOf(l).counts.published[wire.TokenInvalid]; n != 1 {
			t.Errorf("%d refused for their signature", n)
		}
		x.publish(second, good)
		if w := sessionOf(second).waiting; w == nil || w.stage != forSignature {
			t.Error("the loop verified a token after a bad one of another connection")
		}
	})
	for waits := true; waits; {
		x.both(func(_ *loop.Loop, _, second *loop.Conn) { waits = sessionOf(second).waiting != nil })
	}
	x.both(func(l *loop.Loop, _, second *loop.Conn) {
		stateOf(l).distrustUntil = l.Now() // the while is over
		x.publish(second, again)
		if w := sessionOf(second).waiting; w != nil {
			t.Error("the loop still verifies none")
		}
	})
	x.both(func(l *loop.Loop, first, _ *loop.Conn) {
		stateOf(l).distrustUntil = l.Now()
		x.publish(first, third)
		if w := sessionOf(first).waiting; w == nil || w.stage != forSignature {
			t.Error("the loop verified a token of the connection that sent a bad one")
		}
	})
}
