// Package bustest is the conformance suite of a bus: what package server relies on, checked alike against
// NATS and against a fake.
package bustest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// Bus is what is tested.
type Bus interface {
	Publish(topic, data []byte) wire.Code
	Flush()
	Busy() bool
	Subscribe(handle uint32, pattern string, done func(wire.Code))
	Unsubscribe(handle uint32)
}

// Sink is what a bus delivers to.
type Sink interface {
	Event(shard int, handles []uint32, topic string, data []byte)
	Flush(shard int)
	Answered()
	Room()
	Stored(shard int, handles []uint32, e *wire.StoredEvent)
	Gap(shard int, handles []uint32, epoch string, after, first uint64)
}

// patience is when a test gives up. Nothing is expected to take long.
const patience = 20 * time.Second

// An Event is what a Recorder saw.
type Event struct {
	Handle uint32
	Topic  string
	Data   string
}

// Recorder is a Sink that remembers. An event counts once its round was flushed.
type Recorder struct {
	mu       sync.Mutex
	open     map[int][]Event
	events   []Event
	newest   map[int][]Stored
	stored   []Stored
	answered int
	rooms    int
	arrived  chan struct{}
}

// NewRecorder gives an empty Recorder.
func NewRecorder() *Recorder {
	return &Recorder{open: make(map[int][]Event), newest: make(map[int][]Stored), arrived: make(chan struct{}, 1)}
}

// Event implements Sink.
func (r *Recorder) Event(shard int, handles []uint32, topic string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range handles {
		r.open[shard] = append(r.open[shard], Event{h, topic, string(data)})
	}
}

// Flush implements Sink.
func (r *Recorder) Flush(shard int) {
	r.mu.Lock()
	r.events = append(r.events, r.open[shard]...)
	r.open[shard] = nil
	r.stored = append(r.stored, r.newest[shard]...)
	r.newest[shard] = nil
	r.mu.Unlock()
	r.signal()
}

// Stored is an event of a stream that a Recorder saw, or, with First, a gap behind Seq.
type Stored struct {
	Handle            uint32
	Topic, Data, From string
	Seq, Prev         uint64
	Epoch             string
	First             uint64
}

// Stored implements Sink.
func (r *Recorder) Stored(shard int, handles []uint32, e *wire.StoredEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range handles {
		r.newest[shard] = append(r.newest[shard], Stored{Handle: h, Topic: e.Topic, Data: string(e.Data), From: e.From, Seq: e.Seq, Prev: e.Prev})
	}
}

// Gap implements Sink.
func (r *Recorder) Gap(shard int, handles []uint32, epoch string, after, first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range handles {
		r.newest[shard] = append(r.newest[shard], Stored{Handle: h, Seq: after, Epoch: epoch, First: first})
	}
}

// StoredFor gives what came of streams for a handle, once there are n.
func (r *Recorder) StoredFor(t testing.TB, handle uint32, n int) (got []Stored) {
	t.Helper()
	r.Wait(t, fmt.Sprintf("%d stored events for %d", n, handle), func([]Event) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		got = got[:0]
		for _, e := range r.stored {
			if e.Handle == handle {
				got = append(got, e)
			}
		}
		return len(got) >= n
	})
	return got
}

// Answered implements Sink.
func (r *Recorder) Answered() {
	r.mu.Lock()
	r.answered++
	r.mu.Unlock()
	r.signal()
}

// Room implements Sink.
func (r *Recorder) Room() {
	r.mu.Lock()
	r.rooms++
	r.mu.Unlock()
	r.signal()
}

// Rooms is how often Room was called.
func (r *Recorder) Rooms() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rooms
}

func (r *Recorder) signal() {
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// Answers is how often Answered was called.
func (r *Recorder) Answers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}

// Events gives what arrived so far.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Event(nil), r.events...)
}

// Wait returns once ok accepts what arrived so far.
func (r *Recorder) Wait(t testing.TB, what string, ok func([]Event) bool) []Event {
	t.Helper()
	deadline := time.After(patience)
	for {
		got := r.Events()
		if ok(got) {
			return got
		}
		select {
		case <-r.arrived:
		case <-deadline:
			t.Fatalf("%s: did not happen; %d events, last %v", what, len(got), got[max(0, len(got)-3):])
		}
	}
}

// WaitFor returns once event e arrived.
func (r *Recorder) WaitFor(t testing.TB, e Event) []Event {
	t.Helper()
	return r.Wait(t, fmt.Sprint(e), func(got []Event) bool { return count(got, e) > 0 })
}

func count(events []Event, e Event) (n int) {
	for _, x := range events {
		if x == e {
			n++
		}
	}
	return n
}

// Subscribe subscribes, waits for the answer and fails the test unless it is wire.OK.
func Subscribe(t testing.TB, b Bus, handle uint32, pattern string) {
	t.Helper()
	if c := TrySubscribe(t, b, handle, pattern); c != wire.OK {
		t.Fatalf("subscribe to %s: %v", pattern, c)
	}
}

// TrySubscribe subscribes and gives the answer.
func TrySubscribe(t testing.TB, b Bus, handle uint32, pattern string) wire.Code {
	t.Helper()
	answer := make(chan wire.Code, 2)
	b.Subscribe(handle, pattern, func(c wire.Code) { answer <- c })
	select {
	case c := <-answer:
		return c
	case <-time.After(patience):
		t.Fatalf("subscribe to %s: no answer", pattern)
		return wire.Unavailable
	}
}

// Publish publishes and fails the test unless it was taken.
func Publish(t testing.TB, b Bus, topic, data string) {
	t.Helper()
	c := b.Publish([]byte(topic), []byte(data))
	b.Flush()
	if c != wire.OK {
		t.Fatalf("publish to %s: %v", topic, c)
	}
}

// Handles of one test are multiples of this, so that an implementation which spreads handles over shards
// puts them into one, where events for different handles keep their order.
const step = 64

// Run tests a bus. open makes a fresh one for each test, which delivers to sink and ends with t.
func Run(t *testing.T, open func(t *testing.T, sink Sink) Bus) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Bus, *Recorder)
	}{
		{"publish right after subscribe is received", rightAfter},
		{"topics and patterns", patterns},
		{"data byte for byte", verbatim},
		{"order of one publisher", order},
		{"unsubscribed gets nothing", unsubscribed},
		{"subscribe again takes over", again},
		{"slices are not kept", notKept},
		{"many at once", many},
		{"what is flushed is answered", answered},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewRecorder()
			test.run(t, open(t, r), r)
		})
	}
}

func rightAfter(t *testing.T, b Bus, r *Recorder) {
	answer := make(chan wire.Code, 2)
	var caller sync.Mutex // held during Subscribe: done must come from elsewhere
	caller.Lock()
	b.Subscribe(step, "early.bird", func(c wire.Code) {
		caller.Lock()
		defer caller.Unlock()
		answer <- c
	})
	caller.Unlock()
	Publish(t, b, "early.bird", "1")
	r.WaitFor(t, Event{step, "early.bird", "1"})
	if c := <-answer; c != wire.OK {
		t.Errorf("answer %v", c)
	}
	Subscribe(t, b, 2*step, "after") // answers come in order, so a second one would be here by now
	if len(answer) != 0 {
		t.Error("done was called twice")
	}
}

func patterns(t *testing.T, b Bus, r *Recorder) {
	all := []string{"rooms.42", "rooms.*", "rooms.>", "*.42", "rooms.7", "rooms.42.x"}
	for i, p := range all {
		Subscribe(t, b, uint32(i+1)*step, p)
	}
	Publish(t, b, "rooms.42", "x")
	Publish(t, b, "Rooms.42", "x") // matches *.42 alone
	Publish(t, b, "rooms", "x")    // matches nothing
	Publish(t, b, "rooms.7", "end")
	got := r.Wait(t, "the last event on three", func(got []Event) bool {
		return count(got, Event{2 * step, "rooms.7", "end"})+count(got, Event{3 * step, "rooms.7", "end"})+
			count(got, Event{5 * step, "rooms.7", "end"}) == 3
	})
	for i, want := range []int{1, 1, 1, 1, 0, 0} {
		if n := count(got, Event{uint32(i+1) * step, "rooms.42", "x"}); n != want {
			t.Errorf("pattern %s got %d events of rooms.42, want %d", all[i], n, want)
		}
	}
	if len(got) != 4+1+3 {
		t.Errorf("%d events in all: %v", len(got), got)
	}
}

func verbatim(t *testing.T, b Bus, r *Recorder) {
	Subscribe(t, b, step, "raw")
	for _, data := range []string{"", "\x00\r\nPUB x 1\r\n", "\xff\xfe", string(bytes.Repeat([]byte("x"), 60_000))} {
		Publish(t, b, "raw", data)
		r.WaitFor(t, Event{step, "raw", data})
	}
}

func order(t *testing.T, b Bus, r *Recorder) {
	Subscribe(t, b, step, "seq.a")
	Subscribe(t, b, 2*step, "seq.*")
	const n = 5000
	for i := range n {
		Publish(t, b, "seq.a", fmt.Sprint(i))
	}
	got := r.Wait(t, "all events", func(got []Event) bool { return len(got) >= 2*n })
	next := map[uint32]int{}
	for _, e := range got {
		if e.Data != fmt.Sprint(next[e.Handle]) {
			t.Fatalf("handle %d got %s, want %d", e.Handle, e.Data, next[e.Handle])
		}
		next[e.Handle]++
	}
}

func unsubscribed(t *testing.T, b Bus, r *Recorder) {
	Subscribe(t, b, step, "gone")
	Subscribe(t, b, 2*step, "stays")
	b.Unsubscribe(step)
	b.Unsubscribe(step)
	b.Unsubscribe(99 * step)
	Publish(t, b, "gone", "x")
	Publish(t, b, "stays", "x")
	if got := r.WaitFor(t, Event{2 * step, "stays", "x"}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func again(t *testing.T, b Bus, r *Recorder) {
	for i := uint32(1); i <= 20; i++ {
		Subscribe(t, b, i*step, "again")
		Publish(t, b, "again", "x")
		r.WaitFor(t, Event{i * step, "again", "x"})
		b.Unsubscribe(i * step)
	}
	if got := r.Events(); len(got) != 20 {
		t.Errorf("%d events: %v", len(got), got)
	}
}

func notKept(t *testing.T, b Bus, r *Recorder) {
	Subscribe(t, b, step, "kept.>")
	topic, data := []byte("kept.0"), []byte("0")
	for i := range byte(10) {
		topic[5], data[0] = '0'+i, '0'+i
		if c := b.Publish(topic, data); c != wire.OK {
			t.Fatal(c)
		}
	}
	b.Flush()
	topic[5], data[0] = 'x', 'x'
	got := r.Wait(t, "ten events", func(got []Event) bool { return len(got) == 10 })
	for i, e := range got {
		if want := string('0' + rune(i)); e.Data != want || e.Topic != "kept."+want {
			t.Errorf("event %d is %v", i, e)
		}
	}
}

func many(t *testing.T, b Bus, r *Recorder) {
	const n = 500
	var wg sync.WaitGroup
	codes := make(chan wire.Code, n)
	for i := range n {
		wg.Go(func() {
			b.Subscribe(uint32(i), fmt.Sprintf("many.%d", i), func(c wire.Code) { codes <- c })
		})
	}
	wg.Wait()
	for range n {
		select {
		case c := <-codes:
			if c != wire.OK {
				t.Fatal(c)
			}
		case <-time.After(patience):
			t.Fatal("answers are missing")
		}
	}
	for i := range n {
		wg.Go(func() {
			if c := b.Publish(fmt.Appendf(nil, "many.%d", i), nil); c != wire.OK {
				t.Errorf("publish: %v", c)
			}
		})
	}
	wg.Wait()
	b.Flush()
	got := r.Wait(t, "all events", func(got []Event) bool { return len(got) == n })
	for _, e := range got {
		if e.Topic != fmt.Sprintf("many.%d", e.Handle) {
			t.Errorf("handle %d got %s", e.Handle, e.Topic)
		}
	}
}

// answered: a bus that says it is busy says when it is not any more, behind the events.
func answered(t *testing.T, b Bus, r *Recorder) {
	Subscribe(t, b, step, "a.b")
	for i := range 200 {
		before := r.Answers()
		e := Event{step, "a.b", fmt.Sprint(i)}
		Publish(t, b, e.Topic, e.Data)
		if !b.Busy() {
			r.WaitFor(t, e)
			continue
		}
		r.Wait(t, "an end of being busy", func([]Event) bool { return !b.Busy() && r.Answers() > before })
		if got := r.Events(); count(got, e) != 1 {
			t.Fatalf("event %d was answered and came %d times", i, count(got, e))
		}
	}
}
