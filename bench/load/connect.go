//go:build linux

package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// settle is how long the server is left alone before its memory is read.
const settle = time.Second

// idle opens connections that receive nothing, and measures them right away and
// after the duration. A few are opened before, because the first of all touch
// code and tables that all share.
func (r *run) idle(ctx context.Context) (results []Result, err error) {
	warm := *r
	warm.Plan.Connections = min(r.Plan.Connections, r.Plan.Topics)
	first, err := warm.open(ctx, func(time.Duration) {})
	if err != nil {
		return nil, err
	}
	defer dropAll(first)
	if err := sleep(ctx, settle); err != nil {
		return nil, err
	}
	took, before, conns, err := r.connectAll(ctx)
	if err != nil {
		return nil, err
	}
	defer dropAll(conns)
	opened, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	res := r.result("just connected", before, opened)
	res.Connects, res.Latency = len(conns), newLatency(took)
	r.connected(&res, len(conns), before, opened)
	results = append(results, res)

	r.tell(Progress{Doing: r.Plan.Name, Connected: len(conns)})
	if err := sleep(ctx, r.Duration); err != nil {
		return nil, err
	}
	later, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	res = r.result(fmt.Sprintf("%v later", r.Duration), opened, later)
	r.connected(&res, len(conns), before, later)
	res.CPUPerConnect = nil // has idled since
	return append(results, res), nil
}

// storm opens all connections and drops them, until the duration is over.
func (r *run) storm(ctx context.Context) ([]Result, error) {
	all := hdrhistogram.New(minLatency, maxLatency, latencyDigits)
	began, connects := time.Now(), 0
	first, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	for {
		took, _, conns, err := r.connectAll(ctx)
		dropAll(conns)
		if err != nil {
			return nil, err
		}
		all.Merge(took)
		connects += len(conns)
		r.tell(Progress{Doing: r.Plan.Name, Done: min(float64(time.Since(began))/float64(r.Duration), 1), Connected: connects})
		if time.Since(began) >= r.Duration {
			break
		}
	}
	last, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	res := r.result("storm", first, last)
	res.Connects, res.Latency = connects, newLatency(all)
	r.connected(&res, connects, first, last)
	res.RSSPerConnection = nil // they are gone
	return []Result{res}, nil
}

// connectAll opens and subscribes all connections, and says what the server had
// used before, and how long each took.
func (r *run) connectAll(ctx context.Context) (took *hdrhistogram.Histogram, before measure, conns []*conn, err error) {
	if before, err = r.read(counters{}); err != nil {
		return nil, before, nil, err
	}
	took = hdrhistogram.New(minLatency, maxLatency, latencyDigits)
	var mu sync.Mutex // guards took
	conns, err = r.open(ctx, func(t time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		_ = took.RecordValue(min(int64(t), maxLatency)) // in range, so no error
	})
	return took, before, conns, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
