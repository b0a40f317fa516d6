//go:build linux

package loop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

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
	if shared.refs.Load() != 1 || shared.n != 1 {
		t.Errorf("%d references, %d frames", shared.refs.Load(), shared.n)
	}
	ca.abort()
	cb.abort()
	l.reap()
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
	l.DeliverFunc(0, func() { g.Join(&Member{Conn: c, Until: forever}) })
	for i := range 3 {
		for range 3 {
			l.Deliver(&g, batch(big))
			want = append(want, big)
		}
		s := fmt.Sprint("sent ", i)
		l.DeliverFunc(0, func() { c.Send(ws.OpText, []byte(s)) })
		want = append(want, s)
	}
	l.take()
	l.flush()
	l.reap()
	if got := texts(t, theirs); !slices.Equal(got, want) {
		t.Errorf("got %.30q, want %.30q", got, want)
	}
	c.abort()
	l.reap()
}

// One message over PendingBytes may wait beside as much as may wait otherwise, two may not.
func TestOneLargeMessageMakesNobodySlow(t *testing.T) {
	const limit = 64 << 10
	large, small := strings.Repeat("l", 4*limit), strings.Repeat("s", limit/2-100)
	for name, test := range map[string]struct {
		messages []string
		slow     bool
	}{
		"alone":            {[]string{large}, false},
		"and small ones":   {[]string{small, large, small}, false},
		"and too many":     {[]string{small, large, small, small}, true},
		"two":              {[]string{large, large}, true},
		"small, too many":  {[]string{small, small, small}, true},
		"small, as may be": {[]string{small, small}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := idle(t, Options{PendingBytes: limit}, &hooks{})
			fd, theirs := pair(t)
			c := l.member(fd)
			for n, zeros := 1, make([]byte, 1<<20); n > 0; {
				n, _ = writeSocket(int32(fd), zeros)
			}
			g := new(Group)
			g.Join(&Member{Conn: c, Until: forever})
			for _, m := range test.messages {
				l.DeliverNow(g, batch(m))
				l.flush()
			}
			if c.Open() == test.slow || l.stat.slow != map[bool]uint64{true: 1}[test.slow] {
				t.Errorf("slow: %v, want %v", !c.Open(), test.slow)
			}
			// Once the large one has gone another may wait.
			buf := make([]byte, 1<<20)
			for n := 1; n > 0; {
				c.sendPending()
				n, _ = unix.Read(theirs, buf)
			}
			if c.out != nil || l.stat.pending != 0 {
				t.Errorf("%d bytes are left", l.stat.pending)
			}
			c.abort()
			l.reap()
		})
	}
}

// What may be sent from a call in its place among deliveries is in order, and does not gather without bound.
func TestDeliverFuncInOrder(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	fd, theirs := pair(t)
	var g Group
	c := l.member(fd)
	g.Join(&Member{Conn: c, Until: forever})
	l.Deliver(&g, batch("1"))
	l.DeliverFunc(10, func() {
		l.DeliverNow(&g, batch("2"))
		for range 3 {
			l.DeliverNow(&g, batch(strings.Repeat("x", inboxBytes/2)))
			if l.fanout.backlog > inboxBytes {
				t.Errorf("%d bytes wait", l.fanout.backlog)
			}
		}
	})
	l.Deliver(&g, batch("3"))
	if l.inbox.bytes != len("1")+2+10+len("3")+2 {
		t.Errorf("the inbox counts %d bytes", l.inbox.bytes)
	}
	l.take()
	l.flush()
	var got []byte
	for n, buf := 1, make([]byte, 1<<20); n > 0; {
		c.sendPending()
		if n, _ = unix.Read(theirs, buf); n > 0 {
			got = append(got, buf[:n]...)
		}
	}
	want := string(batch("1", "2").b)
	if !strings.HasPrefix(string(got), want) || !strings.HasSuffix(string(got), string(batch("3").b)) || len(got) < 3*inboxBytes/2 {
		t.Errorf("got %d bytes: %.40q … %.10q", len(got), got, got[len(got)-10:])
	}
	c.abort()
	l.reap()
}

// A connection that is closed as slow is told, whether something waits for it or not.
func TestCloseSlow(t *testing.T) {
	for _, waits := range []bool{false, true} {
		l := idle(t, Options{SlowCode: 4410}, &hooks{})
		fd, theirs := pair(t)
		c := l.member(fd)
		if waits {
			for c.out == nil {
				c.sendFrame(batch(strings.Repeat("x", 1<<17)).b)
				l.cork.release()
			}
		}
		c.CloseSlow()
		c.CloseSlow()
		l.reap()
		var got []byte
		for n, buf := 1, make([]byte, 1<<20); n > 0; {
			c.sendPending()
			if n, _ = unix.Read(theirs, buf); n > 0 {
				got = append(got, buf[:n]...)
			}
		}
		if end := string(appendClose(nil, 4410, slowReason)); !strings.HasSuffix(string(got), end) || l.stat.slow != 1 || l.stat.pending != 0 {
			t.Errorf("waits %v: got …%.20q, %d slow, %d bytes pending", waits, got[max(0, len(got)-20):], l.stat.slow, l.stat.pending)
		}
		c.abort()
		l.reap()
	}
}

// An expired member gets nothing and its handler is asked; the others get it
// all, once, whoever expires, leaves, is slow or breaks within the walk, and whether
// one group is due something or two with the same connections.
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
		var g, second Group
		h := &hooks{}
		l := idle(t, Options{PendingBytes: 1000}, h)
		type peer struct {
			Member
			second       Member
			kind, theirs int
		}
		var peers []*peer
		find := func(c *Conn) *peer { return c.Data.(*peer) }
		h.closed = func(c *Conn, _ ws.StatusCode) {
			find(c).Leave()
			find(c).second.Leave()
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
					n, _ := writeSocket(int32(p[0]), make([]byte, 1<<20))
					if n == 0 {
						m.Conn.keepPending(exactBatch(make([]byte, 999), 0), 0, nil).Release()
					}
				}
			case gone:
				m.Conn.abort()
				m.Until = 1
			case leaves, closes, sends:
				m.Until = 1
			}
			g.Join(&m.Member)
			m.second.Conn, m.second.Until = m.Conn, m.Until
			second.Join(&m.second)
			peers = append(peers, m)
		}
		l.merge(&g, batch("event"))
		two := rapid.Bool().Draw(r, "two")
		if two {
			l.merge(&second, batch("of the second"))
		}
		l.flush()
		l.reap()
		left := 0
		for _, p := range peers {
			switch p.kind {
			case fine:
				left++
				n, m := 0, 0
				for _, s := range texts(t, p.theirs) {
					switch s {
					case "event":
						n++
					case "of the second":
						m++
					}
				}
				if n != 1 || (m == 1) != two || m > 1 || p.Group() != &g {
					r.Fatalf("one got it %d times, and the second's %d times", n, m)
				}
			case leaves, closes, sends:
				for _, s := range texts(t, p.theirs) {
					if s == "event" || s == "of the second" {
						r.Fatal("an expired one got it")
					}
				}
				fallthrough
			default:
				if p.Group() != nil || two && p.second.Group() != nil {
					r.Fatalf("a member of kind %d stayed", p.kind)
				}
			}
		}
		if g.Len() != left {
			r.Fatalf("%d members, want %d", g.Len(), left)
		}
		for _, p := range peers {
			p.Conn.abort()
			_ = unix.Close(p.theirs)
		}
		l.reap()
		if l.stat.pending != 0 || l.stat.open != 0 || l.count != 0 {
			r.Fatalf("%+v", l.stat)
		}
		l.close()
	})
}

// Time goes on within a long walk: a member that expires meanwhile gets nothing.
func TestExpiryWithinFlush(t *testing.T) {
	for others := range 2 { // groups that are due something as well
		h := &hooks{}
		l := idle(t, Options{}, h)
		groups := make([]Group, 1+others)
		fd, theirs := pair(t)
		c := l.member(fd)
		for range 3 * clockEvery { // a connection may be in it once; a test may not care
			groups[0].Join(&Member{Conn: c, Until: time.Now().UnixNano()})
		}
		l.now = 0 // the clock of a turn that began long ago
		for i := range groups {
			l.merge(&groups[i], batch("event"))
		}
		l.flush()
		if got := len(texts(t, theirs)); got == 0 || got >= clockEvery || got+h.count("expired") != 3*clockEvery {
			t.Errorf("%d other groups: %d delivered, %d expired", others, got, h.count("expired"))
		}
		c.abort()
		l.reap()
	}
}

// A connection in several groups gets what they are due in a turn with one write, in
// order; what is large is not copied for that.
func TestJoined(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	var groups [5]Group
	var want, got [2][]string
	var conns [2]*Conn
	var theirs [2]int
	for i := range conns {
		var fd int
		fd, theirs[i] = pair(t)
		conns[i] = l.member(fd)
	}
	var held []*Batch
	for i := range groups {
		text := fmt.Sprint("of group ", i)
		if i == 3 {
			text += strings.Repeat(".", maxJoined)
		}
		for j, c := range conns[:1+i%2] {
			groups[i].Join(&Member{Conn: c, Until: forever})
			want[j] = append(want[j], text)
		}
		b := batch(text)
		b.Retain(1)
		held = append(held, b)
		l.merge(&groups[i], b)
	}
	l.flush()
	for i := range conns {
		got[i] = texts(t, theirs[i])
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
	if l.stat.writes != 3+2 || l.stat.deliveries != 7 || l.stat.batchFrames != 5 {
		t.Errorf("%+v", l.stat)
	}
	for _, b := range held {
		if b.refs.Load() != 1 {
			t.Errorf("%d references", b.refs.Load())
		}
	}
	for _, c := range conns {
		c.abort()
	}
	l.reap()
}

// What is due under one token is sent before another, which has ended, has the
// handler close the connection.
func TestJoinedBeforeClose(t *testing.T) {
	l := idle(t, Options{}, &hooks{expired: func(m *Member) { m.Conn.Close(4401, "") }})
	fd, theirs := pair(t)
	c := l.member(fd)
	var valid, ended Group
	valid.Join(&Member{Conn: c, Until: forever})
	ended.Join(&Member{Conn: c, Until: 1})
	l.merge(&valid, batch("in time"))
	l.merge(&ended, batch("too late"))
	l.flush()
	l.reap()
	buf := make([]byte, 1000)
	n, err := unix.Read(theirs, buf)
	if want := append(batch("in time").b, ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(4401, "")))...); err != nil || !slices.Equal(buf[:n], want) {
		t.Errorf("%q, %v", buf[:max(0, n)], err)
	}
	c.abort()
	l.reap()
}

// A connection that gives up all its groups when it hears that one token has ended
// gets nothing more of them, and hears of none again.
func TestJoinedLeaves(t *testing.T) {
	var members [3]*Member
	h := &hooks{expired: func(*Member) {
		for _, m := range members {
			m.Leave()
		}
	}}
	l := idle(t, Options{}, h)
	fd, theirs := pair(t)
	c := l.member(fd)
	var groups [3]Group
	for i, until := range []int64{1, forever, 1} {
		members[i] = &Member{Conn: c, Until: until}
		groups[i].Join(members[i])
		l.merge(&groups[i], batch("event"))
	}
	l.flush()
	if got := texts(t, theirs); len(got) > 0 || h.count("expired") != 1 {
		t.Errorf("got %q, expired %d times", got, h.count("expired"))
	}
	c.abort()
	l.reap()
}

// However large batches are and however full sockets, each connection gets the
// events of its groups, those of one in order, and none of a group whose token has
// ended.
func TestJoinedWhole(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := &hooks{expired: func(m *Member) { m.Leave() }}
		l := idle(t, Options{PendingBytes: 1 << 30}, h)
		type peer struct {
			*Conn
			theirs int
			got    []byte
		}
		peers := make([]*peer, rapid.IntRange(1, 3).Draw(r, "connections"))
		for i := range peers {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				r.Fatal(err)
			}
			peers[i] = &peer{Conn: l.member(p[0]), theirs: p[1]}
		}
		groups := make([]Group, rapid.IntRange(2, 5).Draw(r, "groups"))
		lives := map[string]bool{} // what of which group goes to which connection
		for g := range groups {
			for i, p := range peers {
				until := rapid.SampledFrom([]int64{forever, forever, forever, 1, 0}).Draw(r, "until")
				lives[fmt.Sprint(g, " to ", i)] = until == forever
				if until != 0 {
					groups[g].Join(&Member{Conn: p.Conn, Until: until})
				}
			}
		}
		read := func(p *peer) (more bool) {
			buf := make([]byte, 100_000)
			n, _ := unix.Read(p.theirs, buf)
			p.got = append(p.got, buf[:max(0, n)]...)
			p.sendPending()
			return n > 0
		}
		sent := make([][]string, len(groups))
		for range rapid.IntRange(1, 8).Draw(r, "turns") {
			for g := range groups {
				for range rapid.IntRange(0, 2).Draw(r, "events") {
					size := rapid.SampledFrom([]int{0, 100, 10_000, maxJoined, flushJoined}).Draw(r, "size")
					s := fmt.Sprint(g, " ", len(sent[g]), strings.Repeat(".", size))
					sent[g] = append(sent[g], s)
					l.merge(&groups[g], batch(s))
				}
			}
			l.flush()
			if rapid.Bool().Draw(r, "read") {
				read(peers[0])
			}
		}
		for i, p := range peers {
			for read(p) {
			}
			got := make([][]string, len(groups))
			for b := p.got; len(b) > 0; {
				h, n, err := parseHeader(b)
				if err != nil || n == 0 || len(b) < n+int(h.Length) {
					r.Fatalf("no frame: %.30q", b)
				}
				s := string(b[n : n+int(h.Length)])
				g := int(s[0] - '0')
				got[g] = append(got[g], s)
				b = b[n+int(h.Length):]
			}
			for g := range groups {
				var want []string
				if lives[fmt.Sprint(g, " to ", i)] {
					want = sent[g]
				}
				if !slices.Equal(got[g], want) {
					r.Fatalf("%d events of group %d, want %d", len(got[g]), g, len(want))
				}
			}
			p.abort()
			_ = unix.Close(p.theirs)
		}
		l.reap()
		if l.stat.pending != 0 || len(l.fanout.joins)+len(l.fanout.joined)+l.fanout.backlog != 0 || !l.fanout.empty() {
			r.Fatalf("%+v", l.stat)
		}
		l.close()
	})
}

// A walk in pieces meets each open connection once, whatever comes and goes meanwhile.
func TestConnsFrom(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	add := func() {
		fd, _ := pair(t)
		l.member(fd)
	}
	for range 10 {
		add()
	}
	l.conns[3].abort()
	l.reap()
	seen := make(map[*Conn]int)
	place, pieces := 0, 0
	for {
		place = l.ConnsFrom(place, 4, func(c *Conn) { seen[c]++ })
		if pieces++; place == 0 {
			break
		}
		if pieces == 1 { // one before the place, and one after it
			add()
			add()
		}
	}
	if pieces != 3 || len(seen) != 10 {
		t.Errorf("%d pieces met %d connections", pieces, len(seen))
	}
	for c, n := range seen {
		if n != 1 || !c.Open() {
			t.Errorf("met %d times, open: %v", n, c.Open())
		}
	}
	if l.ConnsFrom(0, 1000, func(*Conn) {}) != 0 || idle(t, Options{}, &hooks{}).ConnsFrom(0, 5, nil) != 0 {
		t.Error("no end")
	}
	for _, c := range l.conns {
		c.abort()
	}
	l.reap()
}
