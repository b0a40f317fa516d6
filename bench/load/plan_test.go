//go:build linux

package load

import (
	"slices"
	"strings"
	"testing"
)

func TestPlans(t *testing.T) {
	for _, c := range []struct {
		plan    Plan
		writers map[int][]int // topic: publishing connections
		topics  map[int][]int // subscribing connection: topics
	}{
		{Fanout(3), map[int][]int{0: {0}}, map[int][]int{0: {0}, 2: {0}}},
		{Pairs(3), map[int][]int{0: {0}, 2: {2}}, map[int][]int{0: {0}, 2: {2}}},
		{Pairs(2500), map[int][]int{0: {0}, 999: {999}, 1000: {0}, 2499: {499}}, map[int][]int{2499: {2499}}},
		{ManyPublishers(3), map[int][]int{0: {0, 1, 2}}, map[int][]int{0: {0}}},
		{Beside(3, 100), map[int][]int{0: {0}, 2: {2}}, map[int][]int{0: {0}, 2: {2}}},
		{Durable(3), map[int][]int{0: {0}, 2: {2}}, nil},
		{Resume(3, 100, 5), map[int][]int{0: {0}, 2: {2}}, map[int][]int{0: {0}, 2: {2}}},
		{Flood(3), map[int][]int{0: {0}, 2: {2}}, map[int][]int{0: {0}, 2: {2}}},
		{ManySubscriptions(2, 3), map[int][]int{0: {0}, 1: {1}, 5: {1}}, map[int][]int{0: {0, 1, 2}, 1: {3, 4, 5}}},
	} {
		if err := c.plan.check(); err != nil {
			t.Error(err)
		}
		publishers := make([]*conn, c.plan.Publishers)
		for i := range publishers {
			publishers[i] = &conn{id: i}
		}
		writers := c.plan.writers(publishers)
		if len(writers) != c.plan.Topics {
			t.Errorf("%s: writers of %d topics", c.plan.Name, len(writers))
		}
		for topic, want := range c.writers {
			var got []int
			for _, w := range writers[topic] {
				got = append(got, w.id)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: topic %d is written by %v, want %v", c.plan.Name, topic, got, want)
			}
		}
		for i, want := range c.topics {
			if got := c.plan.topics(i); !slices.Equal(got, want) {
				t.Errorf("%s: connection %d reads %v, want %v", c.plan.Name, i, got, want)
			}
		}
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		plan Plan
		want string
	}{
		{Fanout(0), "at least one"},
		{Beside(3, 0), "at least one in the fan-out"},
		{Durable(0), "at least one"},
		{Replay(0, 1), "at least one"},
		{Replay(1, 0), "at least one event"},
		{Resume(1, 0, 1), "one client"},
		{Resume(1, 1, 0), "one event"},
		{Slow(9), "ten subscribers"},
		{ManySubscriptions(1<<13, 1<<12), "can be told apart"},
	} {
		if err := c.plan.check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.plan.Name, err, c.want)
		}
	}
}

func TestDescriptors(t *testing.T) {
	if err := enoughDescriptors(1 << 31); err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Error(err)
	}
	if n := Fanout(5).Processes(); n != 1 {
		t.Errorf("%d processes for five connections", n)
	}
	if n := Fanout(1 << 31).Processes(); n < 2 {
		t.Errorf("%d processes for more connections than one may have", n)
	}
	if n := Durable(1 << 31).Processes(); n != 1 {
		t.Errorf("%d processes, though nobody subscribes", n)
	}
	if n := ManyPublishers(1 << 31).Processes(); n != 1 {
		t.Errorf("%d processes, though publishers are not shared", n)
	}
}

// TestOpenLoopIsDue: the nth event is due n intervals after the first, however
// late the one before it was.
func TestOpenLoopIsDue(t *testing.T) {
	e := &engine{pace: pace{Load: Load{Rate: 3000}, began: 5}}
	for sent, want := range map[uint64]int64{0: 5, 1: 333_338, 3000: 1_000_000_005, 3 * 3600 * 3000: 10_800_000_000_005} {
		if e.sent = sent; e.due() != want {
			t.Errorf("event %d: %d, want %d", sent, e.due(), want)
		}
	}
}
