package client

import "sync"

// eventOverhead is what an event costs beside its bytes.
const eventOverhead = 64

// queue holds the events of one subscription between the connection's reader, which never waits, and the goroutine
// that calls the handler.
type queue struct {
	limit int
	wake  chan struct{} // capacity 1: there may be something to take

	mu      sync.Mutex
	events  []Event
	bytes   int
	dropped uint64 // since the last take
	closed  bool
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

func (e *Event) size() int { return eventOverhead + len(e.Topic) + len(e.Data) }

func (q *queue) push(e Event) {
	q.mu.Lock()
	switch {
	case q.closed:
	case len(q.events) > 0 && q.bytes+e.size() > q.limit:
		q.dropped++
	default:
		q.events = append(q.events, e)
		q.bytes += e.size()
	}
	q.mu.Unlock()
	q.signal()
}

// drop counts an event that found no room before it came here.
func (q *queue) drop() {
	q.mu.Lock()
	q.dropped++
	q.mu.Unlock()
	q.signal()
}

// close drops what is queued.
func (q *queue) close() {
	q.mu.Lock()
	q.closed, q.events = true, nil
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// serve calls handle for each event and lost for each run of dropped ones, until the queue is closed.
func (q *queue) serve(handle func(Event), lost func(n uint64)) {
	for range q.wake {
		for {
			q.mu.Lock()
			if q.closed {
				q.mu.Unlock()
				return
			}
			dropped := q.dropped
			q.dropped = 0
			var e Event
			some := len(q.events) > 0
			if some {
				e = q.events[0]
				q.events[0] = Event{}
				q.events = q.events[1:]
				q.bytes -= e.size()
			}
			q.mu.Unlock()
			if dropped > 0 {
				lost(dropped)
			}
			if !some {
				break
			}
			handle(e)
		}
	}
}
