//go:build linux

package loop

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// An event is counted in the first bucket whose bound its delay is not above.
func TestDelayBuckets(t *testing.T) {
	bounds := DelayBounds()
	if len(bounds) != len(Stats{}.Delays)-1 || bounds[0] != 50e-6 || bounds[len(bounds)-1] != 3.2768 {
		t.Fatalf("%v", bounds)
	}
	for _, delay := range []time.Duration{
		-time.Second, 0, 1, 50 * time.Microsecond, 50*time.Microsecond + 1, 100 * time.Microsecond, 101 * time.Microsecond, time.Millisecond,
		1600 * time.Microsecond, 1601 * time.Microsecond, time.Second, 3276800 * time.Microsecond, 3276801 * time.Microsecond, time.Hour,
	} {
		var d delays
		d.count(int64(delay), 3)
		want := 0
		for want < len(bounds) && delay.Seconds() > bounds[want] {
			want++
		}
		if d.counts[want] != 3 || d.nanos != uint64(3*max(delay, 0)) {
			t.Errorf("%v: %v, sum %d, want the bucket %d", delay, d.counts, d.nanos, want)
		}
	}
}

// The events of a batch count from when the first of those came that are merged with it, once all members have been written
// to; what nobody said of when it came does not count; nor does a peer that does not read make them late.
func TestDelaysAreCounted(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	var g, other Group
	fd, _ := pair(t)
	c := l.member(fd)
	g.Join(&Member{Conn: c, Until: forever})
	deliver := func(g *Group, came time.Duration, texts ...string) {
		b := batch(texts...)
		b.Came(int64(came))
		l.Deliver(g, b)
	}
	turn := func(at time.Duration) (counted []uint64) {
		before := l.stat.delays.counts
		l.take()
		l.flush()
		l.mono = int64(at)
		l.countDelays()
		for i, n := range l.stat.delays.counts {
			for range n - before[i] {
				counted = append(counted, uint64(i))
			}
		}
		return counted
	}
	const ms = time.Millisecond
	deliver(&g, ms, "1")
	deliver(&g, 2*ms, "2", "3")
	deliver(&other, 2*ms, "4")
	if got := turn(2*ms + 70*time.Microsecond); !slices.Equal(got, []uint64{1, 5, 5, 5}) { // 70 µs, and 1.07 ms
		t.Errorf("merged: %v", got)
	}
	deliver(&g, 0, "5")
	if got := turn(time.Hour); got != nil {
		t.Errorf("of no time: %v", got)
	}
	deliver(&g, 0, "6")
	deliver(&g, 3*ms, "7")
	if got := turn(3*ms + 1); !slices.Equal(got, []uint64{0, 0}) {
		t.Errorf("of no time, merged with one that has it: %v", got)
	}
	big := strings.Repeat("b", 200<<10)
	for i := 0; c.out == nil && i < 100; i++ {
		deliver(&g, 4*ms, big)
		if got := turn(4*ms + 1); !slices.Equal(got, []uint64{0}) {
			t.Fatalf("one that waits for its peer: %v", got)
		}
	}
	if c.out == nil {
		t.Fatal("nothing waits for the peer")
	}
	deliver(&g, 5*ms, "8")
	if got := turn(5*ms + 1); !slices.Equal(got, []uint64{0}) {
		t.Errorf("behind what waits: %v", got)
	}
	c.abort()
	l.reap()
}

// A batch from the pool, or an exact copy of one, does not keep or lose when its first message came.
func TestCameIsOfOneBatch(t *testing.T) {
	b := batch("1")
	b.b = slices.Grow(b.b, 10_000)
	b.Came(7)
	if x := b.Fit(); x == b || x.came != 7 {
		t.Errorf("the copy came at %d", x.came)
	}
	if b.came != 0 {
		t.Errorf("what is back in the pool came at %d", b.came)
	}
}
