//go:build linux

// Package load puts a WebSocket pub/sub server under load and measures what it
// costs: processor time for each delivery and publish, memory for each
// connection, and how late events arrive. Any server can be measured for which
// there is a Target; notifyd's is here.
//
// plan.go is who is connected to what, pace.go when they publish, engine.go the
// loop that publishes and receives, frames.go and mark.go what it looks at. The
// measurement of one load is here.
package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notifyd/notifyd/bench/internal/rig"
)

// Process is the server's process, as far as it is measured.
type Process interface {
	CPU() (time.Duration, error)
	RSS() (bytes int64, err error)
}

// Options say what to measure.
type Options struct {
	Plan     Plan
	Loads    []Load // one after the other, on the same connections; none for Idle and Storm
	Target   Target
	Server   string       // its name in the results
	URL      string       // ws://HOST:PORT/PATH
	Sources  []netip.Addr // addresses to connect from, 20,000 connections each; none: 127.0.0.0/8 in turn for a server there
	Process  Process      // nil: the server's costs stay unknown
	Size     int          // bytes of an event's data, MinSize or more
	Warmup   time.Duration
	Duration time.Duration
	// Progress, if not nil, is called some times a second, by Run's goroutine.
	Progress func(Progress)
}

// Progress is how far Run has come.
type Progress struct {
	Doing      string  // "fanout, window 32"
	Done       float64 // 0 to 1
	Deliveries float64 // a second
	Connected  int
}

const (
	// openers is how many connections are opened at once.
	openers = 32
	// progressEvery is how often progress is told.
	progressEvery = 200 * time.Millisecond
	// pollEvents is how many events one epoll_wait brings.
	pollEvents = 512
)

// Run does everything in the options, and gives one result for each load. An
// error ends it at once; ctx ends it with its error.
func Run(ctx context.Context, o Options) ([]Result, error) {
	if err := o.Plan.check(); err != nil {
		return nil, err
	}
	d, err := newDialer(o.URL, o.Target, o.Sources)
	if err != nil {
		return nil, err
	}
	r := &run{Options: o, dialer: d, names: o.Plan.names(strings.ToLower(rand.Text()[:6]))}
	switch {
	case o.Plan.Storm:
		return r.storm(ctx)
	case o.Plan.Publishers == 0:
		return r.idle(ctx)
	case o.Size < MinSize:
		return nil, fmt.Errorf("size: %d bytes do not hold the mark; %d do", o.Size, MinSize)
	}
	results, err := r.traffic(ctx, 0)
	if err != nil || o.Plan.Stalled == 0 {
		return results, err
	}
	// Those who are cut off are gone: each load begins with new ones.
	for _, l := range o.Loads {
		r.Loads = []Load{l}
		more, err := r.traffic(ctx, o.Plan.Stalled)
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	return results, nil
}

type run struct {
	Options
	dialer *dialer
	names  []string // topics
}

// measure is a reading of what only goes up.
type measure struct {
	at    time.Time
	cpu   time.Duration // of the server
	own   time.Duration // of this process
	rss   int64
	count counters
}

func (r *run) read(count counters) (measure, error) {
	m := measure{count: count}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return m, err
	}
	m.own = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	if r.Process != nil {
		var err error
		if m.cpu, err = r.Process.CPU(); err != nil {
			return m, fmt.Errorf("the server's process: %w", err)
		}
		if m.rss, err = r.Process.RSS(); err != nil {
			return m, fmt.Errorf("the server's process: %w", err)
		}
	}
	m.at = time.Now()
	return m, nil
}

// result is what lies between two measures.
func (r *run) result(load string, from, until measure) Result {
	seconds := until.at.Sub(from.at).Seconds()
	res := Result{
		Server: r.Server, Scenario: r.Plan.Name, Load: load,
		Connections: r.Plan.Connections, Topics: r.Plan.Topics, Publishers: r.Plan.Publishers, Size: r.Size,
		Seconds:   seconds,
		Published: until.count.published - from.count.published,
		Delivered: until.count.delivered - from.count.delivered,
	}
	res.PublishesPerSecond = float64(res.Published) / seconds
	res.DeliveriesPerSecond = float64(res.Delivered) / seconds
	own := float64((until.own - from.own).Nanoseconds()) / 1e3
	res.OwnCPUPerDelivery = each(&own, res.Delivered)
	if r.Process != nil {
		cpu := float64((until.cpu - from.cpu).Nanoseconds()) / 1e3
		cores := cpu / 1e6 / seconds
		res.ServerCores, res.RSS = &cores, &until.rss
		res.CPUPerDelivery, res.CPUPerPublish = each(&cpu, res.Delivered), each(&cpu, res.Published)
	}
	return res
}

// connected adds what opening the connections cost.
func (r *run) connected(res *Result, n int, from, until measure) {
	if r.Process == nil {
		return
	}
	cpu, rss := float64((until.cpu-from.cpu).Nanoseconds())/1e3, float64(until.rss-from.rss)
	res.CPUPerConnect, res.RSSPerConnection = each(&cpu, n), each(&rss, n)
}

// open opens the subscribing connections, in order.
func (r *run) open(ctx context.Context, opened func(took time.Duration)) ([]*conn, error) {
	conns := make([]*conn, r.Plan.Connections)
	err := rig.Each(len(conns), openers, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var topics []string
		for _, t := range r.Plan.topics(i) {
			topics = append(topics, r.names[t])
		}
		began := time.Now()
		c, err := r.dialer.open(i, topics)
		if err != nil {
			return err
		}
		conns[i] = c
		opened(time.Since(began))
		return nil
	})
	if err != nil {
		dropAll(conns)
		return nil, err
	}
	return conns, nil
}

func dropAll(conns []*conn) {
	for _, c := range conns {
		if c != nil {
			c.drop()
		}
	}
}

// traffic opens the connections, and measures one load after the other. The
// first connections are the ones that stall.
func (r *run) traffic(ctx context.Context, stalled int) (results []Result, err error) {
	runtime.LockOSThread() // one thread waits in epoll, and is woken
	defer runtime.UnlockOSThread()
	before, err := r.read(counters{})
	if err != nil {
		return nil, err
	}
	r.tell(Progress{Doing: r.Plan.Name + ", connecting"})
	subscribers, err := r.open(ctx, func(time.Duration) {})
	if err != nil {
		return nil, err
	}
	opened, err := r.read(counters{})
	if err != nil {
		dropAll(subscribers)
		return nil, err
	}
	e, err := newEngine(r.Target, newMessages(r.Target, r.names, r.Size))
	if err != nil {
		dropAll(subscribers)
		return nil, err
	}
	defer e.close()
	if err := r.connect(e, subscribers, stalled); err != nil {
		return nil, err
	}
	for _, load := range r.Loads {
		res, err := r.load(ctx, e, load)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", r.Plan.Name, load, err)
		}
		r.connected(&res, len(subscribers), before, opened)
		res.Stalled = stalled
		if stalled > 0 {
			if res.Dropped, err = r.release(ctx, e, subscribers[:stalled]); err != nil {
				return nil, err
			}
		}
		results = append(results, res)
	}
	return results, nil
}

// connect gives the engine its connections, and says who reads what.
func (r *run) connect(e *engine, subscribers []*conn, stalled int) error {
	e.readers = make([]int, r.Plan.Topics)
	for i, c := range subscribers {
		if err := e.add(c); err != nil {
			dropAll(subscribers[i:])
			return err
		}
		if i < stalled {
			if err := e.stall(c); err != nil {
				dropAll(subscribers[i:])
				return err
			}
			continue
		}
		for _, t := range r.Plan.topics(i) {
			e.readers[t]++
		}
	}
	publishers := make([]*conn, r.Plan.Publishers)
	for i := range publishers {
		c, err := r.dialer.open(len(subscribers)+i, nil)
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
	return nil
}

// load measures one load.
func (r *run) load(ctx context.Context, e *engine, load Load) (Result, error) {
	e.begin(load)
	e.from = e.now + int64(r.Warmup)
	e.until = e.from + int64(r.Duration)
	if err := r.pump(ctx, e, load, e.from); err != nil {
		return Result{}, err
	}
	from, err := r.read(e.count)
	if err != nil {
		return Result{}, err
	}
	if err := r.pump(ctx, e, load, e.until); err != nil {
		return Result{}, err
	}
	until, err := r.read(e.count)
	if err != nil {
		return Result{}, err
	}
	e.ended = true
	if err := r.drain(ctx, e); err != nil {
		return Result{}, err
	}
	res := r.result(load.String(), from, until)
	res.Latency = newLatency(e.latency)
	res.Lost = e.count.awaited - min(e.count.delivered, e.count.awaited)
	return res, nil
}

// pump lets the engine run until a time on its clock.
func (r *run) pump(ctx context.Context, e *engine, load Load, until int64) error {
	events := make([]unix.EpollEvent, pollEvents)
	last, moved := e.count.delivered, e.now
	tell, told := e.now, e.count.delivered
	for e.now < until {
		if err := e.publishDue(); err != nil {
			return err
		}
		if err := e.arm(); err != nil {
			return err
		}
		if err := e.poll(ctx, events, min(time.Duration(until-e.now), progressEvery)); err != nil {
			return err
		}
		if e.count.delivered != last {
			last, moved = e.count.delivered, e.now
		} else if load.Window > 0 && e.now-moved > int64(stallTime) {
			return fmt.Errorf("nothing arrived for %v: %d of %d deliveries came", stallTime, e.count.delivered, e.count.awaited)
		}
		if passed := e.now - tell; passed >= int64(progressEvery) {
			r.tell(Progress{
				Doing:      r.Plan.Name + ", " + load.String(),
				Done:       min(float64(e.now-e.began)/float64(r.Warmup+r.Duration), 1),
				Deliveries: float64(e.count.delivered-told) / (float64(passed) / 1e9),
				Connected:  len(e.conns),
			})
			tell, told = e.now, e.count.delivered
		}
	}
	return nil
}

// drain receives what is under way, until nothing came for drainTime.
func (r *run) drain(ctx context.Context, e *engine) error {
	events := make([]unix.EpollEvent, pollEvents)
	last, moved := e.count.delivered, e.now
	for e.count.delivered < e.count.awaited && e.now-moved < int64(drainTime) {
		if err := e.poll(ctx, events, progressEvery); err != nil {
			return err
		}
		if e.count.delivered != last {
			last, moved = e.count.delivered, e.now
		}
	}
	return nil
}

// release reads the stalled connections at last, until nothing came for
// drainTime, to see which the server has closed.
func (r *run) release(ctx context.Context, e *engine, stalled []*conn) (dropped int, err error) {
	for _, c := range stalled {
		if err := e.resume(c); err != nil {
			return 0, err
		}
	}
	events := make([]unix.EpollEvent, pollEvents)
	last, moved := e.received, e.now
	for e.count.dropped < len(stalled) && e.now-moved < int64(drainTime) {
		if err := e.poll(ctx, events, progressEvery); err != nil {
			return 0, err
		}
		if e.received != last {
			last, moved = e.received, e.now
		}
	}
	return e.count.dropped, nil
}

func (r *run) tell(p Progress) {
	if r.Progress != nil {
		r.Progress(p)
	}
}
