package loop

import (
	"runtime"
	"time"
)

// A turn of a loop, which is all that its goroutine does, again and again:
//
//	wait     until a socket or the inbox has something; not at all while groups or deadlines are due
//	read     readySockets sockets at most, readBytes of each, for readTime: messages are
//	         handled
//	take     what the inbox holds: batches join what their groups are due, calls are made
//	publish  [Handler.Turn]: what was published leaves for NATS, which works on it meanwhile
//	answer   acks and pongs leave that are still held back
//	await    what was published, if groups are due something: NATS runs on this processor
//	         then, and a small topic's event does not wait for the next slice
//	write    a slice of what groups are due, see below
//	look     at the deadlines of some connections, at those of all once a second
//	close    what has ended
//
// What a group is due is written in slices, so that one with thousands of members does
// not keep anybody waiting: whatever comes meanwhile is read, published, answered and
// taken after one slice. Groups stand in lanes by their size. Those of the first lane
// are urgent: all of them together are as much work as a few members of a large group, so
// they come first in every turn. Of the other lanes one gets its slice in each turn, in
// rotation, so that none waits for more than the others' slices.
//
// What is written of a group in slices is one batch, to those that were members when the
// batch began. What is delivered to the group meanwhile joins its next one. The
// clock is read before each slice and within it: no member gets anything after its Until.
//
// A call from the inbox does not wait for slices, unless it asks for that
// ([Loop.DeliverFunc]).
const (
	// readySockets is how many sockets are read in a turn, some microseconds each.
	readySockets = 512
	// readTime is how long a turn goes on reading. Handshakes, subscribes and refusals take
	// many times what a message takes: thousands that come back at once would hold
	// up those that are there. The clock is read every timeEvery sockets.
	readTime  = 5 * time.Millisecond
	timeEvery = 16
	// urgentSlice is how many writes the first lane has in a turn: as many as there may be
	// messages that asked for them.
	urgentSlice = readySockets
	// slice is how many writes one of the other lanes has, at some 5 µs each. All else
	// waits for one slice, but for one that publishes: it is answered before the next. A
	// turn without any costs as much as one write.
	slice = 64
)

// laneMembers is how many members a group of each lane has at most, but for the last.
var laneMembers = [lanes - 1]int{64, 1024}

const lanes = 3

func (l *Loop) run() {
	defer close(l.stopped)
	events := make([]pollEvent, readySockets)
	l.chooseSleep()
	wrote := uint64(0) // what had been written when nothing was due
	for !l.halted {
		n := l.wait(events)
		l.readClock()
		began := l.mono
		if l.fanout.empty() {
			wrote = l.stat.writes
		}
		for i := range events[:n] {
			if i%timeEvery == timeEvery-1 {
				l.readClock() // a token may expire within a long turn
				if l.mono-began > int64(readTime) {
					break // what is left is ready in the next turn, behind what has come before it
				}
			}
			l.event(&events[i])
		}
		l.take()
		l.inbox.answered.Store(false)
		l.awaits = l.eng.handler.Turn(l)
		l.cork.release()
		if l.awaits && l.Writing() && !l.inbox.overdue.Load() {
			l.await()
			l.take()
		}
		l.write()
		if l.sec != l.sweep.begun {
			l.sweep.begun = l.sec
			l.beginSweep()
			l.chooseSleep()
			l.eng.handler.Tick(l)
		}
		l.sweepSome()
		l.drainSome()
		l.reap()
		l.readClock()
		l.stat.turn(l.mono - began)
		l.countDelays()
		if f := l.eng.opts.OnTurn; f != nil {
			f(l, int(l.stat.writes-wrote))
		}
	}
	l.stop()
}

// Writing reports whether groups are due something. It may be called on l's goroutine.
func (l *Loop) Writing() bool { return !l.fanout.empty() }

// write writes a slice of what groups are due.
func (l *Loop) write() {
	f := &l.fanout
	l.writeSlice(&f.lanes[0], urgentSlice)
	for range lanes - 1 {
		f.turn = f.turn%(lanes-1) + 1
		if x := &f.lanes[f.turn]; !x.empty() {
			l.writeSlice(x, slice)
			return
		}
	}
}

// wait returns what is ready; it sleeps when nothing is, nothing is due, and nothing is
// to come from the inbox soon.
func (l *Loop) wait(events []pollEvent) int {
	if !l.fanout.empty() || l.sweep.due() {
		if l.parking.file != nil {
			runtime.Gosched() // nobody else runs while this goroutine does
		}
		return l.poller.poll(events)
	}
	if n := l.poller.poll(events); n > 0 || !l.inboxEmpty() {
		return n
	}
	if l.awaits && !l.inbox.overdue.Load() {
		l.await()
		if n := l.poller.poll(events); n > 0 || !l.inboxEmpty() {
			return n
		}
	}
	l.inbox.state.Store(asleep)
	defer l.inbox.state.Store(awake)
	if !l.inboxEmpty() {
		return 0
	}
	if l.parking.file != nil && !l.drain.active {
		return l.parking.wait(events)
	}
	timeout := 1000
	if l.drain.active {
		timeout = 10
	}
	return l.poller.wait(events, timeout)
}
