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
	items   []item
	bytes   int    // of the events
	busy    bool   // serve is at work on one that it has taken
	dropped uint64 // since the last take
	closed  bool
	idle    chan struct{} // closed when there is nothing left to do; nil: nobody waits
}

// item is what the handler's goroutine has to do next.
type item struct {
	event Event
	is    bool     // there is an event
	gap   *Gap     // to be told before it
	at    Position // where the subscription is afterwards; zero: not known
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

func (e *Event) size() int { return eventOverhead + len(e.Topic) + len(e.Data) + len(e.From) }

// push queues an event, or counts it as dropped.
func (q *queue) push(e Event) {
	if !q.hasRoom(&e) {
		q.drop()
		return
	}
	q.add(item{event: e, is: true})
}

// hasRoom reports whether an event may be added. There is room for one of any size.
func (q *queue) hasRoom(e *Event) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes == 0 || q.bytes+e.size() <= q.limit
}

func (q *queue) add(i item) {
	q.mu.Lock()
	if !q.closed {
		q.items = append(q.items, i)
		q.bytes += i.size()
	}
	q.mu.Unlock()
	q.signal()
}

func (i *item) size() int {
	if !i.is {
		return 0
	}
	return i.event.size()
}

// drop counts an event that found no room.
func (q *queue) drop() {
	q.mu.Lock()
	q.dropped++
	q.mu.Unlock()
	q.signal()
}

// close drops what is queued.
func (q *queue) close() {
	q.mu.Lock()
	q.closed, q.items = true, nil
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// whenIdle gives a channel that is closed when all that is queued has been handled.
func (q *queue) whenIdle() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	idle := make(chan struct{})
	if q.closed || len(q.items) == 0 && !q.busy {
		close(idle)
	} else {
		q.idle = idle
	}
	return idle
}

// serve calls do for each item and lost for each run of dropped events, until the queue is closed.
func (q *queue) serve(do func(*item), lost func(n uint64)) {
	for range q.wake {
		for {
			q.mu.Lock()
			if q.closed {
				q.mu.Unlock()
				return
			}
			dropped := q.dropped
			q.dropped = 0
			var next item
			if q.busy = len(q.items) > 0; q.busy {
				next = q.items[0]
				q.items[0] = item{}
				q.items = q.items[1:]
				q.bytes -= next.size()
			} else if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			busy := q.busy
			q.mu.Unlock()
			if dropped > 0 {
				lost(dropped)
			}
			if !busy {
				break
			}
			do(&next)
		}
	}
}
