package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// backoff is the pause before attempt n, counted from 0: full jitter, so that clients which lost the same server do not
// come back together.
func backoff(n int, least, most time.Duration) time.Duration {
	ceiling := most
	if n < 32 && least<<n > 0 && least<<n < most {
		ceiling = least << n
	}
	return rand.N(ceiling + 1)
}

// pause is how long to wait after err before attempt n to connect: as long as the server asks for, and a random time so
// that the clients that it asked do not come together.
func (c *Client) pause(n int, err error) time.Duration {
	if n == 0 && restarts(err) {
		return 0
	}
	return c.pauseOf(n, err, c.opts.MaxBackoff)
}

// pauseOf is pause with another bound of its random part.
func (c *Client) pauseOf(n int, err error, most time.Duration) time.Duration {
	d := backoff(n, c.opts.MinBackoff, most)
	if later := (*laterError)(nil); errors.As(err, &later) {
		d += later.after
	}
	return d
}

// sleep reports whether the whole pause passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
