//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// receivers is the processes that share the subscribing connections, seen from the
// one that publishes. In a closed loop each reports a topic when its own readers
// have the window; the next is published when all have reported.
type receivers struct{ all []*receiver }

type receiver struct {
	link
	cmd     *exec.Cmd
	readers []int // by topic, as engine.readers
	count   uint64
	result  *partial // of this load
}

// leaveTime is how long a receiver may take to drop its connections at the end.
const leaveTime = 5 * time.Second

// startReceivers starts n processes.
func startReceivers(command func() *exec.Cmd, n int) (*receivers, error) {
	if command == nil {
		return nil, errors.New("several processes need Options.Worker")
	}
	rs := &receivers{}
	for range n {
		m := &receiver{cmd: command()}
		if err := m.start(); err != nil {
			rs.end()
			return nil, fmt.Errorf("process %d of %d: %w", len(rs.all)+1, n, err)
		}
		rs.all = append(rs.all, m)
	}
	return rs, nil
}

func (m *receiver) start() error {
	var down, up [2]int // each: read end, write end
	if err := unix.Pipe2(down[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	if err := unix.Pipe2(up[:], unix.O_CLOEXEC); err != nil {
		return errors.Join(err, unix.Close(down[0]), unix.Close(down[1]))
	}
	m.link = link{in: up[0], out: down[1]}
	stdin, stdout := os.NewFile(uintptr(down[0]), "stdin"), os.NewFile(uintptr(up[1]), "stdout")
	m.cmd.Stdin, m.cmd.Stdout = stdin, stdout
	err := errors.Join(m.cmd.Start(), stdin.Close(), stdout.Close(), unix.SetNonblock(m.in, true))
	if err != nil {
		m.close()
	}
	return err
}

func (l *link) close() {
	_ = unix.Close(l.in)
	_ = unix.Close(l.out)
}

// end ends the processes: they see the end of their input.
func (rs *receivers) end() {
	for _, m := range rs.all {
		m.close()
	}
	for _, m := range rs.all {
		slow := time.AfterFunc(leaveTime, func() { _ = m.cmd.Process.Kill() })
		_ = m.cmd.Wait() // it has said over its link what went wrong
		slow.Stop()
	}
}

func (rs *receivers) links() []*link {
	links := make([]*link, len(rs.all))
	for i, m := range rs.all {
		links[i] = &m.link
	}
	return links
}

// ask sends a note to each process and awaits the answer of each.
func (rs *receivers) ask(ctx context.Context, do note, answer func(*receiver, note) error) error {
	for _, m := range rs.all {
		if err := m.send(do); err != nil {
			return rs.failed(ctx, m, err)
		}
	}
	for _, m := range rs.all {
		answers, err := m.wait(ctx)
		if err == nil && len(answers) != 1 {
			err = fmt.Errorf("%d answers", len(answers))
		}
		if err == nil {
			err = answer(m, answers[0])
		}
		if err != nil {
			return rs.failed(ctx, m, err)
		}
	}
	return nil
}

// failed finds the reason: a receiver that is gone may have left a note.
func (rs *receivers) failed(ctx context.Context, m *receiver, err error) error {
	if errors.Is(err, unix.EPIPE) {
		if _, last := m.wait(ctx); last != nil {
			err = last
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended")
	}
	for i := range rs.all {
		if rs.all[i] == m {
			return fmt.Errorf("process %d of %d that receive: %w", i+1, len(rs.all), err)
		}
	}
	return err
}

// open gives each receiver its share, and lets all open at once.
func (rs *receivers) open(ctx context.Context, r *run, stalled int, took *hdrhistogram.Histogram) error {
	n := len(rs.all)
	for i, m := range rs.all {
		s := share{
			Plan: r.Plan, First: i * r.Plan.Connections / n, End: (i + 1) * r.Plan.Connections / n,
			Stalled: stalled, Run: r.id, URL: r.URL, Sources: r.Sources,
		}
		m.readers = r.Plan.readers(max(s.First, stalled), s.End)
		if err := m.send(note{Share: &s}); err != nil {
			return rs.failed(ctx, m, err)
		}
	}
	return rs.ask(ctx, note{Open: true}, func(_ *receiver, answer note) error {
		return unpackHistogram(took, answer.Opened)
	})
}

func (rs *receivers) drop(ctx context.Context) error {
	return rs.ask(ctx, note{Drop: true}, func(_ *receiver, answer note) error {
		return expected(answer.Dropped)
	})
}

// begin returns when every receiver counts.
func (rs *receivers) begin(ctx context.Context, s span) error {
	return rs.ask(ctx, note{Begin: &s}, func(m *receiver, answer note) error {
		m.count, m.result = 0, nil
		return expected(answer.Begun)
	})
}

func expected(ok bool) error {
	if !ok {
		return errors.New("another answer than was asked for")
	}
	return nil
}

// expect says, by topic, how many receivers report a round.
func (rs *receivers) expect() []int {
	reports := make([]int, len(rs.all[0].readers))
	for _, m := range rs.all {
		for t, readers := range m.readers {
			if readers > 0 {
				reports[t]++
			}
		}
	}
	return reports
}

// heard handles what a receiver says while events flow.
func (rs *receivers) heard(e *engine, i int, said note) error {
	m := rs.all[i]
	for _, topic := range said.Done {
		e.arrived(topic)
	}
	if said.Count > 0 {
		e.count.delivered += said.Count - m.count
		m.count = said.Count
	}
	if said.Result != nil {
		m.result = said.Result
	}
	return nil
}

// finish says that nothing more is published, and adds up what came. until is
// completed by it.
func (rs *receivers) finish(ctx context.Context, e *engine, from measure, until *measure) error {
	for _, m := range rs.all {
		if err := m.send(note{End: e.publishedTo}); err != nil {
			return rs.failed(ctx, m, err)
		}
	}
	events := make([]unix.EpollEvent, pollEvents)
	until.count.delivered, e.count.delivered = from.count.delivered, 0
	for _, m := range rs.all {
		for m.result == nil {
			if err := e.poll(ctx, events, progressEvery); err != nil {
				return err
			}
		}
	}
	e.count.delivered, e.count.dropped = 0, 0
	for _, m := range rs.all {
		if err := unpackHistogram(e.latency, m.result.Latency); err != nil {
			return err
		}
		until.own += m.result.Own
		until.count.delivered += m.result.Delivered
		e.count.delivered += m.result.Total
		for how, n := range m.result.Dropped {
			e.dropped[how] += n
			e.count.dropped += n
		}
	}
	return nil
}
