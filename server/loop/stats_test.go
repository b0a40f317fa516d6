package loop

import "testing"

// Each reader gets the longest turn since it asked last, whatever the others have read.
func TestLongestTurnOfEachReader(t *testing.T) {
	var c counters
	c.turn(5)
	for _, step := range []struct {
		turn int64
		by   reader
		want int64
	}{{3, console, 5}, {2, console, 2}, {1, scrape, 5}, {0, scrape, 0}, {4, scrape, 4}, {0, console, 4}, {0, console, 0}} {
		c.turn(step.turn)
		if got := c.longest(step.by); got != step.want {
			t.Errorf("%+v: %d", step, got)
		}
	}
}
