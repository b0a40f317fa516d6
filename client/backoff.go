package client

import (
	"context"
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
