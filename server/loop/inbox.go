package loop

import (
	"sync"
	"sync/atomic"
	"time"
)

// item is one thing that another goroutine wants a loop to do: deliver batch to
// group, or call fn.
type item struct {
	group *Group
	batch *Batch
	fn    func()
}

// inboxBytes is what may wait in one inbox, and behind it until it is written, before
// [Loop.Deliver] makes its caller wait: events that come in faster than a loop sends them
// must pile up where they are bounded and counted (the bus), not here.
const inboxBytes = 16 << 20

// inbox is how other goroutines reach a loop. The loop swaps the slice for an
// empty one, so a turn takes the lock once however much has come.
type inbox struct {
	mu     sync.Mutex
	room   sync.Cond
	items  []item // guarded by mu
	bytes  int    // of all that was delivered and has not been written; guarded by mu
	closed bool   // guarded by mu

	// state is set by the loop before it waits. The goroutine that sets it back to
	// awake ends the wait, so that it costs one wake-up however many post.
	state  atomic.Uint32
	poller *poller       // for a loop that is asleep
	answer chan struct{} // for one that awaits

	answered atomic.Bool // since Turn was called
	overdue  atomic.Bool // the last answer did not come in time, and has not come since
	awaits   atomic.Uint32
	watchdog *time.Timer
	watched  atomic.Bool   // watchdog runs
	seen     atomic.Uint32 // awaits, when watchdog looked last
}

const (
	awake    = iota
	asleep   // in epoll
	awaiting // for what Turn said is under way
)

// Deliver has l write b to every member of g, behind what was delivered to g
// before. It takes over one of the caller's references of b. Any goroutine but
// a loop's may call it; it waits while the inbox is full. It allocates nothing.
func (l *Loop) Deliver(g *Group, b *Batch) {
	if !l.put(item{group: g, batch: b}, len(b.b)) {
		b.Release()
	}
}

// DeliverFunc has l call fn at an exact point between what is delivered to the groups, or
// to all when none is named: what was delivered before has been written to those that
// are members then, and what comes behind goes to those that are members after fn.
// bytes is the memory that fn holds on to. Like Deliver it waits while the inbox is
// full. After the loop has stopped fn is not called.
//
// Everybody else waits while what the groups are due is written, and that of groups of
// about their size: name them.
func (l *Loop) DeliverFunc(bytes int, fn func(), groups ...*Group) {
	l.DeliverBy(bytes, func() {
		if len(groups) == 0 {
			l.flush()
		}
		for _, g := range groups {
			if g.due != nil || g.writing != nil {
				l.finish(&l.fanout.lanes[g.lane])
			}
		}
		fn()
	})
}

// DeliverBy has l call fn in its place among what is delivered: what fn delivers
// ([Loop.DeliverNow]) is written behind what was delivered before, which may not have been
// written yet. Else it is like [Loop.DeliverFunc].
func (l *Loop) DeliverBy(bytes int, fn func()) {
	l.put(item{fn: func() {
		fn()
		l.fanout.written += bytes
	}}, bytes)
}

// put waits until the inbox has room, and returns false when it has been shut.
func (l *Loop) put(it item, bytes int) (ok bool) {
	x := &l.inbox
	waited := false
	x.mu.Lock()
	if x.bytes > inboxBytes && !x.closed {
		l.eng.waitingForRoom.Add(1)
		for x.bytes > inboxBytes && !x.closed {
			x.room.Wait()
		}
		waited = true
	}
	if ok = !x.closed; ok {
		x.items = append(x.items, it)
		x.bytes += bytes
	}
	x.mu.Unlock()
	if ok {
		x.wake()
	}
	// A loop that has stopped has no room to report.
	if waited && l.eng.waitingForRoom.Add(-1) == 0 && ok && l.eng.opts.OnRoom != nil {
		l.eng.opts.OnRoom()
	}
	return ok
}

// HasRoom reports whether the loops keep up with what is delivered: no caller of
// [Loop.Deliver] waits. After it was false, [Options.OnRoom] is called. Any
// goroutine may call it.
func (e *Engine) HasRoom() bool { return e.waitingForRoom.Load() == 0 }

// Post has l call fn on its goroutine, in the order of posts. What was delivered before
// may not have been written then. Any goroutine may call it, l's own included; it never
// waits. After the loop has stopped it returns false and fn is not called.
func (l *Loop) Post(fn func()) bool {
	x := &l.inbox
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return false
	}
	x.items = append(x.items, item{fn: fn})
	x.mu.Unlock()
	x.wake()
	return true
}

func (x *inbox) wake() {
	switch x.state.Load() {
	case awaiting:
		x.endAwait()
	case asleep:
		if x.state.CompareAndSwap(asleep, awake) {
			x.poller.wake()
		}
	}
}

func (x *inbox) endAwait() {
	if x.state.CompareAndSwap(awaiting, awake) {
		x.answer <- struct{}{}
	}
}

// Answered says to all loops that what [Handler.Turn] said is under way has been
// answered, as far as they are concerned. Any goroutine may call it.
func (e *Engine) Answered() {
	for _, l := range e.loops {
		x := &l.inbox
		x.answered.Store(true)
		x.overdue.Store(false)
		x.endAwait()
	}
}

// Answered is [Engine.Answered] for l alone, from its own goroutine.
func (l *Loop) Answered() { l.inbox.overdue.Store(false) }

// answerWait, or twice that, bounds an await: an answer that does not come must not
// keep sockets waiting.
const answerWait = 20 * time.Millisecond

// await waits for what Turn said is under way, without the sockets. To sleep in
// epoll instead would keep a thread, so that the goroutines which answer have to
// be taken up by another, and that one has to wake this one: twice a context
// switch. So they run here, and what the sockets bring meanwhile is handled, and
// published, together.
func (l *Loop) await() {
	x := &l.inbox
	x.awaits.Add(1)
	if !x.watched.Swap(true) {
		x.watchdog.Reset(answerWait)
	}
	x.state.Store(awaiting)
	if x.empty() && !x.answered.Load() || !x.state.CompareAndSwap(awaiting, awake) {
		<-x.answer
	}
}

// watch is called by the watchdog, which runs on for as long as it finds the
// loop awaiting. An await that it finds twice is overdue.
func (x *inbox) watch() {
	x.watched.Store(false)
	if x.state.Load() != awaiting {
		return
	}
	if n := x.awaits.Load(); x.seen.Swap(n) == n {
		x.overdue.Store(true)
		x.endAwait()
	} else if !x.watched.Swap(true) {
		x.watchdog.Reset(answerWait)
	}
}

func (x *inbox) empty() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.items) == 0
}

// wrote takes note of what the loop has written. mu is held.
func (x *inbox) wrote(f *fanout) {
	full := x.bytes > inboxBytes
	x.bytes -= f.written
	f.written = 0
	if full && x.bytes <= inboxBytes {
		x.room.Broadcast()
	}
}

// inboxEmpty tells the inbox what was written, and whether it is empty.
func (l *Loop) inboxEmpty() bool {
	x := &l.inbox
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wrote(&l.fanout)
	return len(x.items) == 0
}

// take acts on what the inbox holds. Batches are merged with what their groups are due.
func (l *Loop) take() {
	x := &l.inbox
	x.mu.Lock()
	items := x.items
	x.items, l.spare = l.spare[:0], nil
	x.wrote(&l.fanout)
	x.mu.Unlock()
	for i := range items {
		it := &items[i]
		if it.fn != nil {
			it.fn()
		} else {
			l.merge(it.group, it.batch)
		}
		*it = item{}
	}
	l.spare = items[:0]
	if cap(items) > 1<<14 {
		l.spare = nil
	}
}

// shut ends the inbox and returns what it still held.
func (x *inbox) shut() []item {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	x.room.Broadcast()
	items := x.items
	x.items = nil
	return items
}
