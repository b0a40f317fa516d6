//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// traffic opens the connections, and measures one load after the other. The
// first connections are the ones that stall.
func (r *run) traffic(ctx context.Context, stalled int) (results []Result, err error) {
	runtime.LockOSThread() // one thread waits in epoll, and is woken
	defer runtime.UnlockOSThread()
	before, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	r.report(Progress{Doing: r.Plan.Name + ", connecting"})
	_, subscribers, err := r.connect(ctx, stalled)
	if err != nil {
		return nil, err
	}
	after, err := r.read(counters{})
	if err != nil {
		dropAll(subscribers)
		return nil, err
	}
	e, err := r.engine(subscribers, stalled)
	if err != nil {
		return nil, err
	}
	defer e.close()
	if err := r.publishers(e); err != nil {
		return nil, err
	}
	if r.flooder != nil {
		defer r.flooder.start()()
	}
	for _, load := range r.Loads {
		res, err := r.crowded(ctx, e, load, stalled)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", r.Plan.Name, load, err)
		}
		r.connected(&res, r.Plan.Connections, before, after)
		results = append(results, res)
	}
	return results, r.drop(ctx, nil)
}

// engine makes one, which owns the subscribing connections of this process.
func (r *run) engine(subscribers []*conn, stalled int) (*engine, error) {
	messages := newMessages(r.Target, r.names, r.Size)
	switch {
	case r.Plan.Post > 0:
		messages.requests = &requests{target: r.poster, host: r.dialer.url.Host, socket: r.dialer.url.Path, events: r.Plan.Post}
	case r.Plan.Stored || r.Plan.Answered:
		messages.publish = r.keeper.Store
	}
	e, err := newEngine(r.Target, messages)
	if err != nil {
		dropAll(subscribers)
		return nil, err
	}
	for i, c := range subscribers {
		err = e.add(c)
		if err == nil && r.first+i < stalled {
			err = e.stall(c)
		}
		if err != nil {
			dropAll(subscribers)
			e.close()
			return nil, err
		}
	}
	e.readers = r.Plan.readers(max(r.first, stalled), r.end)
	if r.Plan.Stored {
		e.stored = r.keeper.Stored
	}
	if r.Plan.Answered {
		e.answering = &answering{poster: r.poster, received: hdrhistogram.New(minLatency, maxLatency, latencyDigits)}
		if r.Plan.Post == 0 {
			e.stored = r.acked
		}
	}
	if r.receivers != nil {
		e.readers = r.Plan.readers(stalled, r.Plan.Connections)
		if err := e.listen(r.receivers.links(), func(i int, m note) error { return r.receivers.heard(e, i, m) }); err != nil {
			e.close()
			return nil, err
		}
	}
	return e, nil
}

// publishers opens the connections that publish.
func (r *run) publishers(e *engine) error {
	publishers := make([]*conn, r.Plan.Publishers)
	for i := range publishers {
		c, err := r.openPublisher(r.Plan.Connections + i)
		if err != nil {
			return err
		}
		if err := e.add(c); err != nil {
			c.drop()
			return err
		}
		publishers[i] = c
	}
	e.writers = r.Plan.writers(publishers)
	if r.Plan.Beside == 0 {
		return nil
	}
	c, err := r.dialer.open(r.Plan.Connections+r.Plan.Publishers, nil)
	if err != nil {
		return err
	}
	e.pinger = newPinger(c)
	return e.add(c)
}

// openPublisher opens the nth connection, to publish.
func (r *run) openPublisher(n int) (c *conn, err error) {
	if r.Plan.Post > 0 {
		c, err = r.dialer.openRequests(n)
	} else {
		c, err = r.dialer.open(n, nil)
	}
	if err == nil {
		c.publishes = true
	}
	return c, err
}

// acked looks at an answer to an event that need not be stored.
func (r *run) acked(answer []byte) (int, error) {
	n, err := r.keeper.Stored(answer)
	if errors.Is(err, errNotKept) {
		return 1, nil
	}
	return n, err
}

// crowded is load, beside the crowd if there is one.
func (r *run) crowded(ctx context.Context, e *engine, load Load, stalled int) (Result, error) {
	if r.crowd == nil {
		return r.load(ctx, e, load, stalled)
	}
	if err := r.crowd.start(ctx); err != nil {
		return Result{}, err
	}
	ahead, back := runAhead()
	res, err := r.load(ctx, e, load, stalled)
	back()
	found, ended := r.crowd.stop()
	if found != nil {
		found.Ahead = ahead
	}
	res.Beside = found
	// The processor time is for the most part that of the others.
	res.CPUPerDelivery, res.CPUPerPublish = nil, nil
	return res, errors.Join(err, ended)
}

// load measures one load.
func (r *run) load(ctx context.Context, e *engine, load Load, stalled int) (Result, error) {
	e.tick()
	s := span{Load: load, From: e.now + int64(r.Warmup)}
	s.Until = s.From + int64(r.Duration)
	expect := r.Plan.round(load.Window, e.readers)
	if r.receivers != nil {
		expect = r.receivers.expect()
		if err := r.receivers.begin(ctx, s); err != nil {
			return Result{}, err
		}
	}
	from, until, err := r.span(ctx, e, s, expect)
	if err != nil {
		return Result{}, err
	}
	e.ended = true
	if r.receivers != nil {
		err = r.receivers.finish(ctx, e, from, &until)
	} else if err = r.drain(ctx, e); err == nil {
		err = r.release(ctx, e)
	}
	if err != nil {
		return Result{}, err
	}
	res := r.result(load.String(), from, until)
	res.Latency = newLatency(e.latency)
	if e.pinger != nil {
		pong := newLatency(e.pinger.latency)
		res.Pong = &pong
	}
	if e.answering != nil && r.Plan.Connections > 0 {
		received := newLatency(e.answering.received)
		res.Received = &received
	}
	res.Lost = e.missing()
	if r.returners != nil {
		found := r.returners.found // of this load
		res.Returned = &found
		res.CPUPerDelivery, res.CPUPerPublish = nil, nil // for the most part of those that came back
	}
	res.Stalled, res.Dropped, res.DroppedBy = stalled, e.count.dropped, e.dropped
	return res, nil
}

// span lets the engine run, and measures.
func (r *run) span(ctx context.Context, e *engine, s span, expect []int) (from, until measure, err error) {
	e.begin(s.Load, expect)
	e.from, e.until = s.From, s.Until
	if err = r.pump(ctx, e, s.From); err != nil {
		return from, until, err
	}
	if from, err = r.read(e.count); err != nil {
		return from, until, err
	}
	if r.returners != nil && e.writers != nil {
		err = r.returners.while(ctx, e)
	} else {
		err = r.pump(ctx, e, s.Until)
	}
	if err != nil {
		return from, until, err
	}
	until, err = r.read(e.count)
	return from, until, err
}

// pump lets the engine run until a time on its clock.
func (r *run) pump(ctx context.Context, e *engine, until int64) error {
	events := make([]unix.EpollEvent, pollEvents)
	last, moved := e.count.delivered+e.count.answered, e.now
	reported, then := e.now, e.count.delivered
	for e.now < until {
		if err := e.publishDue(true); err != nil {
			return err
		}
		if err := e.arm(); err != nil {
			return err
		}
		if err := e.poll(ctx, events, min(time.Duration(until-e.now), progressEvery)); err != nil {
			return err
		}
		if came := e.count.delivered + e.count.answered; came != last {
			last, moved = came, e.now
		} else if e.Window > 0 && e.writers != nil && e.now-moved > int64(stallTime) {
			return fmt.Errorf("nothing arrived for %v: %d of %d deliveries came", stallTime, e.count.delivered, e.count.awaited)
		}
		if passed := e.now - reported; passed >= int64(progressEvery) {
			r.report(Progress{
				Doing:      r.Plan.Name + ", " + e.String(),
				Done:       min(float64(e.now-e.began)/float64(r.Warmup+r.Duration), 1),
				Deliveries: float64(e.count.delivered-then) / (float64(passed) / 1e9),
				Connected:  r.Plan.Connections + r.Plan.Publishers,
			})
			reported, then = e.now, e.count.delivered
		}
	}
	return nil
}

// drain receives what is under way, until nothing came for drainTime.
func (r *run) drain(ctx context.Context, e *engine) error {
	events := make([]unix.EpollEvent, pollEvents)
	last, moved := e.missing(), e.now
	for last > 0 && e.now-moved < int64(drainTime) {
		if err := e.poll(ctx, events, progressEvery); err != nil {
			return err
		}
		if missing := e.missing(); missing != last {
			last, moved = missing, e.now
		}
	}
	return nil
}

// release reads the stalled connections at last, until nothing came for
// drainTime, to see which the server has closed.
func (r *run) release(ctx context.Context, e *engine) error {
	stalled := 0
	for _, c := range e.conns {
		if !c.stalled {
			continue
		}
		stalled++
		if err := e.resume(c); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, pollEvents)
	last, moved := e.received, e.now
	for e.count.dropped < stalled && e.now-moved < int64(drainTime) {
		if err := e.poll(ctx, events, progressEvery); err != nil {
			return err
		}
		if e.received != last {
			last, moved = e.received, e.now
		}
	}
	return nil
}

func (r *run) report(p Progress) {
	if r.Progress != nil {
		r.Progress(p)
	}
}
