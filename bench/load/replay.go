//go:build linux

package load

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// replay fills a topic and has clients read it: one, and all at the same position, beside the same number of live
// subscribers and a consumer of NATS.
func (r *run) replay(ctx context.Context) ([]Result, error) {
	runtime.LockOSThread() // one thread waits in epoll, and is woken
	defer runtime.UnlockOSThread()
	some := min(r.Plan.Replay, max(1, replayDeliveries/r.Plan.Connections))
	r.report(Progress{Doing: "replay, filling the stream"})
	start, err := r.positions(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.fill(ctx, r.Plan.Replay-some); err != nil {
		return nil, err
	}
	last, err := r.positions(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.fill(ctx, some); err != nil {
		return nil, err
	}
	one, err := r.reread(ctx, 1, start[0], r.Plan.Replay)
	if err != nil {
		return nil, err
	}
	all, err := r.reread(ctx, r.Plan.Connections, last[0], some)
	if err != nil {
		return nil, err
	}
	live := r.Options
	live.Plan, live.Loads = Fanout(r.Plan.Connections), []Load{{Window: 32}}
	lives, err := Run(ctx, live)
	if err != nil {
		return nil, err
	}
	lives[0].Scenario, lives[0].Load = r.Plan.Name, "live, "+lives[0].Load
	all.compare("CPU", "live", all.CPUPerDelivery, lives[0].CPUPerDelivery)
	results := []Result{one, all, lives[0]}
	if r.Plain != nil {
		r.report(Progress{Doing: "replay, an ordered consumer of nats.go"})
		plain, err := r.plain(ctx, plainJob{Events: r.Plan.Replay, Size: r.Size})
		if err != nil {
			return nil, err
		}
		results[0].compare("speed", plain.Server, &one.DeliveriesPerSecond, &plain.DeliveriesPerSecond)
		results = append(results, plain)
	}
	return results, nil
}

// reread has n clients read so many events behind a position, all from the same moment on.
func (r *run) reread(ctx context.Context, n int, from Position, events int) (Result, error) {
	conns := make([]*conn, n)
	err := rig.Each(n, openers, func(i int) (err error) {
		conns[i], err = r.dialer.open(i, nil)
		return err
	})
	if err != nil {
		dropAll(conns)
		return Result{}, err
	}
	e, err := newEngine(r.Target, nil)
	if err != nil {
		dropAll(conns)
		return Result{}, err
	}
	defer e.close()
	for i, c := range conns {
		if err := e.add(c); err != nil {
			dropAll(conns[i:])
			return Result{}, err
		}
	}
	begin, err := r.read(counters{})
	if err != nil {
		return Result{}, err
	}
	resume := appendFrame(nil, e.op, r.keeper.Resume(nil, r.names[0], from))
	for _, c := range conns {
		if err := e.send(c, resume); err != nil {
			return Result{}, err
		}
	}
	label := fmt.Sprintf("%d clients, %d events each", n, events)
	if n == 1 {
		label = fmt.Sprintf("1 client, %d events", events)
	}
	e.count.awaited = uint64(n * events)
	polled := make([]unix.EpollEvent, pollEvents)
	last, moved, reported := uint64(0), time.Now(), time.Now()
	for e.count.delivered < e.count.awaited && time.Since(moved) < stallTime {
		if err := e.poll(ctx, polled, progressEvery); err != nil {
			return Result{}, err
		}
		if e.count.delivered != last {
			last, moved = e.count.delivered, time.Now()
		}
		if time.Since(reported) >= progressEvery {
			r.report(Progress{Doing: "replay to " + label, Done: float64(last) / float64(e.count.awaited), Connected: n})
			reported = time.Now()
		}
	}
	end, err := r.read(e.count)
	if err != nil {
		return Result{}, err
	}
	end.at = moved
	res := r.result(label, begin, end)
	res.Connections, res.Lost = n, e.count.awaited-min(e.count.delivered, e.count.awaited)
	return res, nil
}
