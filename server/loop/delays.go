package loop

import (
	"math/bits"
	"time"
)

// The delay of an event is the time from when the bus handed over the first one of its
// batch until all members of the group have been written to. What waits for a peer that
// does not read is not in it. A batch is measured as a whole, by a clock that was read
// anyway: none of its events has waited for longer.

// delayUnit is the bound of the first bucket of delays; each next one is twice as much.
const delayUnit = 50 * time.Microsecond

// delays counts events by their delay.
type delays struct {
	counts [18]uint64 // the last one without a bound
	nanos  uint64     // of all events together
}

// DelayBounds are the bounds of the buckets of [Stats.Delays], in seconds. The last
// bucket has none.
func DelayBounds() []float64 {
	bounds := make([]float64, len(delays{}.counts)-1)
	for i := range bounds {
		bounds[i] = (delayUnit << i).Seconds()
	}
	return bounds
}

func (d *delays) count(nanos int64, events int) {
	i := 0
	if nanos > 0 {
		i = bits.Len64(uint64(nanos-1) / uint64(delayUnit))
		d.nanos += uint64(nanos) * uint64(events)
	}
	d.counts[min(i, len(d.counts)-1)] += uint64(events)
}

// ended is batches that came at one time and of which all was written in this turn.
type ended struct {
	came   int64
	events int
}

// noteEnd notes that all of b has been written.
func (f *fanout) noteEnd(b *Batch) {
	switch last := len(f.ended) - 1; {
	case b.came == 0:
	case last >= 0 && f.ended[last].came == b.came: // as most of a round of the bus
		f.ended[last].events += b.n
	default:
		f.ended = append(f.ended, ended{b.came, b.n})
	}
}

// countDelays counts what was noted, at the end of a turn, when the clock has been read.
func (l *Loop) countDelays() {
	for _, e := range l.fanout.ended {
		l.stat.delays.count(l.mono-e.came, e.events)
	}
	l.fanout.ended = l.fanout.ended[:0]
}
