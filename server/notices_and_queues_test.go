package server

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/notifyd/notifyd/authz"
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
			ses := sessionOf(c)
			ses.bucket.filled, ses.bucket.level = c.Loop().Now()+int64(by), 5
			refused := stateOf(c.Loop()).counts.refused[wire.RateLimited]
			for range 8 {
				x.Message(c, ws.OpText, ping)
			}
			if n := stateOf(c.Loop()).counts.refused[wire.RateLimited] - refused; n != 3 {
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
	x.Event(0, []uint32{tp.handle}, "before", []byte("1"))
	x.Event(0, []uint32{tp.handle + 1000}, "now", []byte("1"))
	if tp.due != nil {
		t.Error("an event for another topic was taken")
	}
	x.Event(0, []uint32{tp.handle}, "now", []byte("1"))
	if tp.due == nil || tp.due.Len() == 0 {
		t.Error("the event was not taken")
	}
	x.Flush(0)
}

// A topic that the bus refused is released by those who had waited for it
// after another of the same name has taken its place.
func TestRefusedTopicLeavesItsSuccessor(t *testing.T) {
	x := newStage(t, Options{})
	refused := x.topics.acquire([]byte("a"))
	x.topics.confirm(refused, wire.Unavailable)
	next := x.topics.acquire([]byte("a"))
	if next == refused || next.handle == refused.handle {
		t.Fatal("a refused topic was given out again")
	}
	x.topics.release(refused)
	if x.topics.acquire([]byte("a")) != next || x.topics.byHandle(next.handle) != next || x.topics.byHandle(refused.handle) != nil {
		t.Error("the successor is gone")
	}
	if code, waits := x.topics.await(refused, nil); waits || code != wire.Unavailable {
		t.Error(code, waits)
	}
}

// A connection is looked into when something is due and not every second: at
// the notice, at the end, then no more. A new token begins anew.
func TestNotices(t *testing.T) {
	x := newStage(t, Options{ExpiryNotice: 10 * time.Minute})
	subscribe := func(c *loop.Conn, topic string) *session {
		x.Message(c, ws.OpText, fmt.Appendf(nil, `{"type":"subscribe","topic":%q,"token":%q}`, topic, x.tokens[0]))
		return sessionOf(c)
	}
	x.with(func(c *loop.Conn) {
		for range 2 {
			ses := subscribe(c, "rooms.1")
			until := ses.subs.Until
			notice := until - int64(10*time.Minute)
			for _, step := range []struct {
				now, due int64
				warned   bool
			}{{notice - 1, notice, false}, {notice, until, true}, {notice + 1, until, true}, {until - 1, until, true}} {
				x.notice(c, ses, step.now)
				if ses.due != step.due || ses.subs.warned != step.warned {
					t.Errorf("%v before its end, the next look is %v before it, warned %v", time.Duration(until-step.now), time.Duration(until-ses.due), ses.subs.warned)
				}
			}
			subscribe(c, "rooms.2")
			if ses.due != notice {
				t.Error("the second subscription is not looked after")
			}
			subscribe(c, "rooms.1") // a refresh
			if x := ses.find([]byte("rooms.1")); x.warned || ses.count != 2 {
				t.Errorf("warned %v after a refresh, %d subscriptions", x.warned, ses.count)
			}
			x.notice(c, ses, until)
			if ses.due != never || ses.count != 0 || ses.subs != nil {
				t.Errorf("%d subscriptions at the end, the next look in %v", ses.count, ses.due)
			}
		}
	})
}

// A round that grows large leaves in parts, with nothing lost or twice.
func TestLargeRound(t *testing.T) {
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
	for i, left := range []int{1, 2, 0, 1, 2, 0, 1} {
		x.Event(0, []uint32{tp.handle}, "rooms.1", large)
		if n := batched(tp); n != left {
			t.Fatalf("after event %d the round holds %d", i+1, n)
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

// large is the data of an event of which a round takes three.
var large = []byte(`"` + strings.Repeat("x", 60_000) + `"`)

// batched is how many large events of the round under way have not left.
func batched(tp *topic) int {
	if tp.due == nil {
		return 0
	}
	return tp.due.Len() / len(large)
}

func nop(*loop.Loop) {}

// A queue is bounded in number and in bytes; one that is full refuses instead of
// growing.
func TestPoolQueueIsBounded(t *testing.T) {
	for name, size := range map[string]int{"number": 0, "bytes": 1 << 20} {
		var p pool
		p.start(0)
		most := min(poolJobs, poolBytes/(size+jobBytes))
		for range most {
			if !p.push(job{size: size}) {
				t.Fatal(name, "refused too early")
			}
		}
		if p.push(job{size: size}) || p.waiting() != most {
			t.Errorf("%s: %d wait", name, p.waiting())
		}
		p.stop()
	}

	x := newStage(t, Options{})
	x.verify.mu.Lock()
	x.verify.bytes = poolBytes
	x.verify.mu.Unlock()
	x.with(func(c *loop.Conn) {
		r := x.request(c)
		r.env = wire.Envelope{Kind: wire.Publish, Token: []byte("t")}
		r.awaitSignature()
		if n := r.loop.counts.refused[wire.Unavailable]; n != 1 || r.ses.waiting != nil {
			t.Errorf("refused %d, waiting %v", n, r.ses.waiting)
		}
	})
}

// A job that nobody wants any more is not done, and gives its place back.
func TestPoolDropsWhatIsNotWanted(t *testing.T) {
	var p pool
	var gone atomic.Bool
	gone.Store(true)
	p.some.L = &p.mu
	ran := make(chan string, 2)
	p.push(job{size: 10, gone: &gone, run: func() { ran <- "unwanted" }})
	p.push(job{size: 20, run: func() { ran <- "wanted" }})
	p.start(1)
	if what := <-ran; what != "wanted" {
		t.Error(what, "was done")
	}
	p.stop()
	if p.bytes != 0 || p.waiting() != 0 {
		t.Errorf("%d bytes, %d jobs are left", p.bytes, p.waiting())
	}
}

// The notice of a token that lives shorter than three notices comes at two
// thirds of its life, and not from its beginning on.
func TestNoticeOfShortTokens(t *testing.T) {
	key, err := authz.GenerateKey("HS256")
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authz.New(authz.Options{Trusted: []authz.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{opts: Options{ExpiryNotice: 30 * time.Second}}
	begin := time.Now().Truncate(time.Second)
	for _, row := range []struct {
		name           string
		issued, starts time.Time
		life, before   time.Duration
	}{
		{"long", begin, time.Time{}, time.Hour, 30 * time.Second},
		{"three notices", begin, time.Time{}, 90 * time.Second, 30 * time.Second},
		{"short", begin, time.Time{}, 60 * time.Second, 20 * time.Second},
		{"begins with nbf", begin.Add(-time.Hour), begin, 60 * time.Second, 20 * time.Second},
		{"does not say when it begins", time.Time{}, time.Time{}, 60 * time.Second, 30 * time.Second},
	} {
		raw, err := authz.Sign(key, authz.Claims{IssuedAt: row.issued, NotBefore: row.starts, Expires: begin.Add(row.life)})
		if err != nil {
			t.Fatal(err)
		}
		token, code := auth.Verify([]byte(raw))
		if code != wire.OK {
			t.Fatal(row.name, code)
		}
		if got := time.Duration(token.Expires() - s.noticeAt(token)); got != row.before {
			t.Errorf("%s: %v before its end, want %v", row.name, got, row.before)
		}
	}
}
