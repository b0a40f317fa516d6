//go:build linux

package loop

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// crowdOf is a group with so many members, all of one connection.
func crowdOf(t *testing.T, l *Loop, members int) (g *Group, theirs int) {
	t.Helper()
	fd, theirs := pair(t)
	c := l.member(fd)
	g = new(Group)
	for range members {
		g.Join(&Member{Conn: c, Until: forever})
	}
	t.Cleanup(func() {
		c.abort()
		l.reap()
	})
	return g, theirs
}

// turn is what a turn does with the inbox and the groups.
func (l *Loop) turn() {
	l.take()
	l.write()
}

// A large group takes many turns. Small ones that are due something meanwhile are
// written in the next turn, however large the others are.
func TestSmallGroupsComeFirst(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	const members = 5 * slice
	large, theirLarge := crowdOf(t, l, members-1)
	small, theirSmall := crowdOf(t, l, 2)
	large.Join(&Member{Conn: small.members[0].Conn, Until: forever}) // the first to be written to
	l.Deliver(large, batch("to all"))
	for i := range members / slice {
		s := fmt.Sprint("small ", i)
		l.Deliver(small, batch(s))
		l.turn()
		want, others := []string{s, s}, slice
		if i == 0 {
			want, others = append(want, "to all"), slice-1
		}
		if got := texts(t, theirLarge); len(got) != others {
			t.Fatalf("turn %d wrote %d to the large group", i, len(got))
		}
		if got := texts(t, theirSmall); !slices.Equal(got, want) {
			t.Fatalf("turn %d wrote %q to the small group", i, got)
		}
	}
	if !l.fanout.empty() || !l.inboxEmpty() || l.inbox.bytes != 0 || l.fanout.backlog != 0 {
		t.Errorf("something is left: %d bytes, %d in the inbox", l.fanout.backlog, l.inbox.bytes)
	}
}

// Groups of other sizes have their slices in turn, so that a large one does not hold up
// one that is not so large, nor the other way round. Very many small ones do not hold up
// a large one.
func TestSlicesAreFair(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	const turns = 4
	large, theirLarge := crowdOf(t, l, laneMembers[1]+1)
	middle, theirMiddle := crowdOf(t, l, laneMembers[0]+1)
	small := make([]*Group, (turns+1)*urgentSlice)
	for i := range small {
		small[i], _ = crowdOf(t, l, 1)
		l.merge(small[i], batch("small"))
	}
	l.Deliver(large, batch("large"))
	got := 0
	for range turns {
		l.Deliver(middle, batch("middle"))
		l.turn()
		got += len(texts(t, theirLarge))
	}
	if got != turns/2*slice {
		t.Errorf("the large group had %d writes in %d turns", got, turns)
	}
	if n := len(texts(t, theirMiddle)); n < turns/2*(laneMembers[0]+1) {
		t.Errorf("the middle one had %d", n)
	}
	if x := &l.fanout.lanes[0]; len(x.receivers)-x.next != urgentSlice {
		t.Errorf("%d small groups of %d were written to", x.next, len(small))
	}
	l.flush()
}

// A group that is due more than one batch may hold has another in its next round. Nobody
// waits for all of them.
func TestMoreThanABatch(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	l.eng.mergeBytes = 256
	const members, events = 2 * slice, 60
	large, theirLarge := crowdOf(t, l, members)
	small, theirSmall := crowdOf(t, l, 1)
	var want []string
	for i := range events {
		s := fmt.Sprint(i, " to all")
		want = append(want, s)
		l.Deliver(large, batch(s))
	}
	l.Deliver(small, batch("small"))
	l.turn()
	if got := texts(t, theirSmall); !slices.Equal(got, []string{"small"}) {
		t.Errorf("after a turn the small group has %q", got)
	}
	got := texts(t, theirLarge)
	if len(got) == 0 || len(got) >= events*slice {
		t.Errorf("a turn wrote %d to the large group", len(got))
	}
	for !l.fanout.empty() {
		l.turn()
		got = append(got, texts(t, theirLarge)...)
	}
	if len(got) != members*events {
		t.Fatalf("%d events", len(got))
	}
	slices.SortStableFunc(got, func(a, b string) int { return slices.Index(want, a) - slices.Index(want, b) })
	for i, s := range got {
		if s != want[i/members] {
			t.Fatalf("event %d is %q", i, s)
		}
	}
	if !l.inboxEmpty() || l.inbox.bytes != 0 || l.fanout.backlog != 0 {
		t.Errorf("%d bytes are left, %d in the inbox", l.fanout.backlog, l.inbox.bytes)
	}
}

// What a group is due next waits behind what the others of its lane are due.
func TestAGroupWaitsForTheOthers(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	const members = maxDeliveries // each has a round for itself
	a, theirA := crowdOf(t, l, members)
	b, theirB := crowdOf(t, l, members)
	l.Deliver(a, batch("a1"))
	l.turn()
	l.Deliver(b, batch("b1"))
	l.Deliver(a, batch("a2"))
	l.Deliver(a, batch("a3"))
	var order []string
	for turns := 0; !l.fanout.empty(); turns++ {
		for _, s := range append(texts(t, theirA), texts(t, theirB)...) {
			if len(order) == 0 || order[len(order)-1] != s && (s != "a3" || order[len(order)-1] != "a2") && (s != "a2" || order[len(order)-1] != "a3") {
				order = append(order, s)
			}
		}
		if l.turn(); turns > 4*members/slice {
			t.Fatal("no end")
		}
	}
	if !slices.Equal(order, []string{"a1", "b1", "a2"}) {
		t.Errorf("%q", order)
	}
}

// Members that leave between two slices take nothing from others and give nothing to
// others, wherever they stand.
func TestLeaveBetweenSlices(t *testing.T) {
	const members, written = 6, 3
	for leaves := range members {
		l := idle(t, Options{}, &hooks{})
		var g Group
		var all [members]*Member
		var theirs [members]int
		for i := range all {
			fd, other := pair(t)
			all[i], theirs[i] = &Member{Conn: l.member(fd), Until: forever}, other
			g.Join(all[i])
		}
		l.merge(&g, batch("event"))
		l.writeSlice(&l.fanout.lanes[0], written)
		all[leaves].Leave()
		l.flush()
		for i, fd := range theirs {
			want := 1
			if i == leaves && i < members-written {
				want = 0
			}
			if got := len(texts(t, fd)); got != want {
				t.Errorf("%d left: %d got it %d times", leaves, i, got)
			}
			all[i].Conn.abort()
		}
		l.reap()
	}
}

// A group that grows out of its lane while it is written has its next batch after this one.
func TestAGroupGrowsBetweenSlices(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	g, theirs := crowdOf(t, l, laneMembers[0])
	l.merge(g, batch("1"))
	l.writeSlice(&l.fanout.lanes[0], 1)
	g.Join(&Member{Conn: g.members[0].Conn, Until: forever})
	l.merge(g, batch("2"))
	l.writeSlice(&l.fanout.lanes[1], slice)
	l.flush()
	want := append(slices.Repeat([]string{"1"}, laneMembers[0]), slices.Repeat([]string{"2"}, laneMembers[0]+1)...)
	if got := texts(t, theirs); !slices.Equal(got, want) || l.fanout.backlog != 0 {
		t.Errorf("%q, %d bytes are left", got, l.fanout.backlog)
	}
}

// DeliverFunc for one group has what is half written of it written first, too.
func TestDeliverFuncEndsARound(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	g, theirs := crowdOf(t, l, 5)
	another, theirsOther := crowdOf(t, l, laneMembers[0]+1)
	l.merge(g, batch("event"))
	l.merge(another, batch("event"))
	l.writeSlice(&l.fanout.lanes[0], 2)
	called := false
	l.DeliverFunc(0, func() {
		called = true
		if n := len(texts(t, theirs)); n != 5 {
			t.Errorf("%d of 5 had it", n)
		}
		if n := len(texts(t, theirsOther)); n != 0 {
			t.Errorf("%d of another group had it", n)
		}
	}, g)
	l.take()
	l.flush()
	if !called {
		t.Error("not called")
	}
}

// A member whose time ends between two slices gets nothing in the second.
func TestExpiryBetweenSlices(t *testing.T) {
	for others := range 2 { // groups that are due something as well
		h := &hooks{}
		l := idle(t, Options{PendingBytes: 64 << 20}, h)
		g, theirs := crowdOf(t, l, 3*slice)
		second, _ := crowdOf(t, l, laneMembers[0]+1)
		end := time.Now().UnixNano()
		for _, m := range g.members {
			m.Until = end
		}
		l.now = end - 1
		l.merge(g, batch("event"))
		if others > 0 {
			l.merge(second, batch("other"))
		}
		l.write()
		before := len(texts(t, theirs))
		l.readClock()
		l.flush()
		if got := len(texts(t, theirs)); before == 0 || before > slice || got != 0 || h.count("expired") != 3*slice-before {
			t.Errorf("%d other groups: %d in time, %d late, %d expired", others, before, got, h.count("expired"))
		}
	}
}

// Whatever happens between slices, however small, each member gets the events of its
// group in order, none twice and none left out, and DeliverFunc is an exact point.
func TestSlicedWhole(t *testing.T) {
	type member struct {
		Member
		theirs    int
		group     int
		from, to  int // what it must get at least: events of its group, to exclusive
		exactFrom bool
		exactTo   bool
		mayGet    int // no event from there on
		left      bool
		got       []string
	}
	rapid.Check(t, func(r *rapid.T) {
		l := idle(t, Options{PendingBytes: 1 << 30}, &hooks{})
		l.eng.mergeBytes = rapid.SampledFrom([]int{8, 256 << 10}).Draw(r, "most merged bytes")
		groups := make([]*Group, rapid.IntRange(1, 3).Draw(r, "groups"))
		for i := range groups {
			groups[i] = new(Group)
		}
		sent := make([]int, len(groups))  // events delivered
		taken := make([]int, len(groups)) // of them, the loop has
		var all, here []*member
		join := func(i int, exact bool) {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				r.Fatal(err)
			}
			m := &member{theirs: p[1], group: i, from: taken[i], exactFrom: exact}
			m.Conn, m.Until = l.member(p[0]), forever
			groups[i].Join(&m.Member)
			all, here = append(all, m), append(here, m)
		}
		leave := func(m *member, exact bool) {
			if m.left {
				return
			}
			m.left, m.to, m.exactTo, m.mayGet = true, 0, exact, taken[m.group]
			if exact {
				m.to = taken[m.group]
			}
			m.Leave()
			here = slices.DeleteFunc(here, func(x *member) bool { return x == m })
		}
		for i := range groups {
			for range rapid.IntRange(0, 8).Draw(r, "members") {
				join(i, true)
			}
		}
		group := rapid.IntRange(0, len(groups)-1)
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 9).Draw(r, "step") {
			case 0, 1, 2:
				i := group.Draw(r, "to")
				l.Deliver(groups[i], batch(fmt.Sprint(sent[i])))
				at := sent[i] + 1
				sent[i]++
				l.DeliverBy(0, func() { taken[i] = at })
			case 3:
				l.take()
			case 4, 5, 6:
				l.writeSlice(&l.fanout.lanes[0], rapid.IntRange(1, 4).Draw(r, "slice"))
			case 7:
				i := group.Draw(r, "joined")
				if rapid.Bool().Draw(r, "exactly") {
					l.DeliverFunc(0, func() { join(i, true) }, groups[i])
				} else {
					l.Post(func() { join(i, false) })
				}
			case 8:
				if len(here) > 0 {
					m := rapid.SampledFrom(here).Draw(r, "leaves")
					switch rapid.IntRange(0, 2).Draw(r, "how") {
					case 0:
						l.DeliverFunc(0, func() { leave(m, true) })
					case 1:
						l.DeliverFunc(0, func() { leave(m, true) }, groups[m.group])
					default:
						leave(m, false)
					}
				}
			case 9:
				l.DeliverBy(0, func() {
					i := group.Draw(r, "now")
					if taken[i] == sent[i] { // else it would be out of the order that is checked
						l.DeliverNow(groups[i], batch(fmt.Sprint(sent[i])))
						sent[i]++
						taken[i] = sent[i]
					}
				})
			}
		}
		l.take()
		l.flush()
		for _, m := range all {
			if !m.left {
				m.to, m.exactTo, m.mayGet = sent[m.group], true, sent[m.group]
			}
			m.got = texts(t, m.theirs)
			first := m.from
			if len(m.got) > 0 {
				_, _ = fmt.Sscan(m.got[0], &first)
			}
			for i, s := range m.got {
				if s != fmt.Sprint(first+i) {
					r.Fatalf("group %d: got %q", m.group, m.got)
				}
			}
			end := first + len(m.got)
			switch {
			case m.exactFrom && first != m.from && len(m.got) > 0, first > m.from:
				r.Fatalf("joined at %d (exactly: %v), got %q", m.from, m.exactFrom, m.got)
			case end < m.to || end > m.mayGet && len(m.got) > 0, m.exactTo && end != max(m.to, first):
				r.Fatalf("joined at %d, left at %d (exactly: %v), got %q", m.from, m.mayGet, m.exactTo, m.got)
			}
			m.Conn.abort()
			_ = unix.Close(m.theirs)
		}
		l.reap()
		if !l.inboxEmpty() || l.inbox.bytes != 0 || l.fanout.backlog != 0 || !l.fanout.empty() {
			r.Fatalf("left: %d and %d bytes", l.inbox.bytes, l.fanout.backlog)
		}
		l.close()
	})
}

// What was taken counts as what waits until it is written, so that a loop does not take
// in without bound what it cannot write.
func TestBacklogCounts(t *testing.T) {
	l := idle(t, Options{PendingBytes: 64 << 20}, &hooks{})
	g, _ := crowdOf(t, l, 3*slice)
	b := batch("event")
	size := len(b.b)
	l.Deliver(g, b)
	l.DeliverBy(1000, func() {
		l.DeliverNow(g, batch("event"))
		if l.inboxEmpty(); l.inbox.bytes != 2*size+1000 {
			t.Errorf("%d bytes wait within the call", l.inbox.bytes)
		}
	})
	for _, want := range []int{2 * size, 2 * size, 0} {
		l.turn()
		if l.inboxEmpty(); l.inbox.bytes != want {
			t.Errorf("%d bytes wait, want %d", l.inbox.bytes, want)
		}
	}
}

// A pong does not wait for what a large group is due, and a loop that is drained sends
// all of that before it closes.
func TestPongAmidAFanOut(t *testing.T) {
	var g Group
	var asked, wrote atomic.Bool
	h := &hooks{open: func(c *Conn) {
		if g.Len() > 0 {
			return
		}
		for range 100 * slice {
			g.Join(&Member{Conn: c, Until: forever})
		}
	}}
	h.turn = func(l *Loop) bool {
		if asked.Load() && !l.fanout.empty() { // read, and the large group is not through
			wrote.Store(true)
		}
		return false
	}
	h.message = func(c *Conn, op ws.OpCode, p []byte) {
		asked.Store(true)
		c.Send(op, p)
	}
	s := start(t, Options{PendingBytes: 64 << 20}, h)
	large, small := s.dial(), s.dial()
	s.loops[0].Post(func() {
		s.loops[0].DeliverNow(&g, batch("to all"))
		small.send(text("hello"))
	})
	small.want(ws.OpText, "hello")
	if !wrote.Load() {
		t.Error("the answer waited for the fan-out")
	}
	for range 100 * slice {
		large.want(ws.OpText, "to all")
	}
}

func bytesOf(n int) *Batch {
	b := NewBatch()
	b.b, b.n = make([]byte, n), 1
	return b
}

// A slice of a large batch has fewer members: others do not wait for 64 times 64 KiB.
func TestLargeBatchesTakeSmallSlices(t *testing.T) {
	for _, size := range []int{1, heavyBytes - 1, heavyBytes, 4 * heavyBytes, slice * heavyBytes} {
		l := idle(t, Options{PendingBytes: 1 << 30}, &hooks{})
		g, _ := crowdOf(t, l, 2*slice)
		l.Deliver(g, bytesOf(size))
		l.turn()
		want := (slice + size/heavyBytes) / (1 + size/heavyBytes) // the last one may go over it
		if got := 2*slice - int(g.left); got != want {
			t.Errorf("a slice of %d bytes each wrote to %d, want %d", size, got, want)
		}
		l.flush()
	}
}

// So has one of several groups.
func TestLargeBatchesOfSeveralTakeSmallSlices(t *testing.T) {
	l := idle(t, Options{PendingBytes: 1 << 30}, &hooks{})
	const members = 3
	x := &l.fanout.lanes[0]
	for range urgentSlice / 2 {
		g, _ := crowdOf(t, l, members)
		l.merge(g, bytesOf(2*heavyBytes))
	}
	l.turn()
	written := int(l.stat.writes)
	if len(x.receivers) == 0 || written > urgentSlice/2 {
		t.Errorf("%d writes of %d bytes in a turn, to %d of %d", written, 2*heavyBytes, x.next, len(x.receivers))
	}
	l.flush()
}

// What a turn published amid a fan-out is awaited, and delivered before the next slice of it.
func TestAnswerAmidAFanOut(t *testing.T) {
	var large, small Group
	var asked, answered bool // the loop's
	var before uint64        // writes, when the question had been sent
	wrote := make(chan uint64, 1)
	h := &hooks{open: func(c *Conn) {
		if small.Len() > 0 {
			return
		}
		small.Join(&Member{Conn: c, Until: forever})
	}}
	h.message = func(c *Conn, _ ws.OpCode, _ []byte) {
		for range 10 * slice {
			large.Join(&Member{Conn: c, Until: forever})
		}
		c.loop.DeliverNow(&large, batch("to all"))
		asked = true
	}
	h.turn = func(l *Loop) bool {
		switch {
		case asked && !answered:
			before, answered = l.stat.writes, true
			go func() {
				time.Sleep(5 * time.Millisecond) // without waiting the loop would write more slices meanwhile
				l.Deliver(&small, batch("to a few"))
				l.eng.Answered()
			}()
			return true
		case answered && len(wrote) == 0:
			wrote <- l.stat.writes - before
		}
		return false
	}
	s := start(t, Options{PendingBytes: 64 << 20}, h)
	few, many := s.dial(), s.dial()
	many.send(text("begin"))
	few.want(ws.OpText, "to a few")
	if n := <-wrote; n != slice+1 {
		t.Errorf("%d writes in the turn that asked, want a slice and the answer", n)
	}
	for range 10 * slice {
		many.want(ws.OpText, "to all")
	}
}

func TestDrainSendsWhatIsDue(t *testing.T) {
	var g Group
	h := &hooks{open: func(c *Conn) {
		for range 10 * slice {
			g.Join(&Member{Conn: c, Until: forever})
		}
	}, closed: func(*Conn, ws.StatusCode) {
		for g.Len() > 0 {
			g.Members()[0].Leave()
		}
	}}
	s := start(t, Options{PendingBytes: 64 << 20}, h)
	c := s.dial()
	l := s.loops[0]
	l.Post(func() {
		l.DeliverNow(&g, batch("to all"))
		l.beginDrain(0)
	})
	for range 10 * slice {
		c.want(ws.OpText, "to all")
	}
	c.wantClose(1012)
}

// With one processor, other goroutines run between slices.
func TestOthersRunBetweenSlices(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var g Group
	var runs atomic.Int64
	var idled, turns int // the loop's
	last := int64(0)
	h := &hooks{open: func(c *Conn) {
		for range 50 * slice {
			g.Join(&Member{Conn: c, Until: forever})
		}
	}}
	h.turn = func(l *Loop) bool {
		if l.fanout.empty() {
			return false
		}
		if n := runs.Load(); n == last {
			idled++
		} else {
			last = n
		}
		turns++
		return false
	}
	s := start(t, Options{PendingBytes: 64 << 20}, h)
	c := s.dial()
	s.ProcessorsChanged()
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				runs.Add(1)
				runtime.Gosched()
			}
		}
	}()
	s.loops[0].Post(func() { s.loops[0].DeliverNow(&g, batch("to all")) })
	for range 50 * slice {
		c.want(ws.OpText, "to all")
	}
	close(stop)
	<-ended
	s.Do(func(*Loop) {
		if turns < 40 || idled > turns/10 {
			t.Errorf("in %d of %d turns nobody else had run", idled, turns)
		}
	})
}
