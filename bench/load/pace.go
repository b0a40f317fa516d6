//go:build linux

package load

import (
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Load says how events are published: in a closed loop or in an open one.
type Load struct {
	// Window, of the closed loop: so many messages of a topic are written at once
	// by each of its publishers, and the next when every subscriber that is read
	// has them all. 1 forbids the server any batching, other than across topics.
	Window int
	// Rate, of the open loop: publishes a second in all, whether the server keeps
	// up or not. What it delays is measured from when it was due, so that a slow
	// server cannot improve its latencies by slowing the measurement down, too
	// (coordinated omission).
	Rate float64
}

func (l Load) String() string {
	if l.Window > 0 {
		return fmt.Sprintf("window %d", l.Window)
	}
	return fmt.Sprintf("rate %g", l.Rate)
}

// pace is the state of a load.
type pace struct {
	Load
	ended       bool
	frames      []byte // scratch: the messages of one write
	stamps      []stamp
	expect      []int  // closed loop: what each topic waits for after a round
	outstanding []int  // closed loop: what of that has not come
	ready       []int  // closed loop: topics that wait for nothing
	queue       []turn // closed loop: the turns to write a window, from next on
	next        int
	publishedTo []int // by topic
	turns       []turn
	began       int64
	sent        uint64   // open loop
	prepared    *message // open loop: the next to send; making it may take a while
	armed       int64    // open loop: what the timer is set to
}

// turn is one of those that publish in turn.
type turn struct {
	topic  int
	writer *conn
}

// begin starts a load. expect is, by topic, how many arrivals end a round of the
// closed loop: deliveries, or reports of processes that have theirs.
func (e *engine) begin(load Load, expect []int) {
	turns := e.turns[:0]
	for topic, writers := range e.writers {
		for _, w := range writers {
			turns = append(turns, turn{topic, w})
		}
	}
	e.tick()
	e.pace = pace{Load: load, turns: turns, began: e.now, expect: expect, outstanding: slices.Clone(expect), publishedTo: make([]int, len(e.writers))}
	for topic := range e.writers {
		e.ready = append(e.ready, topic)
	}
	e.count, e.dropped = counters{}, map[string]int{}
	e.latency.Reset()
	if e.answering != nil {
		e.answering.received.Reset()
	}
	if e.pinger != nil {
		e.pinger.begin(e.now)
	}
}

// arrived counts what a topic of the closed loop waits for.
func (e *engine) arrived(topic int) {
	if topic >= len(e.outstanding) {
		return // not ours
	}
	if e.outstanding[topic]--; e.outstanding[topic] == 0 {
		e.ready = append(e.ready, topic)
		e.outstanding[topic] = e.expect[topic]
	}
}

// report sends the process that publishes which topics have their round.
func (e *engine) report() error {
	if e.writers != nil || len(e.ready) == 0 {
		return nil
	}
	err := e.links[0].send(note{Done: e.ready})
	e.ready = e.ready[:0]
	return err
}

// publishDue publishes what may be published now. Of the closed loop it is one
// batch, so that events that have come meanwhile are read in time; patient, it
// is as many as fit into batchTime.
func (e *engine) publishDue(patient bool) error {
	if e.ended || e.writers == nil {
		return nil
	}
	if err := e.ping(); err != nil {
		return err
	}
	if e.Window > 0 {
		return e.batches(patient)
	}
	for e.Rate > 0 {
		t := e.turns[e.sent%uint64(len(e.turns))]
		if e.prepared == nil {
			var err error
			if e.prepared, err = e.messages.next(t.topic); err != nil {
				return err
			}
		}
		due := e.due()
		if e.now < due || len(t.writer.out) > writerBytes {
			return nil
		}
		for _, s := range e.prepared.times {
			s.write(e.prepared.frame, due)
		}
		if err := e.send(t.writer, e.prepared.frame); err != nil {
			return err
		}
		e.prepared = nil
		e.sent++
		e.published(t.topic, 1)
	}
	return nil
}

// due is when the next event of the open loop is to be sent.
func (e *engine) due() int64 { return dueAt(e.began, e.sent, e.Rate) }

// dueAt is when the nth event is due of so many a second.
func dueAt(began int64, n uint64, rate float64) int64 {
	return began + int64(float64(n)/rate*float64(time.Second))
}

// batchTime is how long batches are made before events are read again. With a
// fresh token in each message, a window of many topics takes seconds to make.
const batchTime = time.Millisecond

// batches publishes of the closed loop: every publisher of a topic that waits for
// nothing writes a window.
func (e *engine) batches(patient bool) error {
	for _, topic := range e.ready {
		for _, w := range e.writers[topic] {
			e.queue = append(e.queue, turn{topic, w})
		}
	}
	e.ready = e.ready[:0]
	for until := e.now + int64(batchTime); e.next < len(e.queue); {
		t := e.queue[e.next]
		if e.next++; 2*e.next >= len(e.queue) { // else it would grow as long as it is never empty
			e.queue, e.next = e.queue[:copy(e.queue, e.queue[e.next:])], 0
		}
		if err := e.batch(t); err != nil {
			return err
		}
		if !patient || e.now > until {
			break
		}
	}
	return nil
}

// batch writes a window of messages at once.
func (e *engine) batch(t turn) error {
	var err error
	if e.frames, e.stamps, err = e.messages.batch(e.frames[:0], e.stamps[:0], t.topic, e.Window); err != nil {
		return err
	}
	e.tick()
	e.awaits(t.writer, e.Window)
	for _, s := range e.stamps {
		s.write(e.frames, e.now)
	}
	if err := e.send(t.writer, e.frames); err != nil {
		return err
	}
	e.published(t.topic, e.Window)
	return nil
}

func (e *engine) published(topic, n int) {
	e.count.published += uint64(n)
	e.count.awaited += uint64(n * e.readers[topic])
	e.publishedTo[topic] += n
}

// arm sets the timer to the next event or ping of an open loop: epoll_wait counts in
// milliseconds.
func (e *engine) arm() error {
	if e.ended || e.writers == nil {
		return nil
	}
	due := int64(math.MaxInt64)
	if e.Rate > 0 {
		due = e.due()
	}
	if e.pinger != nil {
		due = min(due, e.pinger.due())
	}
	if due == math.MaxInt64 || due == e.armed {
		return nil
	}
	e.armed = due
	e.tick()
	wait := unix.NsecToTimespec(max(due-e.now, 1))
	return unix.TimerfdSettime(e.timer, 0, &unix.ItimerSpec{Value: wait}, nil)
}
