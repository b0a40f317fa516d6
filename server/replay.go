package server

import (
	"bytes"
	"math"
	"sync/atomic"
	"time"

	"github.com/notifyd/notifyd/authz"
	"github.com/notifyd/notifyd/server/loop"
	"github.com/notifyd/notifyd/wire"
)

// A subscription to a durable topic begins at a position of its stream and goes from there
// to the live events, without a hole and without a repeat:
//
//	begin     the stream's leader is asked how far it is, and what since asks for becomes
//	          a position
//	step      a chunk of events is read (chunks.go) and sent, when the socket has taken
//	          the one before; again, until nothing follows but what this node has in memory
//	join      the stream's feed is asked to call when it has passed on all of that. It
//	          calls between two events
//	joinAt    on the loop, in the place of that call among the events that are delivered:
//	          what is before it has been delivered, and the replay reads it from memory;
//	          what is behind it comes by the topic's group, which the subscription joins
//
// Nobody waits with a replay: workers and the feed post what they have found out to the
// loop. The token is checked before anything is sent.

// replay is what a subscription has on that way. Its loop's goroutine alone touches it.
type replay struct {
	server *Server
	sub    *sub
	home   *home
	group  loop.Group // the subscription's until it joins its topic's: see loop.Member.Send
	ended  bool
	gone   atomic.Bool // ended, for others to see

	began time.Time
	id    []byte // of the subscribe
	acked bool   // the subscribe has been answered
	since wire.Since
	bound time.Duration // of the token's history
	floor int64         // what was stored before may not be read; math.MinInt64: all may

	epoch      string
	head       uint64 // the stream's last event when the replay began
	at         uint64 // everything up to here was sent
	first      uint64 // the oldest event that may be read, where not complete
	complete   bool
	lastOfEach bool   // only the last event of each topic, up to head
	read       *chunk // comes next, and waits for the replay's turn
	tail       *chunk // the last before the join; it is sent there
	empty      int    // reads in a row that have found neither events nor the end

	pinned bool // the topic's group stays, although it may be empty
	queued bool // in loopState.steps
	paused bool // until the socket has taken what was sent
}

const (
	// replayWorkers is how many read streams at a time.
	replayWorkers = 8
	// streamTimeout bounds a question to a stream.
	streamTimeout = 5 * time.Second
	// emptyReads is how often a server that is behind is asked again, after emptyPause.
	emptyReads = 100
	emptyPause = 50 * time.Millisecond
)

// beginAt begins a subscription to a durable topic, or begins it anew.
func (r *request) beginAt(x *sub, since wire.Since) {
	if x.replay != nil {
		x.replay.stop("another subscribe has replaced it")
	}
	r.leaveGroup(x)
	if since.Kind == wire.SinceLast && since.N == 0 {
		since = wire.Since{}
	}
	since.Epoch = bytes.Clone(since.Epoch)
	p := &replay{
		server: r.Server, sub: x, home: x.topic.home, began: time.Now(), id: bytes.Clone(r.env.ID), since: since,
		bound: x.token.History(), floor: floorOf(x.token, r.now()),
		lastOfEach: since.Kind == wire.SinceLast && x.topic.wild,
	}
	x.replay = p
	if since.Kind != wire.SinceNone {
		p.server.replaying.Add(1)
	}
	p.group.Join(&x.Member)
	r.ses.unconfirmed++
	x.unconfirmed++
	p.begin()
}

// floorOf is the time, in Unix nanoseconds, before which a token reads no history.
func floorOf(token *authz.Token, now int64) int64 {
	switch bound := token.History(); {
	case bound == 0:
		return math.MinInt64
	case bound < 0:
		return now
	default:
		return now - int64(bound)
	}
}

// loop is the subscription's.
func (p *replay) loop() *loop.Loop { return p.sub.Conn.Loop() }

// post has the loop call f, unless the replay has ended by then.
func (p *replay) post(f func()) {
	p.loop().Post(func() {
		if !p.ended {
			f()
		}
	})
}

// begin asks the leader, and turns what since asks for into a position.
func (p *replay) begin() {
	s := p.server
	s.askHead(p.home, func(head wire.StreamHead, err error) {
		p.post(func() {
			if err != nil {
				p.fail()
				return
			}
			b := beginning{since: p.since, floor: p.floor}
			if b.from(head); !b.seeks() {
				p.beginsAt(&b)
				return
			}
			if !s.replays.push(job{run: func() {
				err := s.seek(&b, p.home, p.sub.topic.name)
				p.post(func() {
					if err != nil {
						p.fail()
						return
					}
					p.beginsAt(&b)
				})
			}}) {
				p.fail()
			}
		})
	})
}

func (p *replay) beginsAt(b *beginning) {
	epoch := b.head.Epoch
	p.home.epoch.Store(&epoch)
	p.epoch, p.head, p.at, p.complete, p.first = epoch, b.head.Last, b.after, b.complete, b.first
	if p.since.Kind == wire.SinceNone {
		p.schedule()
		return
	}
	p.stepsAtHead()
}

// stepsAtHead schedules a step. What an ack counts has to be in this node's memory by then.
func (p *replay) stepsAtHead() {
	if p.acked {
		p.schedule()
		return
	}
	p.home.At(p.head, func(uint64, string, bool) { p.post(p.schedule) })
}

// schedule has the loop take the next step, in turn with other replays.
func (p *replay) schedule() {
	if p.queued {
		return
	}
	p.queued = true
	st, l := stateOf(p.loop()), p.loop()
	st.steps = append(st.steps, p)
	if len(st.steps) == 1 {
		l.Post(func() { p.server.takeSteps(l) })
	}
}

// stepsPerTurn is how many replays a loop lets go on in a turn: each may send a chunk, and
// live events must not wait for thousands of those.
const stepsPerTurn = 32

func (s *Server) takeSteps(l *loop.Loop) {
	st := stateOf(l)
	now := st.steps[:min(len(st.steps), stepsPerTurn)]
	for i, p := range now {
		p.queued = false
		if !p.ended {
			p.step()
		}
		now[i] = nil
	}
	if st.steps = st.steps[len(now):]; len(st.steps) > 0 {
		l.Post(func() { s.takeSteps(l) })
	} else {
		st.steps = nil
	}
}

// step reads what comes next, if the socket has taken what came before.
func (p *replay) step() {
	if !p.check() {
		return
	}
	c := p.read
	p.read = nil
	if p.sub.Conn.Pending() > 0 {
		c.release()
		p.pause()
		return
	}
	if c != nil {
		p.have(c, nil)
		return
	}
	if p.since.Kind == wire.SinceNone && !p.acked {
		p.join() // nothing is read
		return
	}
	key := p.next()
	if c := p.server.chunks.have(key, p.head, !p.acked); c != nil {
		p.have(c, nil)
		return
	}
	p.server.readChunk(key, nil, p.head, !p.acked, waitingRead{&p.gone, func(c *chunk, err error) {
		p.loop().Post(func() { p.came(c, err) })
	}})
}

// came has a chunk that was read wait for the replay's turn: many may have waited for it.
func (p *replay) came(c *chunk, err error) {
	if p.ended || err != nil {
		p.have(c, err)
		return
	}
	p.read = c
	p.schedule()
}

// have acts on a chunk that was read. It takes over the reference.
func (p *replay) have(c *chunk, err error) {
	switch {
	case p.ended || !p.check():
		c.release()
		return
	case err != nil:
		p.fail()
		return
	case c.count == 0 && !c.final: // a server that is behind
		c.release()
		if p.empty++; p.empty > emptyReads {
			p.fail()
			return
		}
		time.AfterFunc(emptyPause, func() { p.post(p.schedule) })
		return
	}
	since, known := p.countSince(c)
	if !known && !p.acked { // another replay was waiting for it
		c.release()
		p.schedule()
		return
	}
	p.empty = 0
	if p.sub.Conn.Pending() > 0 { // another replay of the connection has filled the socket
		c.release()
		p.pause()
		return
	}
	if c.oldest < p.floor { // the token in hand reads less than the one of the subscribe
		c.release()
		p.end(wire.HistoryUnavailable, "the new token does not read so far back")
		return
	}
	switch discarded := c.first > p.at+1 && p.at > 0; { // meanwhile
	case discarded && p.acked:
		p.gap("", p.at, c.first)
	case discarded:
		p.complete, p.first = false, c.first
	}
	if c.final && known && (p.acked || c.bytes() <= tailBytes) {
		p.tail = c
		p.join()
		return
	}
	seq := p.head
	if c.final {
		seq = max(seq, c.end()) // all that was counted
	}
	p.ack(seq, c.count+c.more+since)
	p.server.readAhead(p.key(p.at), c.page, p.head, &p.gone)
	p.send(c)
	p.schedule()
}

// countSince is how many events an ack has to count beside those that a chunk knows of: they
// were stored since it was read. known is false where this node does not remember them.
func (p *replay) countSince(c *chunk) (n uint64, known bool) {
	switch counted, _ := c.counted(); {
	case c.upTo >= p.head:
		known = true
	case !c.isBefore(p.head, p.home.RecentFrom()):
		known = p.home.Recent(counted, p.head, p.sub.topic.name, func(*wire.StoredEvent) bool {
			n++
			return true
		})
	}
	return n, known
}

// send sends a chunk, whose reference it takes over.
func (p *replay) send(c *chunk) {
	if c.batch != nil {
		c.batch.Retain(1)
		p.sub.Send(c.batch)
		counts := &stateOf(p.loop()).counts
		counts.replayed += c.count
		switch {
		case c.recent:
			counts.chunks[fromMemory]++
		case c.sent.Swap(true):
			counts.chunks[fromOther]++
		default:
			counts.chunks[fromStream]++
		}
	}
	p.at = c.end()
	c.release()
}

// gap tells the client that events are gone.
func (p *replay) gap(epoch string, after, first uint64) {
	st := stateOf(p.loop())
	st.send(p.sub.Conn, wire.AppendGap(st.reply[:0], p.sub.topic.name, epoch, after, first))
}

// pause waits until the socket has taken what was sent: see [Server.drained].
func (p *replay) pause() {
	if !p.paused {
		p.paused = true
		sessionOf(p.sub.Conn).pausedReplays++
	}
}

func (p *replay) goOn() {
	if p.paused {
		p.paused = false
		sessionOf(p.sub.Conn).pausedReplays--
	}
}

// drained goes on with the replays of a connection whose socket has taken everything.
func (s *Server) drained(c *loop.Conn) {
	ses := sessionOf(c)
	if ses.pausedReplays == 0 {
		return
	}
	ses.each(func(x *sub) {
		if x.replay != nil && x.replay.paused {
			x.replay.goOn()
			x.replay.schedule()
		}
	})
}

// join has the feed call joinAt once it has passed on all that the replay knows of.
func (p *replay) join() {
	if !p.pinned {
		p.pinned = true
		p.server.pin(p.sub)
	}
	after := max(p.at, p.head)
	if p.tail != nil {
		after = max(after, p.tail.end())
	}
	g := p.sub.topic.groupOf(p.sub.Conn).Load() // it stays while it is pinned
	p.home.At(after, func(position uint64, epoch string, ok bool) {
		p.loop().DeliverFunc(0, func() {
			if !p.ended {
				p.joinAt(position, epoch, ok)
			}
		}, g)
	})
}

// joinAt ends the replay: the feed has passed on everything up to position, and all of it
// was delivered to the topic's group.
func (p *replay) joinAt(position uint64, epoch string, ok bool) {
	switch {
	case !p.check():
		return
	case !ok:
		p.notReached()
		return
	case epoch != p.epoch:
		p.otherLife()
		return
	}
	x := p.sub
	if x.Conn.Pending() > 0 && (p.since.Kind != wire.SinceNone || p.acked) {
		p.tail.release()
		p.tail = nil
		p.pause()
		return
	}
	from, count := p.at, uint64(0)
	if p.tail != nil {
		from, count = p.tail.end(), p.tail.count
	}
	rest := p.encoding(from)
	rest.recent = true
	whole, reaches := true, true
	if p.since.Kind != wire.SinceNone || p.acked {
		reaches = p.home.Recent(from, position, x.topic.name, func(e *wire.StoredEvent) bool { return rest.add(e) < joinBytes })
		if !reaches {
			rest.drop()
		}
		whole = reaches && rest.size() < joinBytes
		count += rest.count
	}
	switch {
	case whole:
		p.ack(position, count)
	case !p.acked: // how many follow what was read some time ago is not known: it is read again
		rest.drop()
		p.server.chunks.discard(p.next(), p.tail)
		p.tail.release()
		p.tail = nil
		p.lookAgain()
		return
	}
	if p.tail != nil {
		p.send(p.tail)
		p.tail = nil
	}
	p.send(rest.finish())
	switch {
	case whole:
		x.Leave()
		p.server.joinGroup(x)
		if p.since.Kind != wire.SinceNone {
			p.server.answers.replays.Observe(time.Since(p.began).Seconds())
		}
		p.over() // not before: events are on their way to the group already
	case reaches:
		p.schedule() // there is more than may be sent in one turn
	default:
		p.lookAgain() // the node does not remember so far back any more
	}
}

const (
	// joinBytes is how much is sent, at most, when a subscription joins its topic's group.
	joinBytes = 64 << 10
	// tailBytes is how much of that may be the first that is sent. The feed may let thousands
	// join in one turn; larger chunks are sent before, in turn with other replays.
	tailBytes = 4 << 10
)

// encoding begins to encode what this node remembers, for the client.
func (p *replay) encoding(after uint64) encoding {
	return p.server.encoding(p.key(after))
}

// key is that of the chunk behind a position.
func (p *replay) key(after uint64) chunkKey {
	return chunkKey{home: p.home, epoch: p.epoch, pattern: p.sub.topic.name, after: after, events: p.sub.Conn.IsStream()}
}

// next is the key of the chunk that comes next.
func (p *replay) next() chunkKey {
	key := p.key(p.at)
	if p.lastOfEach && p.at < p.head {
		key.upTo = p.head
	}
	return key
}

// lookAgain asks the leader again how far it is, and goes on from where the replay stands.
func (p *replay) lookAgain() {
	p.server.askHead(p.home, func(head wire.StreamHead, err error) {
		p.post(func() {
			switch {
			case err != nil:
				p.fail()
			case head.Epoch != p.epoch:
				p.beginAnew(head)
			default:
				p.head = head.Last
				p.stepsAtHead()
			}
		})
	})
}

// notReached acts on a feed that does not come to where the replay is: the stream may have
// been made anew.
func (p *replay) notReached() {
	p.server.askHead(p.home, func(head wire.StreamHead, err error) {
		p.post(func() {
			if err != nil || head.Epoch == p.epoch {
				p.fail()
				return
			}
			p.tail.release()
			p.tail = nil
			p.beginAnew(head)
		})
	})
}

// otherLife acts on a feed that is in another life of the stream than the replay.
func (p *replay) otherLife() {
	p.tail.release()
	p.tail = nil
	if p.empty++; p.empty > emptyReads {
		p.fail()
		return
	}
	time.AfterFunc(emptyPause, func() { p.post(p.lookAgain) }) // one of them is behind
}

// beginAnew goes on with all that there is in another life of the stream.
func (p *replay) beginAnew(head wire.StreamHead) {
	p.home.epoch.Store(&head.Epoch)
	p.epoch, p.head, p.at, p.first, p.lastOfEach = head.Epoch, head.Last, 0, head.First, false
	switch {
	case p.acked:
		p.gap(head.Epoch, 0, head.First)
	case p.since.Kind != wire.SinceNone:
		p.complete = false
	}
	p.schedule()
}

// ack answers the subscribe, if it has not been answered. Everything that matches up to
// seq, count events, follows or was not asked for.
func (p *replay) ack(seq, count uint64) {
	if p.acked {
		return
	}
	if x, st := p.sub, stateOf(p.loop()); len(p.id) > 0 {
		st.send(x.Conn, wire.AppendResumeAck(st.reply[:0], p.id, x.token.ExpSeconds(), &wire.Resumption{
			Stream: p.home.Name(), Epoch: p.epoch, Seq: seq, Recovered: count, Complete: p.complete, First: p.first,
		}))
	}
	p.settle()
}

// settle notes that the subscribe is answered. What its connection sent behind it may go
// on then, in a turn of its own.
func (p *replay) settle() {
	if p.acked {
		return
	}
	p.acked = true
	s, c := p.server, p.sub.Conn
	p.sub.unconfirmed--
	sessionOf(c).unconfirmed--
	p.loop().Post(func() {
		if ses := sessionOf(c); c.Open() && ses.waiting != nil && ses.waiting.stage == forSubscribes && ses.unconfirmed == 0 {
			s.goOn(ses.waiting, wire.OK)
		}
	})
}

// check looks at the token before anything is sent under it. It returns false when the
// replay has ended.
func (p *replay) check() bool {
	x := p.sub
	if !x.Conn.Open() {
		return false
	}
	switch code := x.token.Check(p.loop().Now()); {
	case code == wire.OK:
		return true
	case code == wire.TokenExpired && p.acked:
		p.server.expire(x)
	default:
		p.end(code, "")
	}
	return false
}

// renewed holds the replay to the token that its subscription has been given.
func (p *replay) renewed(now int64) {
	if token := p.sub.token; narrower(token.History(), p.bound) {
		p.bound, p.floor = token.History(), floorOf(token, now)
	}
}

// narrower says whether a bound of history permits less than another.
func narrower(bound, other time.Duration) bool {
	switch {
	case bound == 0 || other < 0:
		return false
	case bound < 0 || other == 0:
		return true
	default:
		return bound < other
	}
}

func (p *replay) fail() { p.end(wire.Unavailable, "the stream does not answer: try again") }

// end ends the subscription, and says why.
func (p *replay) end(code wire.Code, detail string) {
	s, x := p.server, p.sub
	if p.acked {
		s.end(x, code, detail)
		return
	}
	p.settle()
	s.drop(x)
	r := s.request(x.Conn)
	r.env.Kind, r.env.ID, r.env.Topic = wire.Subscribe, p.id, []byte(x.topic.name)
	if len(p.id) == 0 {
		r.env.ID = nil
	}
	r.refuse(code, detail)
	if code.Retry() {
		s.endStream(x.Conn, wire.CloseTryLater)
	} else {
		s.endStream(x.Conn, wire.CloseUnauthenticated)
	}
}

// stop ends the replay, and not its subscription. A subscribe that was not answered is
// refused for the reason.
func (p *replay) stop(reason string) {
	x := p.sub
	x.Leave()
	p.over()
	if p.acked {
		return
	}
	p.settle()
	if x.Conn.Open() {
		stateOf(p.loop()).sendError(x.Conn, p.id, []byte(x.topic.name), wire.Unavailable, reason)
	}
}

// over ends the replay.
func (p *replay) over() {
	p.ended = true
	p.gone.Store(true)
	if p.since.Kind != wire.SinceNone {
		p.server.replaying.Add(-1)
	}
	p.goOn()
	p.sub.replay = nil
	if p.pinned {
		p.server.unpin(p.sub)
	}
	p.tail.release()
	p.read.release()
	p.tail, p.read = nil, nil
}
