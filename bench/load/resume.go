//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

const (
	// returnTime is the time within which all clients of a wave come back.
	returnTime = time.Second
	// rssEvery is how often the server's memory is read meanwhile.
	rssEvery = 20 * time.Millisecond
)

// returners are clients that were cut off and come back within a second, wave after wave: an engine of its own, on a
// thread of its own, which shares nothing with that of the measured load.
type returners struct {
	run       *run
	positions []Position
	behind    int // events of each topic behind its position
	took      *hdrhistogram.Histogram
	ended     chan error
	over      atomic.Bool // ended has what came of it
	found     Returned    // valid after ended
}

// newReturners stores what the clients have missed.
func newReturners(ctx context.Context, r *run) (*returners, error) {
	o := r.Options
	o.Plan, o.Progress = r.Plan, nil
	o.Plan.Topics, o.Plan.Connections = min(resumeTopics, r.Plan.Returning), r.Plan.Returning
	run, err := newRun(o, r.id+crowdMark)
	if err != nil {
		return nil, err
	}
	// Their numbers come after those of all others, so that they have ports.
	run.first = r.Plan.Connections + r.Plan.Publishers
	b := &returners{run: run, behind: r.Plan.Behind, took: hdrhistogram.New(minLatency, maxLatency, latencyDigits)}
	if b.positions, err = run.positions(ctx); err != nil {
		return nil, err
	}
	return b, run.fill(ctx, b.behind)
}

// while lets the engine of the measured load run for as long as clients come back.
func (b *returners) while(ctx context.Context, e *engine) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.ended = make(chan error, 1)
	b.over.Store(false)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		b.ended <- b.waves(ctx)
		b.over.Store(true)
	}()
	e.until = math.MaxInt64
	for !b.over.Load() {
		if err := b.run.pump(ctx, e, e.now+int64(progressEvery)); err != nil {
			cancel()
			return errors.Join(err, <-b.ended)
		}
	}
	e.until = e.now
	return <-b.ended
}

// waves lets clients come back until the time of a measurement is over. Those of the last wave have to receive one
// more event each: they are live.
func (b *returners) waves(ctx context.Context) error {
	plan := b.run.Plan
	b.found = Returned{Connections: plan.Returning, Behind: b.behind}
	b.took.Reset()
	for began := time.Now(); ; {
		e, err := newEngine(b.run.Target, nil)
		if err != nil {
			return err
		}
		err = b.wave(ctx, e)
		last := time.Since(began) >= b.run.Duration
		if err == nil && last {
			err = b.live(ctx, e)
		}
		b.took.Merge(e.latency)
		e.close()
		if err != nil {
			return fmt.Errorf("%d clients that come back: %w", plan.Returning, err)
		}
		if last {
			b.found.Latency = newLatency(b.took)
			return nil
		}
	}
}

// wave is one time that all come back, until they have caught up.
func (b *returners) wave(ctx context.Context, e *engine) error {
	n, began := b.run.Plan.Returning, time.Now()
	opened, failed := make(chan *conn, n), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		failed <- b.open(ctx, e, began, opened)
		close(failed)
		close(opened)
	}()
	defer dropRest(opened, cancel)
	events := make([]unix.EpollEvent, pollEvents)
	last, moved, sampled := uint64(0), began, time.Time{}
	for e.back < n {
		select {
		case c, ok := <-opened:
			if !ok {
				opened = nil
				continue
			}
			if err := b.resume(e, c); err != nil {
				return err
			}
			continue
		case err := <-failed:
			if err != nil {
				return err
			}
		default:
		}
		if err := e.poll(ctx, events, time.Millisecond); err != nil {
			return err
		}
		if time.Since(sampled) >= rssEvery {
			if err := b.sample(); err != nil {
				return err
			}
			sampled = time.Now()
		}
		if e.count.delivered != last {
			last, moved = e.count.delivered, time.Now()
		} else if time.Since(moved) > stallTime {
			return fmt.Errorf("nothing arrived for %v: %d have caught up, with %d of %d events", stallTime, e.back, last, n*b.behind)
		}
	}
	b.found.Waves++
	b.found.Seconds = max(b.found.Seconds, time.Since(began).Seconds())
	return b.sample()
}

// dropRest drops those that have not come to the engine.
func dropRest(opened <-chan *conn, cancel context.CancelFunc) {
	cancel()
	for c := range opened {
		c.drop()
	}
}

// open connects them, evenly over returnTime.
func (b *returners) open(ctx context.Context, e *engine, began time.Time, opened chan<- *conn) error {
	n := b.run.Plan.Returning
	return rig.Each(n, openers, func(i int) error {
		due := began.Add(returnTime * time.Duration(i) / time.Duration(n))
		if err := sleep(ctx, time.Until(due)); err != nil {
			return err
		}
		c, err := b.run.dialer.open(b.run.first+i, nil)
		if err != nil {
			return err
		}
		c.began = e.base + int64(due.Sub(e.start))
		c.id = i
		opened <- c
		return nil
	})
}

// resume hands a connection to the engine, and asks for what it has missed.
func (b *returners) resume(e *engine, c *conn) error {
	topic := c.id % len(b.run.names)
	c.missed = b.behind
	if err := e.add(c); err != nil {
		c.drop()
		return err
	}
	e.count.awaited += uint64(c.missed)
	return e.send(c, appendFrame(nil, e.op, b.run.keeper.Resume(nil, b.run.names[topic], b.positions[topic])))
}

// live publishes one event to each topic and waits until all have it.
func (b *returners) live(ctx context.Context, e *engine) error {
	if err := b.run.fill(ctx, 1); err != nil {
		return err
	}
	b.behind++
	e.count.awaited += uint64(b.run.Plan.Returning)
	if err := b.run.drain(ctx, e); err != nil {
		return err
	}
	b.found.Lost = e.count.awaited - min(e.count.delivered, e.count.awaited)
	if extra := e.count.delivered - min(e.count.delivered, e.count.awaited); extra > 0 {
		return fmt.Errorf("%d events came twice", extra)
	}
	return nil
}

// sample reads how large the server is.
func (b *returners) sample() error {
	if b.run.Process == nil {
		return nil
	}
	rss, err := b.run.Process.RSS()
	b.found.RSS = max(b.found.RSS, rss)
	return err
}
