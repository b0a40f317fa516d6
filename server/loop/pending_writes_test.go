//go:build linux

package loop

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

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
		l.merge(&g, batch(s))
		l.flush()
		for j := range peers {
			p := &peers[j]
			own := fmt.Sprint("between, for ", j)
			p.Send(ws.OpText, []byte(own))
			p.want = append(p.want, s, own)
		}
		l.cork.release()
	}
	if n := peers[0].Pending() + peers[1].Pending(); int64(n) != l.stat.pending {
		t.Errorf("%d pending, %d counted", n, l.stat.pending)
	}
	for _, p := range peers {
		if p.events != readable|writable || p.Pending() == 0 {
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
			p.sendPending()
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
		if len(all) > 0 || p.events != readable {
			t.Errorf("%d bytes more, events %d", len(all), p.events)
		}
		p.abort()
	}
	if l.reap(); l.stat.pending != 0 {
		t.Errorf("%d pending", l.stat.pending)
	}
}

// What waits for slow peers takes the memory of what it is, not of the buffers
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
			l.cork.release()
		}
		g.Join(&Member{Conn: slow[i], Until: forever})
	}
	for range 100 {
		b := batch("a small event")
		b.b = append(make([]byte, 0, 100_000), b.b...)
		l.merge(&g, b)
		l.flush()
	}
	held := map[*Batch]int{}
	for _, c := range slow {
		for _, b := range c.out.queue {
			held[b.Batch] = cap(b.b)
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
		c.abort()
	}
	if l.reap(); l.stat.pending != 0 {
		t.Errorf("%d pending", l.stat.pending)
	}
}

// What a handler sends when it hears of an end leaves in the same turn, and an
// end that this brings about is told as well.
func TestLastWords(t *testing.T) {
	h := &hooks{}
	l := idle(t, Options{}, h)
	var peers []*Conn
	var theirs []int
	for range 3 {
		fd, other := pair(t)
		peers, theirs = append(peers, l.member(fd)), append(theirs, other)
	}
	h.closed = func(*Conn, ws.StatusCode) {
		peers[1].Send(ws.OpText, []byte("news"))
		peers[2].Send(ws.OpText, []byte("news"))
	}
	_ = unix.Shutdown(theirs[1], unix.SHUT_RDWR) // not known to the server yet
	peers[0].abort()
	l.reap()
	if n := h.count("closed 1006"); n != 2 || l.count != 1 {
		t.Errorf("%d told of, %d left", n, l.count)
	}
	if got := texts(t, theirs[2]); len(got) != 2 {
		t.Errorf("got %q", got)
	}
	peers[2].abort()
	l.reap()
}

// A socket that was said to be readable and is not is no broken one.
func TestNothingToRead(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	fd, _ := pair(t)
	c := l.member(fd)
	if l.readable(c); !c.Open() {
		t.Error("given up")
	}
	c.abort()
	l.reap()
}

// What a peer was slow to take does not reach it after its token's end or after
// it has left; the frame that is half sent does, and what else it is owed.
func TestStale(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(l *Loop, m *Member)
		want bool // do the events that were queued arrive?
	}{
		{"expired", func(l *Loop, m *Member) { m.Until = l.now }, false},
		{"left", func(_ *Loop, m *Member) { m.Leave() }, false},
		{"closed", func(_ *Loop, m *Member) { m.Conn.Close(1012, ""); m.Leave() }, true},
		{"closed and expired", func(l *Loop, m *Member) { m.Conn.Close(1012, ""); m.Leave(); m.Until = l.now }, false},
		{"refreshed", func(_ *Loop, m *Member) { m.Until-- }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
			var g Group
			ours, theirs := pair(t)
			c := l.member(ours)
			m := &Member{Conn: c, Until: forever}
			g.Join(m)
			half := strings.Repeat("half ", 100_000)
			for _, s := range []string{half, "one", "two"} {
				l.merge(&g, batch(s))
				l.flush()
			}
			c.Send(ws.OpText, []byte("answer"))
			l.cork.release()
			if c.out == nil || c.out.off == 0 {
				t.Fatal("nothing is half sent")
			}
			test.end(l, m)
			l.cork.release()
			var all []byte
			buf := make([]byte, 1<<20)
			for {
				n, err := unix.Read(theirs, buf)
				if err != nil && c.out == nil {
					break
				}
				all = append(all, buf[:max(n, 0)]...)
				c.sendPending()
			}
			want := batch(half)
			if test.want {
				want = batch(half, "one", "two")
			}
			want.b = append(want.b, batch("answer").b...)
			if !bytes.HasPrefix(all, want.b) || l.stat.pending != 0 {
				t.Errorf("%d bytes, want %d; the end is %q; %d pending", len(all), len(want.b), all[max(0, len(all)-40):], l.stat.pending)
			}
			c.abort()
			l.reap()
		})
	}
}
