package loop

// Group is a set of connections of one loop that receive the same batches.
// Only its loop's goroutine may use it; other goroutines name it in
// [Loop.Deliver]. The zero Group is empty and ready.
type Group struct {
	members []*Member
	// due is what this turn's inbox brought, merged; nil between turns.
	due *Batch
	// merged says that due was made by this loop and may be appended to.
	merged bool
}

// Member is a connection's place in a group. It is meant to be embedded in
// what the handler keeps of a subscription; its memory is the handler's.
type Member struct {
	// Conn receives the group's batches.
	Conn *Conn
	// Until is when deliveries end, in Unix nanoseconds; at that instant and
	// after it none is made and [Handler.Expired] is called instead.
	Until int64
	group *Group
	at    int32
}

// Group returns the group that m is in, or nil.
func (m *Member) Group() *Group { return m.group }

// Len is the number of members.
func (g *Group) Len() int { return len(g.members) }

// Members are the members, in no order. The slice is g's; it changes with the
// next Join or Leave.
func (g *Group) Members() []*Member { return g.members }

// Join puts m into g. m must not be in a group, and m.Conn not in g already.
func (g *Group) Join(m *Member) {
	m.group = g
	m.at = int32(len(g.members))
	g.members = append(g.members, m)
}

// Leave takes m out of its group; outside of one it does nothing.
func (m *Member) Leave() {
	g := m.group
	if g == nil {
		return
	}
	last := len(g.members) - 1
	moved := g.members[last]
	g.members[m.at] = moved
	moved.at = m.at
	g.members[last] = nil
	g.members = g.members[:last]
	m.group = nil
	if cap(g.members) > 64 && last < cap(g.members)/4 {
		g.members = append(make([]*Member, 0, cap(g.members)/2), g.members...)
	}
}

// DeliverNow is [Loop.Deliver] from l's own goroutine: b is written in this turn,
// behind what came before it.
func (l *Loop) DeliverNow(g *Group, b *Batch) {
	l.gathered += len(b.B)
	if l.gather(g, b); l.gathered > maxGathered {
		l.flush()
	}
}

// maxGathered bounds what DeliverNow gathers before it is written.
const maxGathered = 1 << 20

// gather adds b to what g is due this turn. It takes over a reference of b.
// Past mergeBytes the group is flushed at once and a new batch begun, so that a
// turn's memory does not grow with what the inbox held.
func (l *Loop) gather(g *Group, b *Batch) {
	switch {
	case g.due == nil:
		g.due, g.merged = b, false
		l.due = append(l.due, g)
		return
	case len(g.due.B)+len(b.B) > l.eng.mergeBytes:
		l.flushGroup(g)
		g.due, g.merged = b, false
		return
	case !g.merged:
		m := NewBatch()
		m.B, m.N = append(m.B, g.due.B...), g.due.N
		g.due.Release()
		g.due, g.merged = m, true
	}
	g.due.B = append(g.due.B, b.B...)
	g.due.N += b.N
	b.Release()
}

// flush writes what every group is due.
func (l *Loop) flush() {
	l.gathered = 0
	switch len(l.due) {
	case 0:
		return
	case 1:
		l.flushGroup(l.due[0])
	default:
		l.flushGroups()
	}
	clear(l.due)
	l.due = l.due[:0]
}

// clockEvery is after how many members, at 4 µs and more each, a flush looks at
// the clock again: a batch for 10,000 must not outlive a token by the time
// that the first 9,999 took.
const clockEvery = 64

// ahead is how many members' records are looked at before the first of them is written
// to. Between two events that are some time apart others have used the cache, and a
// record at a time, with a system call in between, waits for memory each time; these are
// fetched side by side.
const ahead = 16

func (l *Loop) touch(members []*Member) {
	x := int32(0)
	for _, m := range members {
		x += m.Conn.fd + int32(m.Conn.state)
	}
	l.touched = x
}

// flushGroup writes g's batch to each member: one write(2) a member, no copy.
// The member in hand may leave during the walk, when it has expired; walking
// from the end makes that move only members that were already served. Those
// whose connections fail leave after it (see endLater).
func (l *Loop) flushGroup(g *Group) {
	b := g.due
	g.due = nil
	n := len(g.members)
	served := 0
	for i := n - 1; i >= 0; i-- {
		if l.unclocked++; l.unclocked >= clockEvery {
			l.readClock()
		}
		if (n-1-i)%ahead == 0 {
			l.touch(g.members[max(0, i+1-ahead) : i+1])
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
	l.stat.batch(b.N)
	l.stat.served(b.N, served)
	b.Release()
}

// share is what a member is due when several groups are: the group's batch. A
// connection's shares are a list.
type share struct {
	group      *Group
	member     *Member
	next, last int32 // indices in Loop.shares; last is that of the first share's list
}

const (
	none = -1
	// maxShares bounds how many shares are listed before they are written, but for those
	// of one group.
	maxShares = 4 << 10
	// maxJoined is the largest batch that is copied behind others to save a write(2): so
	// many bytes are copied in less time than the call takes.
	maxJoined = 16 << 10
	// manyJoined is when what is joined is written.
	manyJoined = 64 << 10
)

// flushGroups is flushGroup for several groups: a connection that is in more than one
// gets what it is due with one write(2).
func (l *Loop) flushGroups() {
	for len(l.firsts) < len(l.conns) {
		l.firsts = append(l.firsts, none)
	}
	for _, g := range l.due {
		for _, m := range g.members {
			i := int32(len(l.shares))
			l.shares = append(l.shares, share{g, m, none, i})
			if first := &l.firsts[m.Conn.slot]; *first == none {
				*first = i
				l.sharers = append(l.sharers, m.Conn)
			} else {
				last := &l.shares[*first].last
				l.shares[*last].next = i
				*last = i
			}
		}
		if len(l.shares) >= maxShares {
			l.deal()
		}
	}
	l.deal()
	for _, g := range l.due {
		l.stat.batch(g.due.N)
		g.due.Release()
		g.due = nil
	}
}

// deal writes the shares that are listed.
func (l *Loop) deal() {
	for _, c := range l.sharers {
		first := l.firsts[c.slot]
		l.firsts[c.slot] = none
		for i := first; i != none; i = l.shares[i].next {
			if l.unclocked++; l.unclocked >= clockEvery {
				l.readClock()
			}
			g, m := l.shares[i].group, l.shares[i].member
			switch {
			case c.state != stateOpen || m.group != g: // it left when another expired
			case l.now >= m.Until:
				l.sendJoined(c) // before c is closed, perhaps
				l.eng.handler.Expired(m)
			case len(g.due.B) > maxJoined || l.shares[first].next == none:
				l.sendJoined(c)
				g.due = m.sendShared(g.due)
				l.stat.served(g.due.N, 1)
			default:
				l.joined = append(l.joined, g.due.B...)
				l.joins = append(l.joins, i)
				l.stat.served(g.due.N, 1)
				if len(l.joined) >= manyJoined {
					l.sendJoined(c)
				}
			}
		}
		l.sendJoined(c)
	}
	clear(l.sharers)
	l.sharers = l.sharers[:0]
	clear(l.shares)
	l.shares = l.shares[:0]
}

// sendJoined writes what is joined, the batches of the shares in joins, to c.
func (l *Loop) sendJoined(c *Conn) {
	if len(l.joins) == 0 {
		return
	}
	if l.corked == c {
		l.uncork()
	}
	n, ok := 0, c.state == stateOpen
	if ok && c.out == nil {
		n, ok = c.write(l.joined)
	}
	for _, i := range l.joins {
		x := &l.shares[i]
		size := len(x.group.due.B)
		if ok && n < size && c.state == stateOpen {
			x.group.due = c.owe(x.group.due, n, x.member)
		}
		n = max(0, n-size)
	}
	l.joins, l.joined = l.joins[:0], l.joined[:0]
}
