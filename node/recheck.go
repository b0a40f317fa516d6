package node

import (
	"context"
	"slices"
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
	asked   uint64 // requests so far
	settled uint64 // of them
	waiting []waiter
}

// waiter waits for the end of a recheck that began after a request.
type waiter struct {
	request uint64
	called  time.Time // of a revocation whose effect is to be measured; zero: is not
	done    chan struct{}
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
	r.mu.Lock()
	r.asked++
	r.mu.Unlock()
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// await returns what is closed when all that was asked for so far has been done. Unless called is zero, the time since
// then is measured.
func (r *rechecker) await(called time.Time) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := waiter{r.asked, called, make(chan struct{})}
	if w.request <= r.settled {
		r.settle(w)
	} else {
		r.waiting = append(r.waiting, w)
	}
	return w.done
}

// settle is called with mu held.
func (r *rechecker) settle(w waiter) {
	if !w.called.IsZero() {
		r.took.Observe(max(0, time.Since(w.called).Seconds())) // clocks differ
	}
	close(w.done)
}

// run calls recheck for each request, those from before run too, until ctx ends.
func (r *rechecker) run(ctx context.Context, recheck func()) {
	for {
		select {
		case <-r.due:
			r.mu.Lock()
			began := r.asked
			r.mu.Unlock()
			recheck()
			r.ended(began)
		case <-ctx.Done():
			return
		}
	}
}

// ended tells those who wait for a recheck that began behind a request.
func (r *rechecker) ended(request uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settled = request
	r.waiting = slices.DeleteFunc(r.waiting, func(w waiter) bool {
		if w.request <= request {
			r.settle(w)
		}
		return w.request <= request
	})
}
