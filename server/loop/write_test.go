//go:build linux

package loop

import (
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
	peers[0].kill()
	l.bury()
	if n := h.count("closed 1006"); n != 2 || l.count != 1 {
		t.Errorf("%d told of, %d left", n, l.count)
	}
	if got := texts(t, theirs[2]); len(got) != 2 {
		t.Errorf("got %q", got)
	}
	peers[2].kill()
	l.bury()
}

// A socket that was said to be readable and is not is no broken one.
func TestNothingToRead(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	fd, _ := pair(t)
	c := l.member(fd)
	if l.readable(c); !c.Open() {
		t.Error("given up")
	}
	c.kill()
	l.bury()
}
