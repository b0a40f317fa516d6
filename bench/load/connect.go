//go:build linux

package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// settle is how long the server is left alone before its memory is read.
const settle = 2 * time.Second

// idle opens connections that receive nothing, and measures them right away and
// after the duration. A few are opened before, because the first of all touch
// code and tables that all share.
func (r *run) idle(ctx context.Context) (results []Result, err error) {
	warm := *r
	warm.first, warm.end, warm.receivers = 0, r.Plan.warm(), nil
	_, first, err := warm.connect(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer dropAll(first)
	if err := sleep(ctx, settle); err != nil {
		return nil, err
	}
	before, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	took, conns, err := r.connect(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer dropAll(conns) // receivers drop theirs when they end
	opened, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	res := r.result("just connected", before, opened)
	res.Connects, res.Latency = r.Plan.Connections, newLatency(took)
	r.connected(&res, res.Connects, before, opened)
	results = append(results, res)

	r.report(Progress{Doing: r.Plan.Name, Connected: r.Plan.Connections})
	if err := sleep(ctx, r.Duration); err != nil {
		return nil, err
	}
	later, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	res = r.result(fmt.Sprintf("%v later", r.Duration), opened, later)
	r.connected(&res, r.Plan.Connections, before, later)
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
		took, conns, err := r.connect(ctx, 0)
		if err != nil {
			return nil, err
		}
		if err := r.drop(ctx, conns); err != nil {
			return nil, err
		}
		all.Merge(took)
		connects += r.Plan.Connections
		r.report(Progress{Doing: r.Plan.Name, Done: min(float64(time.Since(began))/float64(r.Duration), 1), Connected: connects})
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

// connect opens the subscribing connections, in order, here or in the receivers, and
// says how long each took. Of all of them, the first so many are to stall.
func (r *run) connect(ctx context.Context, stalled int) (*hdrhistogram.Histogram, []*conn, error) {
	took := hdrhistogram.New(minLatency, maxLatency, latencyDigits)
	if r.receivers != nil {
		return took, nil, r.receivers.open(ctx, r, stalled, took)
	}
	var mu sync.Mutex // guards took
	conns := make([]*conn, r.end-r.first)
	err := rig.Each(len(conns), openers, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var topics []string
		for _, t := range r.Plan.topics(r.first + i) {
			topics = append(topics, r.names[t])
		}
		began := time.Now()
		open := r.dialer.open
		if r.Plan.Events {
			open = r.dialer.openStream
		}
		c, err := open(r.first+i, topics)
		if err != nil {
			return err
		}
		conns[i] = c
		mu.Lock()
		defer mu.Unlock()
		_ = took.RecordValue(min(int64(time.Since(began)), maxLatency)) // in range, so no error
		return nil
	})
	if err != nil {
		dropAll(conns)
		return nil, nil, err
	}
	return took, conns, nil
}

// drop ends what connect opened.
func (r *run) drop(ctx context.Context, conns []*conn) error {
	dropAll(conns)
	if r.receivers != nil {
		return r.receivers.drop(ctx)
	}
	return nil
}

func dropAll(conns []*conn) {
	for _, c := range conns {
		if c != nil {
			c.drop()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
