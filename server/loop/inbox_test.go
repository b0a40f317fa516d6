package loop

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// Deliver and DeliverFunc reach a loop that sleeps, from any goroutine, and each
// goroutine's order holds. No wake-up is lost, or this would not end.
func TestWakeUps(t *testing.T) {
	var g Group
	h := &hooks{open: func(c *Conn) { g.Join(&Member{Conn: c, Until: forever}) }}
	s := start(t, Options{}, h)
	c := s.dial()
	l := s.loops[0]
	const senders, each = 4, 500
	var turn atomic.Int64
	for i := range senders {
		go func() {
			for n := range each {
				if n%2 == 0 {
					l.Deliver(&g, batch(fmt.Sprint(i, " ", n)))
				} else {
					l.DeliverFunc(0, func() {
						l.Conns(func(c *Conn) bool { c.Send(ws.OpText, fmt.Append(nil, i, " ", n)); return true })
					})
				}
				// Lockstep in part, so that the loop falls asleep often.
				if n%5 == 0 {
					for seen := turn.Load(); turn.Load() == seen && seen < senders*each; {
						time.Sleep(10 * time.Microsecond)
					}
				}
			}
		}()
	}
	var next [senders]int
	for range senders * each {
		_, p := c.frame()
		turn.Add(1)
		var i, n int
		if _, err := fmt.Sscan(string(p), &i, &n); err != nil || next[i] != n {
			t.Fatalf("%q, want %d", p, next[i])
		}
		next[i]++
	}
	turn.Store(senders * each)
}

// One sleeping loop, one post at a time: each wakes it.
func TestWakeEachPost(t *testing.T) {
	s := start(t, Options{Loops: 2}, &hooks{})
	for range 3000 {
		for _, l := range s.loops {
			done := make(chan struct{})
			l.Post(func() { close(done) })
			<-done
		}
	}
}

// Deliver waits while the inbox is full and goes on when the loop has taken it.
func TestDeliverWaits(t *testing.T) {
	var rooms atomic.Int32
	l := idle(t, Options{OnRoom: func() { rooms.Add(1) }}, &hooks{})
	var g Group
	var delivered atomic.Int32
	var wg sync.WaitGroup
	const n = 3 * inboxBytes >> 20
	big := strings.Repeat("x", 1<<20)
	wg.Go(func() {
		for range n {
			l.Deliver(&g, batch(big))
			delivered.Add(1)
		}
	})
	eventually(t, "full", func() bool { return !l.eng.HasRoom() })
	l.inbox.mu.Lock()
	bytes := l.inbox.bytes
	l.inbox.mu.Unlock()
	if bytes > inboxBytes+2<<20 {
		t.Errorf("%d bytes wait", bytes)
	}
	if !l.Post(func() {}) { // calls are never held up
		t.Error("not posted")
	}
	eventually(t, "all delivered", func() bool { l.take(); l.flush(); return delivered.Load() == n })
	wg.Wait()
	before := rooms.Load()
	if before == 0 || !l.eng.HasRoom() {
		t.Errorf("%d reports of room, has room: %v", before, l.eng.HasRoom())
	}

	// A caller that waits when the loop stops goes on as well. That is not reported as
	// room: what would use it is being ended too.
	wg.Go(func() {
		for range n {
			l.Deliver(&g, batch(big))
		}
	})
	eventually(t, "full", func() bool { return !l.eng.HasRoom() })
	for _, it := range l.inbox.shut() {
		it.batch.Release()
	}
	wg.Wait()
	if n := rooms.Load(); n != before || !l.eng.HasRoom() {
		t.Errorf("%d reports of room behind the end, has room: %v", n-before, l.eng.HasRoom())
	}
}

// OnTurn is called for each turn, with its calls of write(2): a fan-out is as many as
// the group has members.
func TestOnTurnReportsWrites(t *testing.T) {
	const members = 20
	var g Group
	most := make(chan int, 1)
	fannedOut := false // the loop's
	opts := Options{OnTurn: func(_ *Loop, writes int) {
		if fannedOut {
			fannedOut = false
			most <- writes
		}
	}}
	h := &hooks{open: func(c *Conn) { g.Join(&Member{Conn: c, Until: forever}) }}
	s := start(t, opts, h)
	for range members {
		s.dial()
	}
	s.Do(func(l *Loop) {
		fannedOut = true
		l.DeliverNow(&g, batch("to all"))
	})
	if got := <-most; got != members {
		t.Errorf("%d writes, want %d", got, members)
	}
}

// A turn in which much takes long reads only some of the sockets that are ready, so that what was delivered meanwhile does
// not wait for all.
func TestTurnsReadForAWhile(t *testing.T) {
	const clients, each = 200, readTime / 5
	ready := make(chan struct{})
	handled, most, all := 0, 0, 0 // the loop's
	done := make(chan int, 1)
	h := &hooks{
		message: func(*Conn, ws.OpCode, []byte) {
			time.Sleep(each)
			handled++
		},
		turn: func(*Loop) bool {
			most = max(most, handled)
			if all += handled; handled > 0 && all == clients {
				done <- most
			}
			handled = 0
			return false
		},
	}
	s := start(t, Options{Loops: 1}, h)
	var peers []*client
	for range clients {
		peers = append(peers, s.dial())
	}
	go s.Do(func(*Loop) { <-ready })
	for _, c := range peers {
		c.send(text("x"))
	}
	close(ready)
	if got := <-done; got > int(readTime/each)+timeEvery {
		t.Errorf("%d messages of %v each in one turn", got, each)
	}
}
