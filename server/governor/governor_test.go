package governor

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// machine is a governor on a machine that a test makes up.
type machine struct {
	*Governor
	loop Window
	now  int64

	mu      sync.Mutex
	used    int64
	unknown bool
	sets    []bool // the changes that were made: to one processor, or to all
	told    int    // how many of them the loops know
}

func newMachine() *machine {
	m := &machine{now: int64(time.Hour)}
	m.Governor = &Governor{
		changed: func() { m.told++ },
		set: func(one bool) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.sets = append(m.sets, one)
		},
		processTime: func() (int64, bool) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.used, !m.unknown
		},
		aside: func(change func()) { change() },
	}
	m.lastTick.at = m.now
	return m
}

// pass lets time pass in which the process uses a share of one processor.
func (m *machine) pass(d time.Duration, share float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += int64(d)
	m.used += int64(share * float64(d))
}

// second lets a second pass, and a tick come.
func (m *machine) second(share float64) {
	m.pass(time.Second, share)
	m.Tick(m.now)
}

func (m *machine) turn(writes int) {
	m.Turn(&m.loop, m.now, writes)
}

// want requires the changes that were made since the machine began.
func (m *machine) want(t *testing.T, what string, sets ...bool) {
	t.Helper()
	if !slices.Equal(m.sets, sets) {
		t.Fatalf("%s: changes %v, want %v (true is to one processor)", what, m.sets, sets)
	}
}

func TestOneProcessorWhileThereIsLittleToDo(t *testing.T) {
	m := newMachine()
	m.second(0.5)
	m.want(t, "half a processor is used")
	m.second(0.39)
	m.want(t, "a calm second", true)
	m.second(0.1)
	m.want(t, "another", true)
	if m.told != 1 {
		t.Errorf("the loops were told %d times", m.told)
	}
}

func TestAllProcessorsForWork(t *testing.T) {
	m := newMachine()
	m.second(0)
	m.turn(1) // begins a window
	m.pass(busyFor, 1)
	m.turn(1)
	m.want(t, "busy, but not for long enough", true)
	m.pass(time.Millisecond, 1)
	m.turn(1)
	m.want(t, "busy", true, false)
	m.turn(1)
	m.second(0.41)
	m.want(t, "not calm yet", true, false)
	m.second(0.1)
	m.want(t, "calm", true, false, true)
	m.pass(busyFor+1, 1)
	m.turn(1)
	m.want(t, "a window does not reach over a change", true, false, true)
	m.pass(busyFor+1, 0.49)
	m.turn(1)
	m.want(t, "half a processor", true, false, true)
	m.now -= int64(time.Hour)
	m.pass(0, 0)
	m.turn(1)
	m.pass(busyFor+1, 0.51)
	m.turn(1)
	m.want(t, "more than half, after the clock was set back", true, false, true, false)
}

func TestAllProcessorsForAFanOut(t *testing.T) {
	m := newMachine()
	m.second(0)
	m.turn(manyWrites)
	m.want(t, "a turn that writes little", true)
	m.turn(manyWrites + 1)
	m.want(t, "a turn that writes much", true, false)
	for range keepFor / time.Second {
		m.second(0)
		m.want(t, "calm, but the fan-out was not long ago", true, false)
	}
	m.second(0)
	m.want(t, "calm", true, false, true)
}

// Where the processor time is unknown, nothing is changed.
func TestUnknownProcessorTime(t *testing.T) {
	m := newMachine()
	m.unknown = true
	m.second(0)
	m.turn(1)
	m.want(t, "unknown")
}

// A program that ends has all its processors, whatever comes.
func TestStop(t *testing.T) {
	m := newMachine()
	m.second(0)
	m.want(t, "calm", true)
	m.Stop()
	m.want(t, "stopped", true, false)
	m.second(0)
	m.want(t, "calm after Stop", true, false)
}

// A change that is still to be made when the program ends does not keep its
// processors from it.
func TestStopDuringAChange(t *testing.T) {
	for range 100 {
		m := newMachine()
		m.second(0)
		m.aside = func(change func()) { go change() }
		m.Governor.mu.Lock()
		m.Turn(&m.loop, m.now, manyWrites+1) // to all; its goroutine waits for mu
		m.Governor.mu.Unlock()
		m.Stop()
		m.want(t, "stopped", true, false)
	}
}

// A loop that still runs may ask for a change while the governor stops, and after it.
func TestTurnsBesideStop(t *testing.T) {
	for range 100 {
		m := newMachine()
		m.second(0)
		m.aside = func(change func()) { go change() }
		now := m.now
		var loops sync.WaitGroup
		loops.Go(func() {
			for range 10 {
				m.Turn(&m.loop, now, manyWrites+1)
				m.one.Store(true)
			}
		})
		m.Stop()
		loops.Wait()
		m.mu.Lock()
		if last := m.sets[len(m.sets)-1]; last {
			t.Fatalf("changes %v: a stopped governor left one processor", m.sets)
		}
		m.mu.Unlock()
	}
}

// The process's own time goes on with what it does.
func TestProcessTime(t *testing.T) {
	before, ok := processTime()
	if runtime.GOOS != "linux" {
		if ok {
			t.Error("known")
		}
		return
	}
	for after := before; ok && after == before; {
		runtime.Gosched()
		after, ok = processTime()
	}
	if !ok {
		t.Error("unknown")
	}
}
