package loop

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// processors sets GOMAXPROCS for the time of a test.
func processors(t *testing.T, n int) {
	before := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// With one processor a loop parks, and everything that ends a sleep ends that: a
// socket, another goroutine, and the time for a sweep.
func TestParks(t *testing.T) {
	processors(t, 1)
	var g Group
	h := &hooks{open: func(c *Conn) { g.Join(&Member{Conn: c, Until: forever}) }, message: echo}
	s := start(t, Options{}, h)
	l := s.loops[0]
	c := s.dial()
	if parks := make(chan bool, 1); !l.Post(func() { parks <- l.parking.file != nil }) || !<-parks {
		t.Fatal("the loop does not park")
	}
	for i := range 1000 {
		want := fmt.Sprint("event ", i)
		if i%2 == 0 {
			c.send(text(want))
		} else {
			l.Deliver(&g, batch(want))
		}
		if _, got := c.frame(); string(got) != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	ticks := make(chan struct{}, 2)
	h.mu.Lock()
	h.tick = func() { ticks <- struct{}{} }
	h.mu.Unlock()
	for range cap(ticks) {
		select {
		case <-ticks:
		case <-time.After(20 * time.Second):
			t.Fatal("nothing happened, and the loop did not sweep")
		}
	}
}

// The number of processors may change at any time; no event is missed over it.
func TestParksWhileProcessorsChange(t *testing.T) {
	processors(t, 1)
	h := &hooks{message: func(c *Conn, op ws.OpCode, p []byte) {
		c.Loop().eng.ProcessorsChanged() // not only with the next sweep
		echo(c, op, p)
	}}
	s := start(t, Options{}, h)
	c := s.dial()
	for i := range 1000 {
		runtime.GOMAXPROCS(1 + i%2)
		want := fmt.Sprint("event ", i)
		c.send(text(want))
		if _, got := c.frame(); string(got) != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}
