//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

const (
	// crowdRate is how many events a second the crowd is sent.
	crowdRate = 10
	// pingRate is how many pings a second the idle connection sends. It is prime, so
	// that they do not keep in step with the events.
	pingRate = 97
	// crowdMark tells the crowd's topic from the others of a run.
	crowdMark = "c"
)

// crowd is the many, and what publishes to them: an engine of its own, on a thread of
// its own, which shares nothing with that of the measured load.
type crowd struct {
	run    *run
	cancel context.CancelFunc
	ended  chan error // has what came of it
	found  Crowd      // valid after ended
}

func newCrowd(r *run) (*crowd, error) {
	o := r.Options
	o.Plan, o.Progress = Fanout(r.Plan.Beside), nil
	o.Plan.Events = r.Plan.Events
	run, err := newRun(o, r.id+crowdMark)
	if err != nil {
		return nil, err
	}
	// Their numbers come after those of all others, so that they have ports.
	run.first = r.Plan.Connections + r.Plan.Publishers + 1
	run.end = run.first + r.Plan.Beside
	return &crowd{run: run}, nil
}

// start connects the many, and begins to publish to them.
func (c *crowd) start(ctx context.Context) error {
	_, subscribers, err := c.run.connect(ctx, 0)
	if err != nil {
		return err
	}
	e, err := c.run.engine(subscribers, 0)
	if err != nil {
		return err
	}
	if err := c.run.publishers(e); err != nil {
		e.close()
		return err
	}
	ctx, c.cancel = context.WithCancel(ctx)
	c.ended = make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer e.close()
		c.ended <- c.flow(ctx, e)
	}()
	return nil
}

// flow publishes until ctx ends, and waits for what is under way then.
func (c *crowd) flow(ctx context.Context, e *engine) error {
	e.begin(Load{Rate: crowdRate}, c.run.Plan.round(0, e.readers))
	e.from, e.until = e.now+int64(c.run.Warmup), math.MaxInt64
	if err := c.run.pump(ctx, e, math.MaxInt64); !errors.Is(err, context.Canceled) {
		return err
	}
	e.ended = true
	if err := c.run.drain(context.WithoutCancel(ctx), e); err != nil {
		return err
	}
	c.found = Crowd{
		Connections: c.run.Plan.Connections, Published: e.count.published, Delivered: e.count.delivered,
		Lost: e.count.awaited - min(e.count.delivered, e.count.awaited), Latency: newLatency(e.latency),
	}
	return nil
}

// stop ends it.
func (c *crowd) stop() (*Crowd, error) {
	c.cancel()
	if err := <-c.ended; err != nil {
		return nil, fmt.Errorf("the fan-out to %d: %w", c.run.Plan.Connections, err)
	}
	return &c.found, nil
}

// runAhead has the kernel run the calling thread, to which its goroutine is locked, as soon as it has something to do
// (SCHED_FIFO, sched(7)). The crowd and the server take both processors of a small machine, and what this thread waits
// for one of them would count as the server's latency. ok is false where the process may not do that (CAP_SYS_NICE). back ends it.
func runAhead() (ok bool, back func()) {
	set := func(policy, priority uint32) error {
		return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	}
	if set(unix.SCHED_FIFO, 1) != nil {
		return false, func() {}
	}
	return true, func() { _ = set(unix.SCHED_NORMAL, 0) } // lowering is always allowed
}

// pinger is an idle connection that pings in an open loop, whatever else is published
// and how. Its latencies are those of the pongs.
type pinger struct {
	conn    *conn
	frame   []byte // a ping whose payload is the time at which it was due
	time    stamp
	began   int64
	sent    uint64
	latency *hdrhistogram.Histogram
}

func newPinger(c *conn) *pinger {
	payload := appendDigits(nil, 0, timeDigits)
	p := &pinger{conn: c, frame: appendFrame(nil, ws.OpPing, payload), latency: hdrhistogram.New(minLatency, maxLatency, latencyDigits)}
	p.time = stamp{at: len(p.frame) - len(payload)}
	return p
}

func (p *pinger) begin(now int64) {
	p.began, p.sent = now, 0
	p.latency.Reset()
}

func (p *pinger) due() int64 { return dueAt(p.began, p.sent, pingRate) }

// ping sends the pings that are due.
func (e *engine) ping() error {
	p := e.pinger
	for p != nil && e.now >= p.due() && len(p.conn.out) <= writerBytes {
		p.time.write(p.frame, p.due())
		if err := e.send(p.conn, p.frame); err != nil {
			return err
		}
		p.sent++
	}
	return nil
}

// pong takes the payload of a pong.
func (e *engine) pong(c *conn, payload []byte) {
	if e.pinger == nil || c != e.pinger.conn || len(payload) != timeDigits {
		return
	}
	if at := int64(readDigits(payload)); at >= e.from && at < e.until {
		_ = e.pinger.latency.RecordValue(min(max(e.now-at, 0), maxLatency)) // in range, so no error
	}
}
