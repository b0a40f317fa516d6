package client

import (
	"hash/maphash"
	"sync"
	"time"
)

// overlapLag is how far one node may be behind another. Two equal events that two connections bring within it are one.
const overlapLag = 500 * time.Millisecond

// arriveLag is how long what a node has handed to NATS, or NATS to a node, may be on its way: so long a subscription stays
// with the old node after the new one has confirmed it, and a publish on the new one waits for those on the old.
const arriveLag = overlapLag / 2

// overlap is the time in which two connections bring the events of one subscription: that of a node which restarts, and
// the one that takes its place. The handler sees each event once, in order: what the new connection brings is held back
// until the old one brings no more, and goes on then without what the old one has brought.
//
// Events have no names, so their topics and bytes are compared. Equal events are counted.
type overlap struct {
	old  *session
	seed maphash.Seed

	mu      sync.Mutex
	brought []arrival      // over the old connection and not yet over the new one; in order of time
	count   map[uint64]int // of brought, by hash
	held    []heldEvent    // brought by the new connection
	bytes   int            // of held
	over    bool           // the old connection brings no more
}

type arrival struct {
	hash uint64
	at   time.Time
	both bool // over the new connection too
}

type heldEvent struct {
	Event
	at time.Time
}

func newOverlap(old *session) *overlap {
	return &overlap{old: old, seed: maphash.MakeSeed(), count: map[uint64]int{}}
}

func (o *overlap) hash(e *Event) uint64 {
	var h maphash.Hash
	h.SetSeed(o.seed)
	_, _ = h.WriteString(e.Topic)
	_ = h.WriteByte(0) // no topic has it
	_, _ = h.Write(e.Data)
	return h.Sum64()
}

// begin forgets what a new connection that came to nothing has brought: the old one has brought it too, or will.
func (o *overlap) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.held, o.bytes = nil, 0
	}
}

// push takes an event to q, or holds it back, or drops it.
func (o *overlap) push(from *session, e Event, q *queue) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case from == o.old:
		if !o.over {
			o.note(&e, now)
			q.push(e)
		}
	case o.over:
		o.pushNew(e, now, q)
	case o.bytes+e.size() <= q.limit:
		o.held = append(o.held, heldEvent{e, now})
		o.bytes += e.size()
	default:
		q.drop()
	}
}

// note remembers an event of the old connection, for as long as the new one may bring it.
func (o *overlap) note(e *Event, now time.Time) {
	since := now
	if len(o.held) > 0 {
		since = o.held[0].at
	}
	for len(o.brought) > 0 && since.Sub(o.brought[0].at) > overlapLag {
		if first := o.brought[0]; !first.both {
			o.forget(first.hash)
		}
		o.brought = o.brought[1:]
	}
	hash := o.hash(e)
	o.brought = append(o.brought, arrival{hash: hash, at: now})
	o.count[hash]++
}

func (o *overlap) forget(hash uint64) {
	if o.count[hash]--; o.count[hash] == 0 {
		delete(o.count, hash)
	}
}

// pushNew takes an event that the new connection has brought to q unless the old one has brought it.
func (o *overlap) pushNew(e Event, at time.Time, q *queue) {
	if hash := o.hash(&e); o.count[hash] > 0 {
		for i := range o.brought {
			a := &o.brought[i]
			if !a.both && a.hash == hash && at.Sub(a.at).Abs() <= overlapLag {
				a.both = true
				o.forget(hash)
				return
			}
		}
	}
	q.push(e)
}

// end lets the new connection's events go.
func (o *overlap) end(q *queue) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	for _, e := range o.held {
		o.pushNew(e.Event, e.at, q)
	}
	o.held, o.bytes = nil, 0
}
