package node

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// rechecker has the server look again at the token of each subscription and connection. It runs beside the loops, and
// requests that come while it waits for them become one.
type rechecker struct {
	took prometheus.Histogram
	due  chan struct{} // capacity 1

	mu      sync.Mutex
	waiting []time.Time // calls of revocations whose effect is to be measured
}

func newRechecker() *rechecker {
	return &rechecker{
		due: make(chan struct{}, 1),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "notifyd_revocation_seconds",
			Help:    "From the call of a revocation on any node to the end of all that it ends on this one.",
			Buckets: prometheus.ExponentialBuckets(250e-6, 4, 10), // 250 µs to 65 s
		}),
	}
}

// ask is [authz.Options.OnChange].
func (r *rechecker) ask() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// measure asks, and notes how long it took since called.
func (r *rechecker) measure(called time.Time) {
	r.mu.Lock()
	r.waiting = append(r.waiting, called)
	r.mu.Unlock()
	r.ask()
}

// run calls recheck for each request, those from before run too, until ctx ends.
func (r *rechecker) run(ctx context.Context, recheck func()) {
	for {
		select {
		case <-r.due:
			r.mu.Lock()
			calls := r.waiting
			r.waiting = nil
			r.mu.Unlock()
			recheck()
			for _, called := range calls {
				r.took.Observe(max(0, time.Since(called).Seconds())) // clocks differ
			}
		case <-ctx.Done():
			return
		}
	}
}
