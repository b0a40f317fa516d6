//go:build linux

package loop

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

const forever = math.MaxInt64

// batch is one with these texts as frames.
func batch(texts ...string) *Batch {
	b := NewBatch()
	for _, s := range texts {
		b.B = append(AppendHeader(b.B, ws.OpText, len(s)), s...)
		b.N++
	}
	return b
}

// texts reads what a socket holds as text frames.
func texts(t testing.TB, fd int) (all []string) {
	t.Helper()
	buf := make([]byte, 1<<20)
	n, err := unix.Read(fd, buf)
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	for b := buf[:max(n, 0)]; len(b) > 0; {
		h, n, err := parseHeader(b)
		if err != nil || n == 0 || len(b) < n+int(h.Length) {
			t.Fatalf("no frame: %q", b)
		}
		all = append(all, string(b[n:n+int(h.Length)]))
		b = b[n+int(h.Length):]
	}
	return all
}

// Events of one turn become one batch a group, in order; a batch that many
// loops share is not changed by it.
func TestGather(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	var a, b Group
	afd, atheirs := pair(t)
	bfd, btheirs := pair(t)
	ca, cb := l.member(afd), l.member(bfd)
	a.Join(&Member{Conn: ca, Until: forever})
	b.Join(&Member{Conn: cb, Until: forever})
	shared := batch("1")
	shared.Retain(2)
	l.Deliver(&a, shared)
	l.Deliver(&b, shared)
	l.Deliver(&a, batch("2", "3"))
	l.Deliver(&a, batch("4"))
	l.take()
	l.flush()
	if got := texts(t, atheirs); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
		t.Errorf("a got %q", got)
	}
	if got := texts(t, btheirs); !slices.Equal(got, []string{"1"}) {
		t.Errorf("b got %q", got)
	}
	if l.stat.writes != 2 || l.stat.framesOut != 5 || l.stat.batches[2] != 1 || l.stat.batches[0] != 1 {
		t.Errorf("%+v", l.stat)
	}
	if shared.refs.Load() != 1 || shared.N != 1 {
		t.Errorf("%d references, %d frames", shared.refs.Load(), shared.N)
	}
	ca.kill()
	cb.kill()
	l.bury()
}

// What is delivered before a call is written before it, and what is sent
// between deliveries keeps its place.
func TestOrder(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 10}, &hooks{})
	var g Group
	fd, theirs := pair(t)
	c := l.member(fd)
	var want []string
	big := strings.Repeat("b", 10_000) // past what a turn merges
	l.Deliver(&g, batch("nobody hears it"))
	l.Post(func() { g.Join(&Member{Conn: c, Until: forever}) })
	for i := range 3 {
		for range 3 {
			l.Deliver(&g, batch(big))
			want = append(want, big)
		}
		s := fmt.Sprint("sent ", i)
		l.Post(func() { c.Send(ws.OpText, []byte(s)) })
		want = append(want, s)
	}
	l.take()
	l.flush()
	l.bury()
	if got := texts(t, theirs); !slices.Equal(got, want) {
		t.Errorf("got %.30q, want %.30q", got, want)
	}
	c.kill()
	l.bury()
}

// An expired member gets nothing and its handler is asked; the others get it
// all, once, whoever expires, leaves, is slow or breaks within the walk.
func TestFlushWalk(t *testing.T) {
	const (
		fine = iota
		leaves
		closes
		sends // to itself and to the next, which may be a broken one
		broken
		slow
		gone // its end is known before the walk, and the handler not told yet
		kinds
	)
	rapid.Check(t, func(r *rapid.T) {
		var g Group
		h := &hooks{}
		l := idle(t, Options{PendingBytes: 1000}, h)
		type peer struct {
			Member
			kind, theirs int
		}
		var peers []*peer
		find := func(c *Conn) *peer { return c.Data.(*peer) }
		h.closed = func(c *Conn, _ ws.StatusCode) {
			find(c).Leave()
			for _, p := range peers { // news of it to all, in the handler
				p.Conn.Send(ws.OpPing, nil)
			}
		}
		h.expired = func(m *Member) {
			p := find(m.Conn)
			if !m.Conn.Open() {
				r.Fatal("expired although it has ended")
			}
			switch p.kind {
			case leaves:
				m.Leave()
			case closes:
				m.Conn.Close(4401, "")
			case sends:
				for _, q := range peers {
					q.Conn.Send(ws.OpText, []byte("news"))
				}
				m.Leave()
			}
		}
		for _, kind := range rapid.SliceOfN(rapid.IntRange(0, kinds-1), 1, 20).Draw(r, "kinds") {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				r.Fatal(err)
			}
			m := &peer{kind: kind, theirs: p[1]}
			m.Conn, m.Until = l.member(p[0]), forever
			m.Conn.Data = m
			switch kind {
			case broken:
				_ = unix.Shutdown(p[1], unix.SHUT_RDWR)
			case slow:
				for m.Conn.out == nil {
					n, _ := rawWrite(int32(p[0]), make([]byte, 1<<20))
					if n == 0 {
						m.Conn.owe(exactBatch(make([]byte, 999), 0), 0).Release()
					}
				}
			case gone:
				m.Conn.kill()
				m.Until = 1
			case leaves, closes, sends:
				m.Until = 1
			}
			g.Join(&m.Member)
			peers = append(peers, m)
		}
		l.gather(&g, batch("event"))
		l.flush()
		l.bury()
		left := 0
		for _, p := range peers {
			switch p.kind {
			case fine:
				left++
				n := 0
				for _, s := range texts(t, p.theirs) {
					if s == "event" {
						n++
					}
				}
				if n != 1 || p.Group() != &g {
					r.Fatalf("one got it %d times", n)
				}
			case leaves, closes, sends:
				for _, s := range texts(t, p.theirs) {
					if s == "event" {
						r.Fatal("an expired one got it")
					}
				}
				fallthrough
			default:
				if p.Group() != nil {
					r.Fatalf("a member of kind %d stayed", p.kind)
				}
			}
		}
		if g.Len() != left {
			r.Fatalf("%d members, want %d", g.Len(), left)
		}
		for _, p := range peers {
			p.Conn.kill()
			_ = unix.Close(p.theirs)
		}
		l.bury()
		if l.stat.pending != 0 || l.stat.open != 0 || l.count != 0 {
			r.Fatalf("%+v", l.stat)
		}
		l.closeFDs()
	})
}

// Time goes on within a long walk: who expires meanwhile gets nothing.
func TestExpiryWithinFlush(t *testing.T) {
	h := &hooks{}
	l := idle(t, Options{}, h)
	var g Group
	fd, theirs := pair(t)
	c := l.member(fd)
	for range 3 * clockEvery { // a connection may be in it once; a test may not care
		g.Join(&Member{Conn: c, Until: time.Now().UnixNano()})
	}
	l.now = 0 // the clock of a turn that began long ago
	l.gather(&g, batch("event"))
	l.flush()
	if got := len(texts(t, theirs)); got >= clockEvery || got+h.count("expired") != 3*clockEvery {
		t.Errorf("%d delivered, %d expired", got, h.count("expired"))
	}
	c.kill()
	l.bury()
}

// Deliver and Post reach a loop that sleeps, from any goroutine, and each
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
					l.Post(func() {
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
	l := idle(t, Options{}, &hooks{})
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
	eventually(t, "full", func() bool { return delivered.Load() > inboxBytes>>20-1 })
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

	// Who waits when the loop stops goes on as well.
	wg.Go(func() {
		for range n {
			l.Deliver(&g, batch(big))
		}
	})
	eventually(t, "full", func() bool { l.inbox.mu.Lock(); defer l.inbox.mu.Unlock(); return l.inbox.bytes > inboxBytes })
	for _, it := range l.inbox.shut() {
		it.batch.Release()
	}
	wg.Wait()
}

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
	s := start(t, Options{}, h)
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

// Peers that catch up get everything in order, a share each turn, and nothing
// that was sent to another: they hold the same batches.
func TestWritable(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	var g Group
	type peer struct {
		*Conn
		theirs int
		want   []string
	}
	var peers [2]peer
	for i := range peers {
		ours, theirs := pair(t)
		peers[i] = peer{Conn: l.member(ours), theirs: theirs}
		g.Join(&Member{Conn: peers[i].Conn, Until: forever})
	}
	for i := range 50 {
		s := fmt.Sprint(i, strings.Repeat(" ", 50_000))
		l.gather(&g, batch(s))
		l.flush()
		for j := range peers {
			p := &peers[j]
			own := fmt.Sprint("between, for ", j)
			p.Send(ws.OpText, []byte(own))
			p.want = append(p.want, s, own)
		}
		l.uncork()
	}
	if n := peers[0].Pending() + peers[1].Pending(); int64(n) != l.stat.pending {
		t.Errorf("%d pending, %d counted", n, l.stat.pending)
	}
	for _, p := range peers {
		if p.events != unix.EPOLLIN|unix.EPOLLOUT || p.Pending() == 0 {
			t.Fatalf("events %d, %d pending", p.events, p.Pending())
		}
		var all []byte
		buf := make([]byte, 1<<20)
		for p.out != nil {
			n, err := unix.Read(p.theirs, buf)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, buf[:n]...)
			owed := len(p.out.queue)
			p.writable()
			if p.out != nil && owed-len(p.out.queue) > 2 {
				t.Fatal("more than a share")
			}
		}
		n, _ := unix.Read(p.theirs, buf)
		all = append(all, buf[:max(n, 0)]...)
		for i, s := range p.want {
			h, n, _ := parseHeader(all)
			if got := string(all[n : n+int(h.Length)]); got != s {
				t.Fatalf("%d: %.20q, want %.20q", i, got, s)
			}
			all = all[n+int(h.Length):]
		}
		if len(all) > 0 || p.events != unix.EPOLLIN {
			t.Errorf("%d bytes more, events %d", len(all), p.events)
		}
		p.kill()
	}
	if l.bury(); l.stat.pending != 0 {
		t.Errorf("%d pending", l.stat.pending)
	}
}

// What slow peers are owed takes the memory of what it is, not of the buffers
// that it came in, and they share it.
func TestOwedMemory(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	var g Group
	var slow [2]*Conn
	for i := range slow {
		ours, _ := pair(t)
		slow[i] = l.member(ours)
		for slow[i].out == nil {
			slow[i].Send(ws.OpBinary, make([]byte, 1000))
			l.uncork()
		}
		g.Join(&Member{Conn: slow[i], Until: forever})
	}
	for range 100 {
		b := batch("a small event")
		b.B = append(make([]byte, 0, 100_000), b.B...)
		l.gather(&g, b)
		l.flush()
	}
	held := map[*Batch]int{}
	for _, c := range slow {
		for _, b := range c.out.queue {
			held[b] = cap(b.B)
		}
	}
	total := 0
	for _, n := range held {
		total += n
	}
	if len(held) != 100+2 || total > 10_000 {
		t.Errorf("%d bytes in %d batches", total, len(held))
	}
	for _, c := range slow {
		c.kill()
	}
	if l.bury(); l.stat.pending != 0 {
		t.Errorf("%d pending", l.stat.pending)
	}
}
