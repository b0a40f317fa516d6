package server_test

import (
	"sync"
	"testing"

	"github.com/notifyd/notifyd/bus/bustest"
	"github.com/notifyd/notifyd/wire"
)

// memBus is a bus in memory whose moods a test chooses. One goroutine, its only
// shard, brings answers and events.
type memBus struct {
	sink bustest.Sink
	done sync.WaitGroup
	kept memStreams // for those of a test that has some

	mu       sync.Mutex
	change   sync.Cond
	tasks    []func()
	ended    bool
	interest map[uint32]string // pattern by handle
	owner    map[uint32]int    // which call of Subscribe the handle is from
	publish  wire.Code         // what Publish answers
	full     bool              // HasRoom says no
	busy     bool              // from Flush until its goroutine has done all
	hold     bool              // Subscribe answers only when told
	held     []answer
	asked    int // calls of Subscribe
	left     int // calls of Unsubscribe since the last turn of a loop
	mostLeft int // in one turn
}

// answer is one that the test has yet to let out.
type answer struct {
	handle uint32
	owner  int
	done   func(wire.Code)
}

func (b *memBus) start(sink bustest.Sink) {
	b.sink = sink
	b.change.L = &b.mu
	b.interest = make(map[uint32]string)
	b.owner = make(map[uint32]int)
	b.done.Go(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for {
			for len(b.tasks) == 0 && !b.ended {
				b.change.Wait()
			}
			if len(b.tasks) == 0 {
				return
			}
			tasks := b.tasks
			b.tasks = nil
			b.mu.Unlock()
			for _, f := range tasks {
				f()
			}
			b.sink.Flush(0)
			b.mu.Lock()
			if len(b.tasks) == 0 {
				b.busy = false
			}
			b.mu.Unlock()
			b.sink.Answered()
			b.mu.Lock()
		}
	})
}

func (b *memBus) stop() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.change.Broadcast()
	b.done.Wait()
}

// do queues f. mu is held.
func (b *memBus) do(f func()) {
	b.tasks = append(b.tasks, f)
	b.change.Broadcast()
}

func (b *memBus) Publish(topic, data []byte) wire.Code {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.publish != wire.OK {
		return b.publish
	}
	name, payload := string(topic), append([]byte(nil), data...)
	b.do(func() {
		if handles := b.matching(name, false); len(handles) > 0 {
			b.sink.Event(0, handles, name, payload)
		}
		if handles := b.matching(name, true); len(handles) > 0 {
			b.sink.Event(0, handles, name, payload)
		}
	})
	return wire.OK
}

// matching gives the topic, or the patterns, that match name.
func (b *memBus) matching(name string, wild bool) (handles []uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for handle, pattern := range b.interest {
		if wire.HasWildcard(pattern) == wild && wire.Covers(pattern, name) {
			handles = append(handles, handle)
		}
	}
	return handles
}

func (b *memBus) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = true
	b.do(func() {})
}

func (b *memBus) Busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = 0 // a turn of a loop ends with this question
	return b.busy
}

func (b *memBus) HasRoom() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.full
}

// fill says whether the bus keeps up.
func (b *memBus) fill(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full && !full {
		b.do(b.sink.Room)
	}
	b.full = full
}

func (b *memBus) Subscribe(handle uint32, pattern string, done func(wire.Code)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	for h, p := range b.interest {
		if p == pattern {
			delete(b.interest, h)
		}
	}
	b.interest[handle] = pattern
	b.owner[handle] = b.asked
	if b.hold {
		b.held = append(b.held, answer{handle, b.asked, done})
		return
	}
	b.do(func() { done(wire.OK) })
}

func (b *memBus) Unsubscribe(handle uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.interest, handle)
	b.left++
	b.mostLeft = max(b.mostLeft, b.left)
}

// moods of the bus

func (b *memBus) holds(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold = on
}

func (b *memBus) answers(publish wire.Code) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publish = publish
}

// waiting is how many answers are held.
func (b *memBus) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.held)
}

// questions is how often it was asked to subscribe.
func (b *memBus) questions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

// mostInATurn is the most calls of Unsubscribe that one turn of a loop made. It means
// something where there is one loop.
func (b *memBus) mostInATurn() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mostLeft
}

// patterns is how many patterns there is interest in.
func (b *memBus) patterns() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.interest)
}

// release lets the held answers out, all with this code. As with NATS, after
// another than OK the interest is gone unless it has changed hands.
func (b *memBus) release(code wire.Code) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.held {
		if code != wire.OK && b.owner[a.handle] == a.owner {
			delete(b.interest, a.handle)
		}
		b.do(func() { a.done(code) })
	}
	b.held = nil
}

// The fake keeps the promises that the NATS bus keeps.
func TestFakeBusConforms(t *testing.T) {
	bustest.Run(t, func(t *testing.T, sink bustest.Sink) bustest.Bus {
		b := new(memBus)
		b.start(sink)
		t.Cleanup(b.stop)
		return b
	})
}
