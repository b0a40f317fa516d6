package loop

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// While there is little to do Go has one processor and loops park; work for one
// and a fan-out each bring back the others. Events come through all that.
func TestGovernor(t *testing.T) {
	processors(t, 2)
	runtime.SetDefaultGOMAXPROCS()
	all := runtime.GOMAXPROCS(0)
	var g Group
	h := &hooks{open: func(c *Conn) { g.Join(&Member{Conn: c, Until: forever}) }, message: echo}
	s := start(t, Options{AdaptProcessors: true}, h)
	l := s.loops[0]
	if !l.eng.opts.AdaptProcessors {
		t.Log("this machine has one processor")
		return
	}
	become := func(what string, n int) {
		t.Helper()
		eventually(t, what, func() bool { return runtime.GOMAXPROCS(0) == n })
		eventually(t, "parking as fits", func() (fits bool) {
			s.Do(func(l *Loop) { fits = (l.parking.file != nil) == (n == 1) })
			return fits
		})
	}
	c := s.dial()

	become("one processor", 1)
	c.alive()
	for end := time.Now().Add(20 * time.Second); runtime.GOMAXPROCS(0) == 1 && time.Now().Before(end); {
		c.alive()
	}
	become("all processors, for much work", all)
	c.alive()

	become("one processor again", 1)
	clients := []*client{c}
	for range lumpWrites {
		clients = append(clients, s.dial())
	}
	become("one processor with many connections", 1)
	l.Deliver(&g, batch("to all"))
	for _, c := range clients {
		if _, got := c.frame(); string(got) != "to all" {
			t.Fatalf("%q", got)
		}
	}
	become("all processors, for a fan-out", all)
	c.alive()

	become("one processor for the last time", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, c := range clients {
		_ = c.Close()
	}
	if err := s.Drain(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != all {
		t.Errorf("%d processors after the drain", n)
	}
}

func TestWindow(t *testing.T) {
	w := window{at: time.Now().UnixNano()}
	w.share(w.at + 1)
	now := w.at
	for began := time.Now(); time.Since(began) < 20*time.Millisecond; {
		runtime.Gosched()
	}
	before := w.used
	if share := w.share(now + int64(time.Second)); share < 0.01 || share > 0.5 || w.used <= before || w.at != now+int64(time.Second) {
		t.Errorf("%v of a second, %+v", share, w)
	}
}
