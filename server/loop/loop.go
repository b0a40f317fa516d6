package loop

import (
	"time"
)

// Loop is one epoll loop and the connections that belong to it.
type Loop struct {
	// Data is the handler's; only this loop's goroutine may use it.
	Data any

	eng   *Engine
	index int

	// The clock.
	now       int64  // Unix nanoseconds, read once a turn and during long flushes
	mono      int64  // nanoseconds since the engine started, which nobody can set
	sec       uint32 // seconds since then, at least 1
	unclocked int    // members served since the clock was read

	// Sleep, and what ends it.
	poller  poller
	parking parking
	inbox   inbox // how other goroutines reach the loop
	spare   []item
	awaits  bool // Turn said so

	// The connections.
	conns   []*Conn // by slot
	free    []int32 // slots
	count   int
	endings endings

	// Reading.
	buf  []byte // what a read reads into
	up   upgradeIO
	post Post // the request in hand

	// Writing.
	cork   cork   // to one connection
	fanout fanout // to groups

	stat counters

	sweep  sweep
	drain  drain
	halted bool

	question question
	stopped  chan struct{} // closed when run has returned
}

// Two descriptors in an epoll set are no connections.
const (
	slotInbox  = -1
	slotListen = -2
)

func newLoop(e *Engine, index int) (*Loop, error) {
	l := &Loop{eng: e, index: index, buf: make([]byte, smallTail+readBytes), stopped: make(chan struct{})}
	l.cork.loop = l
	l.inbox.room.L = &l.inbox.mu
	l.inbox.answer = make(chan struct{}, 1)
	l.inbox.watchdog = time.AfterFunc(time.Hour, l.inbox.watch)
	l.up.prepare(e.handler, max(e.opts.HeadBytes, 4096))
	if err := l.poller.open(); err != nil {
		return nil, err
	}
	l.inbox.poller = &l.poller
	l.readClock()
	return l, nil
}

// Index is the loop's number, from 0 on.
func (l *Loop) Index() int { return l.index }

// ReadClock brings [Loop.Now] up to date, for a handler that does much in one call.
func (l *Loop) ReadClock() { l.readClock() }

// Now is the time of this turn in Unix nanoseconds. It is read once a turn and
// every few writes of a long flush: a coarse clock for checks that are made
// per frame. Only the loop's goroutine may call it.
func (l *Loop) Now() int64 { return l.now }

// Seconds is how long the engine has run, at the last reading of the clock. Setting
// the machine's clock does not change it.
func (l *Loop) Seconds() uint32 { return l.sec }

// Conns calls f for each open connection, but for those that carry HTTP requests, until
// f returns false. f must not close connections other than its own argument.
func (l *Loop) Conns(f func(*Conn) bool) {
	for _, c := range l.conns {
		if c != nil && c.isOpen() && !f(c) {
			return
		}
	}
}

// isOpen reports whether c is a WebSocket or a stream that is open.
func (c *Conn) isOpen() bool { return c.state == stateOpen && !c.posts }

// ConnsFrom calls f for those open connections that stand at the n places from
// place on, and returns the place to go on from, 0 after the last. A connection
// keeps its place; one that opens meanwhile may take one on either side. f is
// bound as for [Loop.Conns].
func (l *Loop) ConnsFrom(place, n int, f func(*Conn)) (next int) {
	end := min(place+n, len(l.conns))
	for ; place < end; place++ {
		if c := l.conns[place]; c != nil && c.isOpen() {
			f(c)
		}
	}
	if end < len(l.conns) {
		return end
	}
	return 0
}

func (l *Loop) readClock() {
	t := time.Now()
	l.now = t.UnixNano()
	l.mono = int64(t.Sub(l.eng.start))
	l.sec = uint32(l.mono/int64(time.Second)) + 1
	l.unclocked = 0
}

// event acts on one ready descriptor.
func (l *Loop) event(ev *pollEvent) {
	if ev.Fd == slotInbox {
		return
	}
	if ev.Fd == slotListen {
		l.accept()
		return
	}
	c := l.conns[ev.Fd]
	if c == nil || c.state == stateDead {
		return // closed earlier in this turn
	}
	if ev.Events&writable != 0 {
		c.sendPending()
	}
	if ev.Events&(readable|failed) == 0 || c.state == stateDead {
		return
	}
	if c.paused {
		if ev.Events&failed != 0 {
			c.abort()
			return
		}
		c.watch() // stop hearing of what is not read now
		return
	}
	l.readable(c)
}

// stop ends the loop: what is left is closed without ceremony.
func (l *Loop) stop() {
	l.flush()
	for _, it := range l.inbox.shut() {
		if it.fn != nil {
			it.fn() // a caller may wait for it
		} else {
			it.batch.Release()
		}
	}
	for _, c := range l.conns {
		if c != nil {
			c.abort()
		}
	}
	l.reap()
	l.close()
}

func (l *Loop) close() {
	l.inbox.watchdog.Stop()
	l.parking.close()
	l.poller.close()
}
