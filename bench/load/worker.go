//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Work is one of the processes that [Options.Processes] asks for: it opens its
// share of the subscribing connections and receives, as notes say over in and
// out, until in ends. The target has to be like the one that was given to Run,
// but it need not be able to publish.
func Work(ctx context.Context, target Target, in, out *os.File) error {
	runtime.LockOSThread() // one thread waits in epoll, and is woken
	defer runtime.UnlockOSThread()
	w := &worker{link: link{in: int(in.Fd()), out: int(out.Fd())}, target: target}
	defer w.drop()
	if err := unix.SetNonblock(w.in, true); err != nil {
		return err
	}
	err := w.serve(ctx)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return errors.Join(err, w.send(note{Error: err.Error()}))
}

// worker is the other side of a receiver.
type worker struct {
	link
	target Target
	run    *run
	share  share
	conns  []*conn // open, but not yet the engine's
	engine *engine
	end    []int // what End said
}

func (w *worker) serve(ctx context.Context) error {
	for {
		notes, err := w.wait(ctx)
		if err != nil {
			return err
		}
		for _, m := range notes {
			if err := w.handle(ctx, m); err != nil {
				return err
			}
		}
	}
}

func (w *worker) handle(ctx context.Context, m note) error {
	switch {
	case m.Share != nil:
		w.share = *m.Share
		return w.prepare()
	case m.Open && w.run != nil:
		return w.open(ctx)
	case m.Drop:
		w.drop()
		return w.send(note{Dropped: true})
	case m.Begin != nil && w.run != nil:
		return w.receive(ctx, *m.Begin)
	}
	return fmt.Errorf("a note at the wrong time: %+v", m)
}

func (w *worker) prepare() (err error) {
	s := w.share
	w.run, err = newRun(Options{Plan: s.Plan, Target: w.target, URL: s.URL, Sources: s.Sources, Size: MinSize, Progress: w.progress}, s.Run)
	if err != nil {
		return err
	}
	w.run.first, w.run.end = s.First, s.End
	return enoughDescriptors(s.End - s.First)
}

func (w *worker) open(ctx context.Context) error {
	took, conns, err := w.run.connect(ctx, w.share.Stalled)
	if err != nil {
		return err
	}
	w.conns = conns
	packed, err := packHistogram(took)
	if err != nil {
		return err
	}
	return w.send(note{Opened: packed})
}

func (w *worker) drop() {
	dropAll(w.conns)
	w.conns = nil
	if w.engine != nil {
		w.engine.close()
		w.engine = nil
	}
}

// progress reports how much has come. Should that not be possible, then the pipe
// is closed, and the engine will see that.
func (w *worker) progress(Progress) {
	if w.engine != nil && w.engine.count.delivered > 0 {
		_ = w.send(note{Count: w.engine.count.delivered})
	}
}

// receive measures one load.
func (w *worker) receive(ctx context.Context, s span) (err error) {
	if w.engine == nil {
		conns := w.conns
		w.conns = nil
		if w.engine, err = w.run.engine(conns, w.share.Stalled); err != nil {
			return err
		}
		if err := w.engine.listen([]*link{&w.link}, w.heard); err != nil {
			return err
		}
	}
	e := w.engine
	w.end = nil
	if err := w.send(note{Begun: true}); err != nil {
		return err
	}
	from, until, err := w.run.span(ctx, e, s, w.run.Plan.round(s.Load.Window, e.readers))
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, pollEvents)
	for w.end == nil {
		if err := e.poll(ctx, events, progressEvery); err != nil {
			return err
		}
	}
	for t, n := range w.end {
		e.count.awaited += uint64(n * e.readers[t])
	}
	if err := w.run.drain(ctx, e); err != nil {
		return err
	}
	if err := w.run.release(ctx, e); err != nil {
		return err
	}
	latency, err := packHistogram(e.latency)
	if err != nil {
		return err
	}
	return w.send(note{Result: &partial{
		Total: e.count.delivered, Delivered: until.count.delivered - from.count.delivered,
		Own: until.own - from.own, Dropped: e.dropped, Latency: latency,
	}})
}

func (w *worker) heard(_ int, m note) error {
	if m.End == nil {
		return fmt.Errorf("a note at the wrong time: %+v", m)
	}
	w.end = m.End
	return nil
}
