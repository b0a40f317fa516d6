//go:build linux

package auth

import (
	"time"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// cost is one case and what it costs the server.
type cost struct {
	Name   string  `json:"name"`  // a strategy, or a kind of token
	Token  string  `json:"token"` // fresh or remembered
	Alg    string  `json:"alg"`
	Micros summary `json:"cpu_us"`
	Ratio  summary `json:"ratio"` // to the base case of the same algorithm, round by round

	rounds []float64 // CPU of the server in µs for one operation
	n      int
	// prepare makes ready what does not count, and returns the operation, which
	// is done n times, and the end, after which it is as before.
	prepare func(n int) (op func(i int) error, end func(), err error)
}

const (
	fresh      = "fresh"      // each operation has a token of its own
	remembered = "remembered" // all have the same, which the server knows

	// hands is how many operations are under way at once.
	hands = 8
	// rest lets the server finish what the case before has left behind.
	rest = 30 * time.Millisecond
)

// cost measures a case once.
func (b *bench) cost(c *cost) (micros float64, err error) {
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
	if err := rig.Each(c.n, hands, op); err != nil {
		return 0, err
	}
	after, err := b.server.CPU()
	return float64((after - before).Nanoseconds()) / 1e3 / float64(c.n), err
}
