// Package history checks what happened to the events of a durable topic: what publishers were told, what the stream holds
// and what its readers saw have to agree. It knows nothing of NATS, sockets or the client; tests bring it three lists.
package history

import (
	"fmt"
	"math"

	"github.com/notifyd/notifyd/wire"
)

// An Ack is what a publisher was told. Data tells events apart: no two publishes may have the same.
type Ack struct {
	Topic, Data string
	Seq         uint64
}

// An Event is one as the stream holds it, or as a reader saw it.
type Event struct {
	Topic, Data string
	Seq         uint64
	Prev        uint64 // PrevUnknown: not told
}

// PrevUnknown is the Prev of an event that came without.
const PrevUnknown = math.MaxUint64

// A Reader is one subscription, over all its connections.
type Reader struct {
	Name    string
	Pattern string
	After   uint64 // where it began: events up to this one are not for it
	Seen    []Event
	Resumed []int // how many it had seen whenever it resumed, ascending
	Gaps    []Gap
}

// A Gap is a hole that a reader was told of: what it covers between After and First is gone.
type Gap struct{ After, First uint64 }

// Check gives a sentence for each promise that was broken, up to enough to see what is wrong. Events are the stream's, in
// its order, from its first to its last.
//
//   - What was acknowledged is in the stream once, on its topic, at the seq of the ack.
//   - Nothing is in the stream twice.
//   - Each reader saw each event that its pattern covers once, ascending within a topic, up to the stream's last, unless
//     it was told of a gap.
//   - prev is the seq of the topic's event before. It may be unknown of the first of each topic that comes after a resume.
func Check(acks []Ack, events []Event, readers []Reader) []string {
	c := checker{bySeq: make(map[uint64]Event, len(events)), prev: make(map[uint64]uint64, len(events))}
	c.stream(events)
	c.acks(acks)
	for i := range readers {
		c.reader(&readers[i], events)
	}
	return c.problems
}

// enough is how many problems are listed.
const enough = 20

type checker struct {
	bySeq    map[uint64]Event
	prev     map[uint64]uint64 // of each event, as the stream has it
	problems []string
}

func (c *checker) problem(format string, args ...any) {
	if len(c.problems) < enough {
		c.problems = append(c.problems, fmt.Sprintf(format, args...))
	}
}

func (c *checker) stream(events []Event) {
	last := uint64(0)
	ofTopic, ofData := map[string]uint64{}, map[string]uint64{}
	for _, e := range events {
		if e.Seq <= last {
			c.problem("the stream: seq %d follows %d", e.Seq, last)
		}
		if before, ok := ofData[e.Data]; ok {
			c.problem("the stream holds %q twice, as %d and %d", e.Data, before, e.Seq)
		}
		c.bySeq[e.Seq], c.prev[e.Seq] = e, ofTopic[e.Topic]
		last, ofTopic[e.Topic], ofData[e.Data] = e.Seq, e.Seq, e.Seq
	}
}

func (c *checker) acks(acks []Ack) {
	for _, a := range acks {
		if e, ok := c.bySeq[a.Seq]; !ok || e.Data != a.Data || e.Topic != a.Topic {
			c.problem("acknowledged and lost: %q on %s as %d; the stream has %q on %q there", a.Data, a.Topic, a.Seq, e.Data, e.Topic)
		}
	}
}

func (c *checker) reader(r *Reader, events []Event) {
	seen := make(map[uint64]bool, len(r.Seen))
	ofTopic := map[string]uint64{}
	linked := map[string]bool{} // topics of which something has come since the last resume
	resumed := r.Resumed
	for i, e := range r.Seen {
		for ; len(resumed) > 0 && resumed[0] <= i; resumed = resumed[1:] {
			clear(linked)
		}
		stored, ok := c.bySeq[e.Seq]
		switch {
		case !ok:
			c.problem("%s saw %d, which the stream does not hold: %q", r.Name, e.Seq, e.Data)
			continue
		case stored.Data != e.Data || stored.Topic != e.Topic:
			c.problem("%s saw %d as %q on %s; it is %q on %s", r.Name, e.Seq, e.Data, e.Topic, stored.Data, stored.Topic)
		case seen[e.Seq]:
			c.problem("%s saw %d twice", r.Name, e.Seq)
		case e.Seq <= r.After || !wire.Covers(r.Pattern, e.Topic):
			c.problem("%s saw %d on %s, which is not for it", r.Name, e.Seq, e.Topic)
		}
		last := ofTopic[e.Topic]
		if e.Seq < last {
			c.problem("%s saw %d of %s after %d", r.Name, e.Seq, e.Topic, last)
		}
		switch {
		case e.Prev == PrevUnknown:
			if linked[e.Topic] {
				c.problem("%s was not told what came before %d of %s, which was not the first that it saw", r.Name, e.Seq, e.Topic)
			}
		case e.Prev != c.prev[e.Seq]:
			c.problem("%s was told that %d came before %d of %s; it was %d", r.Name, e.Prev, e.Seq, e.Topic, c.prev[e.Seq])
		}
		seen[e.Seq], ofTopic[e.Topic], linked[e.Topic] = true, e.Seq, true
	}
	for _, e := range events {
		if e.Seq > r.After && wire.Covers(r.Pattern, e.Topic) && !seen[e.Seq] && !r.knows(e.Seq) {
			c.problem("%s never saw %d of %s (the stream's last is %d)", r.Name, e.Seq, e.Topic, events[len(events)-1].Seq)
		}
	}
}

// knows says whether the reader was told that seq is gone.
func (r *Reader) knows(seq uint64) bool {
	for _, g := range r.Gaps {
		if seq > g.After && seq < g.First {
			return true
		}
	}
	return false
}
