package loop

import (
	"math"
	"slices"
)

// fanout is what a loop writes to its groups.
type fanout struct {
	lanes      [lanes]lane
	turn       int   // the lane behind the first that had its slice last
	backlog    int   // bytes that groups are due
	written    int   // bytes that the inbox has not been told of yet; less than 0: it has not been told of more
	prefetched int32 // has no meaning; it keeps prefetch's reads

	// Of a connection that is written to by connection; empty between two.
	joins  []int32 // the deliveries whose batches are joined
	joined []byte

	ended []ended // since the turn began

	firstBySlot []int32 // the first of a connection's deliveries, or none; all none but in list
}

// lane is the groups of about one size that are due something.
type lane struct {
	due []*Group // wait for the next round
	round
}

// round is the batches that are being written: of one group to member after member, of
// several to connection after connection, so that one that is in more than one of them
// receives what it is due with one write(2).
type round struct {
	groups     []*Group // none: no round is under way
	deliveries []delivery
	receivers  []receiver
	next       int // the receivers before it have been served
}

// delivery is the batch of one group for one member. The deliveries of a connection are
// a list.
type delivery struct {
	group      *Group
	member     *Member
	next, last int32 // indices in round.deliveries; last is kept in a list's first
}

// receiver is a connection and the first of its deliveries.
type receiver struct {
	conn  *Conn
	first int32
}

const (
	none = -1
	// maxDeliveries bounds the deliveries of a round of several groups.
	maxDeliveries = 8 << 10
	// maxJoined is the largest batch that is copied behind others to save a write(2): so
	// many bytes are copied in less time than the call takes.
	maxJoined = 16 << 10
	// flushJoined is the size at which joined batches are written.
	flushJoined = 64 << 10
)

func (f *fanout) empty() bool {
	for i := range f.lanes {
		if !f.lanes[i].empty() {
			return false
		}
	}
	return true
}

func (x *lane) empty() bool { return len(x.due)+len(x.groups) == 0 }

// laneOf is the lane of a group with so many members.
func laneOf(members int) uint8 {
	for i, most := range laneMembers {
		if members <= most {
			return uint8(i)
		}
	}
	return lanes - 1
}

// DeliverNow is [Loop.Deliver] from l's own goroutine: b is written behind what came before
// it.
func (l *Loop) DeliverNow(g *Group, b *Batch) {
	l.fanout.written -= len(b.b) // the inbox counts it, too
	if l.merge(g, b); l.fanout.backlog > inboxBytes {
		l.flush()
	}
}

// merge adds b to what g is due. It takes over a reference of b. Past mergeBytes another
// batch begins, so that those that wait for slow peers stay small.
func (l *Loop) merge(g *Group, b *Batch) {
	f := &l.fanout
	f.backlog += len(b.b)
	if g.due == nil {
		g.due, g.merged = b, false
		if g.writing == nil {
			g.lane = laneOf(len(g.members))
		}
		x := &f.lanes[g.lane]
		x.due = append(x.due, g)
		return
	}
	last := &g.due
	if n := len(g.more); n > 0 {
		last = &g.more[n-1]
	}
	if len((*last).b)+len(b.b) > l.eng.mergeBytes {
		g.more, g.merged = append(g.more, b), false
		return
	}
	if !g.merged {
		m := NewBatch()
		m.b, m.n, m.came = append(m.b, (*last).b...), (*last).n, (*last).came
		(*last).Release()
		*last, g.merged = m, true
	}
	m := *last
	m.b = append(m.b, b.b...)
	m.n += b.n
	if m.came == 0 {
		m.came = b.came
	}
	b.Release()
}

// flush writes all that groups are due.
func (l *Loop) flush() {
	for i := range l.fanout.lanes {
		l.finish(&l.fanout.lanes[i])
	}
}

// finish writes all that the groups of a lane are due.
func (l *Loop) finish(x *lane) { l.writeSlice(x, math.MaxInt) }

// writeSlice writes to n members, or as often, of what the groups of a lane are due.
func (l *Loop) writeSlice(x *lane, n int) {
	for n > 0 && !x.empty() {
		if len(x.groups) == 0 {
			l.begin(x)
		}
		done := false
		if len(x.groups) == 1 {
			g := x.groups[0]
			n -= l.writeMembers(g, n)
			done = g.left == 0
		} else {
			n -= l.writeReceivers(&x.round, n)
			done = x.next == len(x.receivers)
		}
		if done {
			l.end(&x.round)
		}
	}
}

// begin begins a round: it takes the groups that became due first.
func (l *Loop) begin(x *lane) {
	n, members := 0, 0
	for ; n < len(x.due); n++ {
		if members += len(x.due[n].members); n > 0 && members > maxDeliveries {
			break
		}
	}
	x.groups = append(x.groups, x.due[:n]...)
	rest := copy(x.due, x.due[n:])
	clear(x.due[rest:])
	x.due = x.due[:rest]
	for _, g := range x.groups {
		g.writing, g.due = g.due, nil
		if len(g.more) > 0 { // the next round has that, behind the groups that wait already
			g.due = g.more[0]
			g.more = slices.Delete(g.more, 0, 1)
			x.due = append(x.due, g)
		}
	}
	if n == 1 {
		x.groups[0].left = int32(len(x.groups[0].members))
	} else {
		l.list(&x.round)
	}
}

// end ends a round of which all has been written.
func (l *Loop) end(r *round) {
	for _, g := range r.groups {
		b := g.writing
		g.writing = nil
		l.stat.batch(b.n)
		l.fanout.noteEnd(b)
		l.fanout.backlog -= len(b.b)
		l.fanout.written += len(b.b)
		b.Release()
	}
	clear(r.groups)
	clear(r.deliveries)
	clear(r.receivers)
	*r = round{groups: r.groups[:0], deliveries: r.deliveries[:0], receivers: r.receivers[:0]}
}

// heavyBytes is how much of a batch takes as long as the call of write(2) that sends it: so
// many bytes count as one write more in a slice.
const heavyBytes = 16 << 10

// clockEvery is after how many members, at 4 µs and more each, a slice looks at
// the clock again: a batch for 10,000 must not outlive a token by the time
// that the first 9,999 took.
const clockEvery = 64

// prefetchMembers is how many members' records are read before the first of them is
// written to. Between two events that are some time apart other data has filled the
// cache. Read one at a time, with a system call in between, each record waits for
// memory; these are fetched side by side.
const prefetchMembers = 16

func (l *Loop) prefetch(members []*Member) {
	x := int32(0)
	for _, m := range members {
		x += m.Conn.fd + int32(m.Conn.state)
	}
	l.fanout.prefetched = x
}

// writeMembers writes g's batch to n of its members, fewer of a large batch: one write(2) a member, no copy. It
// returns what part of a slice that took. A member may join or leave between two slices, and that
// in hand within one, when it has expired: see [Member.Leave]. Those whose connections
// fail leave after the turn (see endAfterTurn).
func (l *Loop) writeMembers(g *Group, n int) (spent int) {
	b, served := g.writing, 0
	each := 1 + len(b.b)/heavyBytes
	for i := 0; g.left > 0 && spent < n; i++ {
		if l.unclocked++; l.unclocked >= clockEvery {
			l.readClock()
		}
		if i%prefetchMembers == 0 {
			l.prefetch(g.members[max(0, g.left-prefetchMembers):g.left])
		}
		g.left--
		m := g.members[g.left]
		switch {
		case m.Conn.state != stateOpen:
			spent++
		case l.now >= m.Until:
			l.eng.handler.Expired(m)
			spent++
		default:
			b = m.sendShared(b)
			served++
			spent += each
		}
	}
	g.writing = b
	l.stat.served(b.n, served)
	return spent
}

// list lists the deliveries of a round by connection.
func (l *Loop) list(r *round) {
	f := &l.fanout
	for len(f.firstBySlot) < len(l.conns) {
		f.firstBySlot = append(f.firstBySlot, none)
	}
	for _, g := range r.groups {
		for _, m := range g.members {
			i := int32(len(r.deliveries))
			r.deliveries = append(r.deliveries, delivery{g, m, none, i})
			if first := &f.firstBySlot[m.Conn.slot]; *first == none {
				*first = i
				r.receivers = append(r.receivers, receiver{m.Conn, i})
			} else {
				last := &r.deliveries[*first].last
				r.deliveries[*last].next = i
				*last = i
			}
		}
	}
	for _, x := range r.receivers {
		f.firstBySlot[x.conn.slot] = none
	}
}

// writeReceivers writes to the next receivers, n times or a little more often. It returns
// how often, a receiver counting once at least.
func (l *Loop) writeReceivers(r *round, n int) (times int) {
	for ; r.next < len(r.receivers) && times < n; r.next++ {
		writes, bytes := l.stat.writes, l.stat.bytesOut
		l.writeReceiver(r, r.receivers[r.next])
		times += max(1, int(l.stat.writes-writes)) + int(l.stat.bytesOut-bytes)/heavyBytes
	}
	return times
}

func (l *Loop) writeReceiver(r *round, to receiver) {
	f, c := &l.fanout, to.conn
	for i := to.first; i != none; i = r.deliveries[i].next {
		if l.unclocked++; l.unclocked >= clockEvery {
			l.readClock()
		}
		g, m := r.deliveries[i].group, r.deliveries[i].member
		switch {
		case c.state != stateOpen || m.group != g: // it has left
		case l.now >= m.Until:
			l.sendJoined(r, c) // before c is closed, perhaps
			l.eng.handler.Expired(m)
		case len(g.writing.b) > maxJoined || r.deliveries[to.first].next == none:
			l.sendJoined(r, c)
			g.writing = m.sendShared(g.writing)
			l.stat.served(g.writing.n, 1)
		default:
			f.joined = append(f.joined, g.writing.b...)
			f.joins = append(f.joins, i)
			l.stat.served(g.writing.n, 1)
			if len(f.joined) >= flushJoined {
				l.sendJoined(r, c)
			}
		}
	}
	l.sendJoined(r, c)
}

// sendJoined writes what is joined, the batches of the deliveries in joins, to c.
func (l *Loop) sendJoined(r *round, c *Conn) {
	f := &l.fanout
	if len(f.joins) == 0 {
		return
	}
	if l.cork.conn == c {
		l.cork.release()
	}
	n, ok := 0, c.state == stateOpen
	if ok && c.out == nil {
		n, ok = c.write(f.joined)
	}
	for _, i := range f.joins {
		x := &r.deliveries[i]
		size := len(x.group.writing.b)
		if ok && n < size && c.state == stateOpen {
			x.group.writing = c.keepPending(x.group.writing, n, x.member)
		}
		n = max(0, n-size)
	}
	f.joins, f.joined = f.joins[:0], f.joined[:0]
}
