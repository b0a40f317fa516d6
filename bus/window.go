package bus

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/notifyd/notifyd/wire"
)

// A window has the last events of a feed in memory, for subscribers that were away for a moment. The feed's goroutine
// writes it.
type window struct {
	mu     sync.RWMutex
	from   uint64             // it has everything behind this position
	events []wire.StoredEvent // ascending; those that are there are not changed
	bytes  int
}

const (
	windowEvents = 4 << 10
	windowBytes  = 8 << 20
)

func sizeOf(e *wire.StoredEvent) int { return len(e.Topic) + len(e.Data) }

func (w *window) add(e *wire.StoredEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, *e)
	w.bytes += sizeOf(e)
	for len(w.events) > windowEvents || w.bytes > windowBytes {
		first := &w.events[0]
		w.bytes -= sizeOf(first)
		w.from = first.Seq
		w.events = w.events[1:]
	}
}

// forgetBefore drops what was stored before seq: it is gone from the stream.
func (w *window) forgetBefore(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seq <= w.from+1 {
		return
	}
	n := w.search(seq)
	for i := range w.events[:n] {
		w.bytes -= sizeOf(&w.events[i])
	}
	w.events = w.events[n:]
	w.from = seq - 1
}

// reset empties it.
func (w *window) reset(from uint64) {
	w.mu.Lock()
	w.from, w.events, w.bytes = from, nil, 0
	w.mu.Unlock()
}

// between gives the events behind after and up to upTo. ok is false if they are not all there.
func (w *window) between(after, upTo uint64) (events []wire.StoredEvent, ok bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if after < w.from {
		return nil, false
	}
	i, j := w.search(after+1), len(w.events)
	if upTo < math.MaxUint64 {
		j = w.search(upTo + 1)
	}
	return w.events[i:max(i, j)], true
}

// find gives the event at a position, nil if it is not there.
func (w *window) find(seq uint64) *wire.StoredEvent {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if i := w.search(seq); i < len(w.events) && w.events[i].Seq == seq {
		return &w.events[i]
	}
	return nil
}

// lastOf notes in seqs the last event of each of topics up to the position upTo, and returns the topics of which it is not
// known.
func (w *window) lastOf(topics []string, upTo uint64, seqs map[string]uint64) (unknown []string) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if n := len(w.events); n == 0 || w.events[n-1].Seq < upTo {
		return topics // something may be missing
	}
	wanted := make(map[string]bool, len(topics))
	for _, topic := range topics {
		wanted[topic] = true
	}
	for i := w.search(upTo+1) - 1; i >= 0 && len(wanted) > 0; i-- {
		if e := &w.events[i]; wanted[e.Topic] {
			seqs[e.Topic] = e.Seq
			delete(wanted, e.Topic)
		}
	}
	return slices.DeleteFunc(topics, func(topic string) bool { return !wanted[topic] })
}

// search gives the index of the first event at seq or behind it. mu is held.
func (w *window) search(seq uint64) int {
	i, _ := slices.BinarySearchFunc(w.events, seq, func(e wire.StoredEvent, seq uint64) int { return cmp.Compare(e.Seq, seq) })
	return i
}

// RecentFrom gives the position behind which [Stream.Recent] has everything.
func (s *Stream) RecentFrom() uint64 {
	w := &s.follower.feed.window
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.from
}

// Recent calls f for each event behind after and up to upTo that pattern matches, from memory, until f returns false. It
// returns false, and calls nothing, if memory does not reach back that far, or an event among them has outlived its time:
// the stream knows what is left then. f must not change the event.
func (s *Stream) Recent(after, upTo uint64, pattern string, f func(*wire.StoredEvent) (more bool)) bool {
	events, ok := s.follower.feed.window.between(after, upTo)
	now := time.Now().UnixNano()
	for i := range events {
		if e := &events[i]; e.Until != 0 && e.Until <= now && wire.Covers(pattern, e.Topic) {
			return false
		}
	}
	for i := range events {
		if e := &events[i]; wire.Covers(pattern, e.Topic) && !f(e) {
			break
		}
	}
	return ok
}
