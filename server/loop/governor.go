package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// governor gives Go one processor to run goroutines on while there is little to do,
// and else all that the process may have. An event passes several goroutines on its
// way through NATS; while a processor is idle, Go wakes a thread at the first
// hand-off, which finds nothing to take over and parks again: two of three context
// switches an event. With one processor nobody is woken, and loops park (see parking).
//
// What takes long then holds up everything else. So it is one only while the process
// uses a part of it, and no turn writes much, as a fan-out to many does.
type governor struct {
	one  atomic.Bool  // there is to be one processor
	lump atomic.Int64 // when a turn last wrote much, Unix nanoseconds
	mu   sync.Mutex   // held while the number is changed

	second window // loop 0's: since its last tick
}

const (
	// A turn with more than lumpWrites calls of write(2), half a millisecond's, keeps
	// the other processors for lumpFor.
	lumpWrites = 128
	lumpFor    = 3 * time.Second
	// A second in which the process uses less than calmShare of one processor lets the
	// others go.
	calmShare = 0.4
	// busyShare of the one, over busyFor or from one turn to the next, brings the
	// others back.
	busyShare = 0.5
	busyFor   = 20 * time.Millisecond
)

// window is a time and the processor time that the process had used then, in
// nanoseconds.
type window struct{ at, used int64 }

// share is how much of one processor the process has used from w to now, where the
// next window begins.
func (w *window) share(now int64) float64 {
	used, ok := processTime()
	if !ok {
		return 1 // unknown
	}
	next := window{now, used}
	share := float64(next.used-w.used) / float64(next.at-w.at)
	*w = next
	return share
}

// govern is called at the end of a turn in which the loop wrote so many times.
func (l *Loop) govern(writes uint64) {
	g := &l.eng.governor
	switch {
	case writes > lumpWrites:
		g.lump.Store(l.now)
		l.eng.setOne(false)
	case g.one.Load() && uint64(l.now-l.window.at) > uint64(busyFor) && l.window.share(l.now) > busyShare:
		// Or the clock was set back.
		l.eng.setOne(false)
	}
}

// governTick is called about once a second.
func (l *Loop) governTick() {
	g := &l.eng.governor
	if l.index != 0 {
		return
	}
	if g.second.share(l.now) < calmShare && l.now-g.lump.Load() > int64(lumpFor) && !l.drain.active {
		l.eng.setOne(true)
	}
}

// setOne returns at once: a change waits for a garbage collection that runs.
func (e *Engine) setOne(one bool) {
	g := &e.governor
	if !g.one.CompareAndSwap(!one, one) {
		return
	}
	e.running.Go(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.one.Load() {
			runtime.GOMAXPROCS(1)
		} else {
			runtime.SetDefaultGOMAXPROCS()
		}
		for _, l := range e.loops {
			l.Post(func() {
				l.window.share(l.now) // a new one begins
				l.adapt()
			})
		}
	})
}
