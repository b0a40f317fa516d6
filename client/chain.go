package client

import "github.com/notifyd/notifyd/wire"

// rememberedTopics is of how many topics, at least, a subscription to a pattern knows the last event.
const rememberedTopics = 32 << 10

// source is a connection that brings the events of a subscription to durable topics, whole from a position on and
// ascending. While the subscription moves to another connection it has two.
type source struct {
	session *session
	since   uint64 // what this connection was asked for begins after it
	whole   uint64 // the stream's position when it answered: events up to it are replayed
	last    uint64 // that it has brought
}

// chain checks the events of one subscription to durable topics. A stream counts its events, so each is known by its seq,
// and names with each the one before on its topic. Sources may both bring an event; it is taken once.
type chain struct {
	seen uint64 // the last that was taken
	gone uint64 // what is before it may be missing: the server has said so

	// The last event of each topic, in two generations, so that a pattern with topics without end takes bounded memory.
	// That of a topic which is in neither is at or before floor.
	recent, older map[string]uint64
	floor, next   uint64 // next is the floor when recent becomes older and older is forgotten
}

func newChain(floor uint64) chain {
	return chain{recent: map[string]uint64{}, floor: floor, next: floor}
}

// take reports whether the event is to be handed on, and what is wrong with it. Where the server left out what was before
// an event, since the subscription has that, take says it.
func (c *chain) take(from *source, e *Event) (bool, *OrderError) {
	last, known := c.last(e.Topic)
	if e.Seq <= from.last {
		return false, &OrderError{Topic: e.Topic, Seq: e.Seq, Prev: e.Prev, Last: from.last, Dropped: true}
	}
	from.last = e.Seq
	if e.Seq <= c.seen {
		return false, nil // the other source was faster
	}
	var err *OrderError
	if c.isMissing(from, last, known, e) {
		err = &OrderError{Topic: e.Topic, Seq: e.Seq, Prev: e.Prev, Last: last}
	} else if known && last >= c.gone && e.Prev == wire.PrevUnknown {
		e.Prev = last
	}
	c.note(e.Topic, e.Seq)
	return true, err
}

// isMissing reports whether something must have come between last and seq.
func (c *chain) isMissing(from *source, last uint64, known bool, e *Event) bool {
	if e.Prev == wire.PrevUnknown { // only for the first of a topic in a replay
		return e.Seq > max(from.whole, c.gone) || known && last > max(from.since, c.gone)
	}
	// It may be before last: what was there has been removed from the stream since.
	return e.Prev > last && e.Prev >= c.gone
}

// last gives the last event of a topic that was taken, or where it was read from.
func (c *chain) last(topic string) (seq uint64, known bool) {
	if seq, known = c.recent[topic]; !known {
		seq, known = c.older[topic]
	}
	if !known {
		seq = c.floor
	}
	return seq, known
}

func (c *chain) note(topic string, seq uint64) {
	c.seen = seq
	if _, ok := c.recent[topic]; !ok && len(c.recent) >= rememberedTopics {
		c.older, c.recent = c.recent, map[string]uint64{}
		c.floor, c.next = c.next, seq-1
	}
	c.recent[topic] = seq
}
