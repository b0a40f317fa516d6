package loop

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// Paused, a connection is not read and costs nothing, its peer's data and even
// its silence notwithstanding; resumed, it goes on in order.
func TestPause(t *testing.T) {
	paused := make(chan *Conn, 1)
	h := &hooks{}
	h.message = func(c *Conn, _ ws.OpCode, p []byte) {
		h.note("%s", p)
		if strings.HasPrefix(string(p), "pause") {
			c.Pause()
			paused <- c
		}
	}
	s := start(t, Options{}, h)
	c := s.dial()
	want := []string{"open"}
	for round := range 20 {
		first := fmt.Sprint("pause ", round)
		var stream []byte
		stream = append(stream, text(first)...)
		want = append(want, first)
		for i := range 10 {
			stream = append(stream, text(fmt.Sprint(round, " ", i))...)
		}
		cut := len(stream) - round // what is in the tail ends anywhere
		c.send(stream[:cut])
		conn := <-paused
		c.send(stream[cut:])
		before := s.Stats()
		s.advance(100 * time.Second)                  // longer than idle and message timeouts
		c.send(text(strings.Repeat("more ", 10_000))) // readable all the time
		s.advance(time.Second)
		if got := h.noted(); !slices.Equal(got, want) {
			t.Fatalf("paused, yet told %q", got[len(want):])
		}
		if st := s.Stats(); st.Turns-before.Turns > 100 {
			t.Fatalf("%d turns while paused", st.Turns-before.Turns)
		}
		for i := range 10 {
			want = append(want, fmt.Sprint(round, " ", i))
		}
		want = append(want, strings.Repeat("more ", 10_000))
		s.Do(func(*Loop) { conn.Resume(); conn.Resume() })
		eventually(t, "all of the round", func() bool { return len(h.noted()) == len(want) })
	}
	if got := h.noted(); !slices.Equal(got, want) {
		t.Errorf("got %.20q\nwant %.20q", got, want)
	}
	if in, _ := s.held(); in != 0 {
		t.Errorf("%d bytes held", in)
	}
}

// The time of a pause counts for no deadline, also in the middle of a message.
func TestPauseStopsTheClock(t *testing.T) {
	h := &hooks{}
	s := start(t, Options{PingInterval: time.Hour}, h)
	c := s.dial()
	b := text("hello")
	c.send(b[:8])
	eventually(t, "half a message", func() bool { return s.Stats().BytesIn == uint64(len(request)+8) })
	each := func(f func(*Conn)) {
		s.Do(func(l *Loop) { l.Conns(func(c *Conn) bool { f(c); return true }) })
	}
	each((*Conn).Pause)
	s.advance(100 * time.Second)
	each((*Conn).Resume)
	s.advance(2 * time.Second)
	c.send(b[8:])
	eventually(t, "the whole message", func() bool { return h.count("message 1 hello") == 1 })
	c.alive()
}

// While a paused connection has data waiting, the loop sleeps.
func TestPauseSleeps(t *testing.T) {
	paused := make(chan *Conn, 1)
	h := &hooks{message: func(c *Conn, _ ws.OpCode, _ []byte) { c.Pause(); paused <- c }}
	s := start(t, Options{}, h)
	c := s.dial()
	c.send(text("1"))
	conn := <-paused
	c.send(text("2"))
	before := s.Stats().Turns
	time.Sleep(300 * time.Millisecond)
	if n := s.Stats().Turns - before; n > 20 {
		t.Errorf("%d turns", n)
	}
	// Closed while paused: the peer's answer must be heard all the same.
	s.Do(func(*Loop) { conn.Close(1000, "") })
	c.want(ws.OpClose, "\x03\xe8")
	c.send(masked(ws.OpClose, true, "\x03\xe8"))
	c.wantEOF()
	s.Do(func(*Loop) { conn.Resume() })
	if n := h.count("closed 1000"); n != 1 {
		t.Errorf("%q", h.noted())
	}
}

// A peer that goes away while it is paused is noticed.
func TestPauseBrokenOff(t *testing.T) {
	paused := make(chan *Conn, 1)
	h := &hooks{message: func(c *Conn, _ ws.OpCode, _ []byte) { c.Pause(); paused <- c }}
	s := start(t, Options{}, h)
	c := s.dial()
	c.send(text("1"))
	conn := <-paused
	_ = c.Conn.(interface{ SetLinger(int) error }).SetLinger(0)
	_ = c.Close()
	eventually(t, "noticed", func() bool { return h.count("closed 1006") == 1 })
	s.Do(func(*Loop) { conn.Resume() })
	if _, err := io.ReadAll(c); err == nil {
		t.Error("still open")
	}
}
