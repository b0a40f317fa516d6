package loop

// Group is a set of connections of one loop that receive the same batches.
// Only its loop's goroutine may use it; other goroutines name it in
// [Loop.Deliver]. The zero Group is empty and ready.
type Group struct {
	members []*Member
	// due is what was delivered and waits to be written, merged; more is the batches behind it.
	due  *Batch
	more []*Batch
	// writing is what members get now; of them, the first left have not got it yet, unless
	// it is written by connection (see round).
	writing *Batch
	left    int32
	// merged says that the last of them was made by this loop and may be appended to.
	merged bool
	// lane is where the group stands while it is due something.
	lane uint8
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
	at, last := m.at, len(g.members)-1
	if at < g.left { // the last of those that wait takes its place, or one would get the batch twice
		g.left--
		g.move(g.left, at)
		at = g.left
	}
	if at < int32(last) { // else that place is empty already: all who had the batch have left
		g.move(int32(last), at)
	}
	g.members[last] = nil
	g.members = g.members[:last]
	m.group = nil
	if cap(g.members) > 64 && last < cap(g.members)/4 {
		g.members = append(make([]*Member, 0, cap(g.members)/2), g.members...)
	}
}

func (g *Group) move(from, to int32) {
	m := g.members[from]
	g.members[to] = m
	m.at = to
}
