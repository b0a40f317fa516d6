// Package governor decides how many processors Go has (runtime.GOMAXPROCS): one while
// there is little to do, and else all that the process may have.
//
// An event passes several goroutines on its way through NATS. While a processor is
// idle, Go wakes a thread at the first hand-over, which finds nothing to take over and
// parks again: two of three context switches an event. With one processor no thread is
// woken.
//
// A turn of a loop that takes long then holds up everything else. So there is one
// processor only while the process uses a part of it, and no turn writes much, as a
// fan-out to many does.
package governor

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// manyWrites is how many calls of write(2) in one turn, half a millisecond's, keep
	// all processors for keepFor.
	manyWrites = 128
	keepFor    = 3 * time.Second
	// calmShare is the part of one processor that the process may use in a second for
	// the others to go.
	calmShare = 0.4
	// busyShare is the part of the one processor that brings the others back, when it
	// is used over busyFor or from one turn to the next.
	busyShare = 0.5
	busyFor   = 20 * time.Millisecond
)

// Governor sets the number of processors for the whole program.
type Governor struct {
	changed     func()
	set         func(one bool)
	processTime func() (nanos int64, ok bool)
	aside       func(change func()) // runs a change in a goroutine of its own

	one      atomic.Bool   // there is to be one processor
	changes  atomic.Uint32 // counts them; a window does not reach over one
	wroteAt  atomic.Int64  // when a turn last wrote much, Unix nanoseconds
	lastTick Window

	mu      sync.Mutex // held while the number is changed
	isOne   bool       // guarded by mu: what was set last
	stopped bool       // guarded by mu
}

// New makes a governor that calls changed, from a goroutine of its own, after each
// change. It returns nil when Go has only one processor to begin with.
func New(changed func()) *Governor {
	if runtime.GOMAXPROCS(0) == 1 {
		return nil
	}
	return &Governor{
		changed: changed, set: setProcessors, processTime: processTime,
		aside: func(change func()) { go change() },
	}
}

func setProcessors(one bool) {
	if one {
		runtime.GOMAXPROCS(1)
	} else {
		runtime.SetDefaultGOMAXPROCS()
	}
}

// Window is a time, and the processor time that the process had used then, both in
// nanoseconds. Each loop has one.
type Window struct {
	at, used int64
	changes  uint32
}

// next returns the share of one processor that the process has used since w began,
// and begins w anew.
func (g *Governor) next(w *Window, now int64) (share float64) {
	used, ok := g.processTime()
	if !ok {
		return 1 // unknown
	}
	share = float64(used-w.used) / float64(now-w.at)
	w.at, w.used = now, used
	return share
}

// Turn is called at the end of a turn of a loop, on its goroutine, with its window, the
// time in Unix nanoseconds, and how many times the turn has written.
func (g *Governor) Turn(w *Window, now int64, writes int) {
	switch {
	case writes > manyWrites:
		g.wroteAt.Store(now)
		g.setOne(false)
	case !g.one.Load():
	case w.changes != g.changes.Load():
		w.changes = g.changes.Load()
		g.next(w, now)
	case uint64(now-w.at) > uint64(busyFor) && g.next(w, now) > busyShare:
		// Or the clock was set back.
		g.setOne(false)
	}
}

// Tick is called about once a second, from one goroutine.
func (g *Governor) Tick(now int64) {
	if g.next(&g.lastTick, now) < calmShare && now-g.wroteAt.Load() > int64(keepFor) {
		g.setOne(true)
	}
}

// Stop gives the program all processors back, for good, and waits until it has them. The loops may still run: what
// their turns ask for from now on comes to nothing.
func (g *Governor) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	if g.isOne {
		g.isOne = false
		g.set(false)
	}
}

// setOne returns at once: a change waits for a garbage collection that runs.
func (g *Governor) setOne(one bool) {
	if !g.one.CompareAndSwap(!one, one) {
		return
	}
	g.aside(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		one := g.one.Load() // perhaps another change has come meanwhile
		if g.stopped || one == g.isOne {
			return
		}
		g.isOne = one
		g.set(one)
		g.changes.Add(1)
		g.changed()
	})
}
