package loop

// fanout is what a loop writes to its groups.
type fanout struct {
	due        []*Group // those with a batch to be written
	unflushed  int      // bytes that DeliverNow has merged since the last flush
	prefetched int32    // has no meaning; it keeps prefetch's reads

	// Of flushByConn; empty between flushes, but for firstBySlot.
	deliveries  []delivery
	receivers   []*Conn
	firstBySlot []int32 // the first of a connection's deliveries, or none
	joins       []int32 // the deliveries whose batches are joined
	joined      []byte
}

// DeliverNow is [Loop.Deliver] from l's own goroutine: b is written in this turn,
// behind what came before it.
func (l *Loop) DeliverNow(g *Group, b *Batch) {
	f := &l.fanout
	f.unflushed += len(b.b)
	if l.merge(g, b); f.unflushed > maxUnflushed {
		l.flush()
	}
}

// maxUnflushed bounds what DeliverNow merges before it is written.
const maxUnflushed = 1 << 20

// merge adds b to what g is due this turn. It takes over a reference of b.
// Past mergeBytes the group is flushed at once and a new batch begun, so that a
// turn's memory does not grow with what the inbox held.
func (l *Loop) merge(g *Group, b *Batch) {
	switch {
	case g.due == nil:
		g.due, g.merged = b, false
		l.fanout.due = append(l.fanout.due, g)
		return
	case len(g.due.b)+len(b.b) > l.eng.mergeBytes:
		l.flushGroup(g)
		g.due, g.merged = b, false
		return
	case !g.merged:
		m := NewBatch()
		m.b, m.n = append(m.b, g.due.b...), g.due.n
		g.due.Release()
		g.due, g.merged = m, true
	}
	g.due.b = append(g.due.b, b.b...)
	g.due.n += b.n
	b.Release()
}

// flush writes what every group is due.
func (l *Loop) flush() {
	f := &l.fanout
	f.unflushed = 0
	switch len(f.due) {
	case 0:
		return
	case 1:
		l.flushGroup(f.due[0])
	default:
		l.flushByConn()
	}
	clear(f.due)
	f.due = f.due[:0]
}

// clockEvery is after how many members, at 4 µs and more each, a flush looks at
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

// flushGroup writes g's batch to each member: one write(2) a member, no copy.
// The member in hand may leave during the walk, when it has expired; walking
// from the end makes that move only members that were already served. Those
// whose connections fail leave after it (see endAfterTurn).
func (l *Loop) flushGroup(g *Group) {
	b := g.due
	g.due = nil
	n := len(g.members)
	served := 0
	for i := n - 1; i >= 0; i-- {
		if l.unclocked++; l.unclocked >= clockEvery {
			l.readClock()
		}
		if (n-1-i)%prefetchMembers == 0 {
			l.prefetch(g.members[max(0, i+1-prefetchMembers) : i+1])
		}
		m := g.members[i]
		switch {
		case m.Conn.state != stateOpen:
		case l.now >= m.Until:
			l.eng.handler.Expired(m)
		default:
			b = m.sendShared(b)
			served++
		}
	}
	l.stat.batch(b.n)
	l.stat.served(b.n, served)
	b.Release()
}

// delivery is the batch of one group for one member, when several groups are due. The
// deliveries of a connection are a list.
type delivery struct {
	group      *Group
	member     *Member
	next, last int32 // indices in fanout.deliveries; last is kept in a list's first
}

const (
	none = -1
	// maxDeliveries bounds how many deliveries are listed before they are written, but
	// for those of one group.
	maxDeliveries = 4 << 10
	// maxJoined is the largest batch that is copied behind others to save a write(2): so
	// many bytes are copied in less time than the call takes.
	maxJoined = 16 << 10
	// flushJoined is the size at which joined batches are written.
	flushJoined = 64 << 10
)

// flushByConn is flushGroup for several groups: a connection that is in more than one
// receives what it is due with one write(2).
func (l *Loop) flushByConn() {
	f := &l.fanout
	for len(f.firstBySlot) < len(l.conns) {
		f.firstBySlot = append(f.firstBySlot, none)
	}
	for _, g := range f.due {
		for _, m := range g.members {
			i := int32(len(f.deliveries))
			f.deliveries = append(f.deliveries, delivery{g, m, none, i})
			if first := &f.firstBySlot[m.Conn.slot]; *first == none {
				*first = i
				f.receivers = append(f.receivers, m.Conn)
			} else {
				last := &f.deliveries[*first].last
				f.deliveries[*last].next = i
				*last = i
			}
		}
		if len(f.deliveries) >= maxDeliveries {
			l.writeDeliveries()
		}
	}
	l.writeDeliveries()
	for _, g := range f.due {
		l.stat.batch(g.due.n)
		g.due.Release()
		g.due = nil
	}
}

// writeDeliveries writes the deliveries that are listed.
func (l *Loop) writeDeliveries() {
	f := &l.fanout
	for _, c := range f.receivers {
		first := f.firstBySlot[c.slot]
		f.firstBySlot[c.slot] = none
		for i := first; i != none; i = f.deliveries[i].next {
			if l.unclocked++; l.unclocked >= clockEvery {
				l.readClock()
			}
			g, m := f.deliveries[i].group, f.deliveries[i].member
			switch {
			case c.state != stateOpen || m.group != g: // it left when another expired
			case l.now >= m.Until:
				l.sendJoined(c) // before c is closed, perhaps
				l.eng.handler.Expired(m)
			case len(g.due.b) > maxJoined || f.deliveries[first].next == none:
				l.sendJoined(c)
				g.due = m.sendShared(g.due)
				l.stat.served(g.due.n, 1)
			default:
				f.joined = append(f.joined, g.due.b...)
				f.joins = append(f.joins, i)
				l.stat.served(g.due.n, 1)
				if len(f.joined) >= flushJoined {
					l.sendJoined(c)
				}
			}
		}
		l.sendJoined(c)
	}
	clear(f.receivers)
	f.receivers = f.receivers[:0]
	clear(f.deliveries)
	f.deliveries = f.deliveries[:0]
}

// sendJoined writes what is joined, the batches of the deliveries in joins, to c.
func (l *Loop) sendJoined(c *Conn) {
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
		x := &f.deliveries[i]
		size := len(x.group.due.b)
		if ok && n < size && c.state == stateOpen {
			x.group.due = c.keepPending(x.group.due, n, x.member)
		}
		n = max(0, n-size)
	}
	f.joins, f.joined = f.joins[:0], f.joined[:0]
}
