//go:build linux

package loop

import (
	"fmt"
	"math"
	"slices"
	"strings"
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
						m.Conn.owe(exactBatch(make([]byte, 999), 0), 0, nil).Release()
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
