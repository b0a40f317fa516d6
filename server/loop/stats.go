package loop

import "math/bits"

// Stats is what the loops counted since the engine started.
type Stats struct {
	Open         int64  // connections with a finished handshake
	Pending      int64  // bytes that wait for peers whose sockets had no room
	Accepted     uint64 // sockets accepted
	Upgraded     uint64 // handshakes answered with 101
	Refused      uint64 // handshakes answered otherwise
	HTTP         uint64 // connections given to net/http
	Timeouts     uint64 // handshakes, messages and silences that took too long
	AcceptErrors uint64 // times that accept(2) failed because descriptors or memory ran out
	Slow         uint64 // connections closed for not reading
	BytesIn      uint64
	BytesOut     uint64
	FramesIn     uint64
	FramesOut    uint64
	Messages     uint64 // complete messages handed to the handler
	Writes       uint64 // write(2) calls
	Deliveries   uint64 // frames of batches, each member that they were due to counting
	BatchFrames  uint64 // frames of batches, each batch counting once
	Turns        uint64
	TurnNanos    uint64 // time spent in turns; TurnNanos/Turns is the mean lag that a turn adds
	TurnMax      int64  // the longest turn since the last call of the same function, nanoseconds
	// Batches counts group batches by the number of their frames: index i is
	// those of 2^i and more frames, up to 2^(i+1)-1.
	Batches [12]uint64
	// Delays counts events of batches that the bus handed over ([Batch.Came]), once for
	// each loop and group, by the time until all of the group's members have been written
	// to: see [DelayBounds]. DelayNanos is the sum.
	Delays     [18]uint64
	DelayNanos uint64
}

// reader is one of those that ask for stats: what one reads does not take the longest turn from another.
type reader uint8

const (
	scrape reader = iota
	console
	readers
)

// counters is one loop's share; only its goroutine touches it, so that counting
// costs an increment.
type counters struct {
	open, pending                                                          int64
	accepted, upgraded, refused, http, timeouts, acceptErrors, slow        uint64
	bytesIn, bytesOut, framesIn, framesOut, messages, writes, turns, nanos uint64
	deliveries, batchFrames                                                uint64
	turnMax                                                                int64 // since somebody read it
	unread                                                                 [readers]int64
	batches                                                                [12]uint64
	delays                                                                 delays
}

func (s *counters) batch(frames int) {
	s.batches[min(bits.Len(uint(frames)|1)-1, len(s.batches)-1)]++
	s.batchFrames += uint64(frames)
}

func (s *counters) served(frames, members int) {
	s.deliveries += uint64(frames) * uint64(members)
	s.framesOut += uint64(frames) * uint64(members)
}

func (s *counters) turn(nanos int64) {
	s.turns++
	s.nanos += uint64(max(nanos, 0))
	s.turnMax = max(s.turnMax, nanos)
}

// longest is the longest turn since r asked last.
func (s *counters) longest(r reader) int64 {
	for i := range s.unread {
		s.unread[i] = max(s.unread[i], s.turnMax)
	}
	m := s.unread[r]
	s.turnMax, s.unread[r] = 0, 0
	return m
}

// Stats adds the loops' counters up. It asks each loop and waits for the
// answers, so it must not be called on a loop's goroutine.
func (e *Engine) Stats() Stats { return e.stats(scrape) }

// ConsoleStats is Stats for a page that shows figures each second. It leaves the longest turn to the metrics.
func (e *Engine) ConsoleStats() Stats { return e.stats(console) }

func (e *Engine) stats(r reader) Stats {
	parts := make([]counters, len(e.loops))
	e.Do(func(l *Loop) {
		m := l.stat.longest(r)
		parts[l.index] = l.stat
		parts[l.index].turnMax = m
	})
	var t Stats
	for i := range parts {
		p := &parts[i]
		t.Open += p.open
		t.Pending += p.pending
		t.Accepted += p.accepted
		t.Upgraded += p.upgraded
		t.Refused += p.refused
		t.HTTP += p.http
		t.Timeouts += p.timeouts
		t.AcceptErrors += p.acceptErrors
		t.Slow += p.slow
		t.BytesIn += p.bytesIn
		t.BytesOut += p.bytesOut
		t.FramesIn += p.framesIn
		t.FramesOut += p.framesOut
		t.Messages += p.messages
		t.Writes += p.writes
		t.Deliveries += p.deliveries
		t.BatchFrames += p.batchFrames
		t.Turns += p.turns
		t.TurnNanos += p.nanos
		t.TurnMax = max(t.TurnMax, p.turnMax)
		for j, n := range p.batches {
			t.Batches[j] += n
		}
		for j, n := range p.delays.counts {
			t.Delays[j] += n
		}
		t.DelayNanos += p.delays.nanos
	}
	return t
}
