//go:build linux

package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// A drain tells everybody, behind what they were sent before, and ends with
// nothing left.
func TestDrain(t *testing.T) {
	for _, loops := range []int{1, 3} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			var groups [3]Group
			h := &hooks{open: func(c *Conn) { groups[c.Loop().Index()].Join(&Member{Conn: c, Until: 1<<63 - 1}) }}
			// Their members are gone with the engine: nobody leaves.
			s := start(t, Options{Loops: loops}, h)
			var all []*client
			for range 40 {
				all = append(all, s.dial())
			}
			handshake := s.connect()
			handshake.send([]byte("GET"))
			eventually(t, "all accepted", func() bool { return s.Stats().Accepted == 41 })
			for i, l := range s.loops {
				b := NewBatch()
				b.b, b.n = append(appendHeader(b.b, 1, 4), "last"...), 1
				l.Deliver(&groups[i], b)
			}
			drained := make(chan error, 1)
			go func() { drained <- s.Drain(context.Background(), 50*time.Millisecond) }()
			for _, c := range all {
				c.want(1, "last")
				c.wantClose(1012)
				c.send(masked(8, true, "\x03\xf4"))
				c.wantEOF()
				_ = c.Close()
			}
			handshake.status("503")
			_ = handshake.Close()
			if err := <-drained; err != nil {
				t.Error(err)
			}
			if conn, err := net.Dial("tcp", s.addr); err == nil {
				_ = conn.Close()
				t.Error("still listening")
			}
			if n := h.count("closed 1012"); n != 40 {
				t.Errorf("%d closed with 1012", n)
			}
			if s.loops[0].Post(func() {}) {
				t.Error("a stopped loop takes posts")
			}
			s.Do(func(*Loop) { t.Error("a stopped loop does something") })
			b := NewBatch()
			b.Retain(1)
			if s.loops[0].Deliver(&groups[0], b); b.refs.Load() != 1 {
				t.Error("a stopped loop keeps what it was delivered")
			}
		})
	}
}

// The window is used evenly, so that the clients do not all come back at once, also
// when somebody sets the clock meanwhile.
func TestDrainSpread(t *testing.T) {
	h := &hooks{}
	l := idle(t, Options{}, h)
	for range 10 {
		ours, _ := pair(t)
		l.member(ours)
	}
	l.beginDrain(time.Second)
	for i, step := range []struct {
		at   time.Duration
		told int
	}{{0, 0}, {99, 0}, {100, 1}, {550, 5}, {999, 9}, {1000, 10}, {2000, 10}} {
		l.mono = l.drain.from + int64(step.at*time.Millisecond)
		l.now += int64(time.Hour) * int64(2*(i%2)-1)
		if l.drainSome(); h.count("closed 1012") != step.told {
			t.Errorf("%d told after %d ms, want %d", h.count("closed 1012"), step.at, step.told)
		}
	}
	// One that comes from another loop's accept is turned away.
	ours, theirs := pair(t)
	l.add(int32(ours), [16]byte{})
	l.eng.load[0].Add(1)
	l.reap()
	var b [100]byte
	if n, _ := unix.Read(theirs, b[:]); !strings.HasPrefix(string(b[:max(n, 0)]), "HTTP/1.1 503 ") {
		t.Errorf("%q", b[:max(n, 0)])
	}
	for _, c := range l.conns {
		c.abort()
	}
	l.reap()
}

// Peers that do not answer hold a drain up until its context ends.
func TestDrainCutShort(t *testing.T) {
	h := &hooks{}
	s := start(t, Options{}, h)
	mute := s.dial()
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx, 0) }()
	mute.wantClose(1012)
	cancel()
	if err := <-drained; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mute.gone()
	if n := h.count("closed 1012"); n != 1 {
		t.Errorf("%q", h.noted())
	}
	if err := s.Drain(context.Background(), 0); err != nil {
		t.Errorf("drained twice: %v", err)
	}
}

// A loop that hangs is named, by Health and by Drain, which go on without it. However often
// it is asked, one question waits for it.
func TestHangingLoop(t *testing.T) {
	release := make(chan struct{})
	hung := make(chan struct{})
	h := &hooks{message: func(*Conn, ws.OpCode, []byte) { close(hung); <-release }}
	s := start(t, Options{Loops: 2}, h)
	if err := s.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, second := s.dial(), s.dial()
	first.send(masked(1, true, "x"))
	<-hung
	over, cancel := context.WithCancel(t.Context())
	cancel()
	index := -1
	for range 100 {
		_ = s.Health(over) // the other loop may be late
	}
	eventually(t, "one loop is named", func() bool {
		within, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := s.Health(within)
		if err == nil {
			t.Fatal("no loop hangs")
		}
		n, _ := fmt.Sscanf(err.Error(), "loop %d hangs", &index)
		return n == 1 && !strings.Contains(err.Error(), "\n")
	})
	x := &s.loops[index].inbox
	x.mu.Lock()
	waiting := len(x.items)
	x.mu.Unlock()
	if waiting != 1 {
		t.Errorf("%d questions wait for the loop", waiting)
	}
	if err := s.Drain(over, 0); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("loop %d hangs", index)) {
		t.Errorf("drained: %v", err)
	}
	close(release)
	first.gone()
	second.gone()
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("when the loops have stopped: %v", err)
	}
}
