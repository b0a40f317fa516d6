//go:build linux

package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// A clock that is set back costs nobody frames, and one that is set forward
// gives nobody more than a burst.
func TestRateWhenTheClockIsSet(t *testing.T) {
	x := newStage(t, Options{Rate: 10, Burst: 5})
	ping := []byte(`{"type":"ping"}`)
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		x.with(func(c *loop.Conn) {
			ses := c.Data.(*session)
			ses.filled, ses.level = c.Loop().Now()+int64(by), 5
			refused := c.Loop().Data.(*loopState).refused[wire.RateLimited]
			for range 8 {
				x.Message(c, ws.OpText, ping)
			}
			if n := c.Loop().Data.(*loopState).refused[wire.RateLimited] - refused; n != 3 {
				t.Errorf("last seen %v from now: %d of 8 frames refused in a burst of 5", by, n)
			}
		})
	}
}

// Handles are dense and used again; an event that was on its way to the topic
// that had one before does not reach the topic that has it now.
func TestHandles(t *testing.T) {
	x := newStage(t, Options{})
	const topics = 200
	for round := range 3 {
		var all []*topic
		seen := make(map[uint32]bool)
		for i := range topics {
			tp := x.topics.acquire(fmt.Appendf(nil, "t.%d.%d", round, i))
			if tp.handle == 0 || tp.handle >= 2*topics || seen[tp.handle] || x.topics.byHandle(tp.handle) != tp {
				t.Fatalf("topic %d has handle %d", i, tp.handle)
			}
			seen[tp.handle] = true
			all = append(all, tp)
		}
		for _, tp := range all {
			if x.topics.acquire([]byte(tp.name)) != tp {
				t.Fatal("two topics of one name")
			}
			x.topics.release(tp)
			if x.topics.byHandle(tp.handle) != tp {
				t.Fatal("released while somebody has it")
			}
			x.topics.release(tp)
			if x.topics.byHandle(tp.handle) != nil {
				t.Fatal("still there")
			}
		}
		if n := x.topics.count(); n != 0 {
			t.Fatal(n, "topics are left")
		}
	}
	tp := x.topics.acquire([]byte("now"))
	x.Event(0, tp.handle, "before", []byte("1"))
	x.Event(0, tp.handle+1000, "now", []byte("1"))
	if tp.due != nil {
		t.Error("an event for another topic was taken")
	}
	x.Event(0, tp.handle, "now", []byte("1"))
	if tp.due == nil || tp.due.N != 1 {
		t.Error("the event was not taken")
	}
	x.Flush(0)
}

// A gulp that grows large leaves in parts, with nothing lost or twice.
func TestLargeGulp(t *testing.T) {
	x := newStage(t, Options{})
	x.with(func(c *loop.Conn) {
		x.Message(c, ws.OpText, fmt.Appendf(nil, `{"type":"subscribe","topic":"rooms.1","token":%q}`, x.tokens[0]))
	})
	x.topics.mu.Lock()
	tp := x.topics.byName["rooms.1"]
	x.topics.mu.Unlock()
	for tp.groups[0].Load() == nil { // the bus confirms from a goroutine
		x.engine.Do(nop)
	}
	large := []byte(`"` + strings.Repeat("x", 60_000) + `"`)
	for i, left := range []int{1, 2, 0, 1, 2, 0, 1} {
		x.Event(0, tp.handle, "rooms.1", large)
		if n := batched(tp); n != left {
			t.Fatalf("after event %d the gulp holds %d", i+1, n)
		}
	}
	x.Flush(0)
	x.engine.Do(nop)
	if n := x.engine.Stats().Deliveries; n != 7 {
		t.Errorf("%d deliveries", n)
	}
	if n := len(x.shards[0].due); n != 0 || batched(tp) != 0 {
		t.Errorf("the shard holds %d topics, the topic %d events", n, batched(tp))
	}
}

// batched is how many events of the gulp under way have not left.
func batched(tp *topic) int {
	if tp.due == nil {
		return 0
	}
	return tp.due.N
}

func nop(*loop.Loop) {}
