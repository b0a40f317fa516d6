//go:build linux

package auth

import (
	"time"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

const (
	// concurrency is how many operations are under way at once.
	concurrency = 8
	// rest lets the server finish what the case before has left behind.
	rest = 30 * time.Millisecond
)

// cost measures a case once.
func (b *bench) cost(c *Cost) (micros float64, err error) {
	op, end, err := c.prepare(c.n)
	if err != nil {
		return 0, err
	}
	defer end()
	time.Sleep(rest)
	before, err := b.server.CPU()
	if err != nil {
		return 0, err
	}
	if err := rig.Each(c.n, concurrency, op); err != nil {
		return 0, err
	}
	after, err := b.server.CPU()
	return float64((after - before).Nanoseconds()) / 1e3 / float64(c.n), err
}
