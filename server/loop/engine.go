package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Engine is a set of loops behind one listener.
type Engine struct {
	opts       Options
	handler    Handler
	start      time.Time
	loops      []*Loop
	mergeBytes int

	waitingForRoom atomic.Int32 // callers of Deliver that wait for room

	load   []atomic.Int64 // connections assigned to each loop
	posts  atomic.Int64   // those of them that carry HTTP requests
	limits limits         // of sockets, those given to net/http included

	listener listener // loop 0's
}

// New makes an engine; nothing runs before [Engine.Start].
func New(opts Options, h Handler) (*Engine, error) {
	opts = opts.WithDefaults()
	e := &Engine{
		opts: opts, handler: h, start: time.Now(),
		// A batch larger than a part of what may wait for a peer would close
		// peers that are merely a moment late.
		mergeBytes: max(4<<10, min(256<<10, opts.PendingBytes/4)),
		load:       make([]atomic.Int64, opts.Loops),
		limits: limits{
			total: opts.Connections, perIP: opts.ConnectionsPerIP, exempt: opts.Exempt,
			byAddr: make(map[[16]byte]int),
		},
	}
	for i := range opts.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			e.closeLoops()
			return nil, fmt.Errorf("epoll: %w", err)
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

func (e *Engine) closeLoops() {
	for _, l := range e.loops {
		l.close()
	}
}

// Elapsed is the time since the engine was made, in nanoseconds. Setting the machine's
// clock does not change it. Any goroutine may call it.
func (e *Engine) Elapsed() int64 { return int64(time.Since(e.start)) }

// Loops returns the loops; a handler makes its state for each before Start.
func (e *Engine) Loops() []*Loop { return e.loops }

// Start takes over the socket of ln, a TCP listener made by [Listen], which it closes,
// and runs the loops. It returns at once. After an error the engine is of
// no more use. On other systems than Linux it always returns an error.
func (e *Engine) Start(ln net.Listener) error {
	if err := e.listener.take(ln, &e.loops[0].poller); err != nil {
		e.closeLoops()
		return err
	}
	for _, l := range e.loops {
		go l.run()
	}
	return nil
}

// Drain ends the engine: it stops accepting, sends each connection a close
// frame with 1012 (service restart), spread evenly over window so that the
// clients do not all come back at once, waits for the close handshakes, and
// stops the loops. What is queued for a connection is sent before its close
// frame. When ctx ends first, what is left is cut off and ctx's error returned. A
// loop that hangs is left behind, with an error that names it.
func (e *Engine) Drain(ctx context.Context, window time.Duration) error {
	for _, l := range e.loops {
		l.Post(func() { l.beginDrain(window) })
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var err error
	for e.connections() > 0 && err == nil {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-tick.C:
		}
	}
	for _, l := range e.loops {
		l.Post(func() { l.halted = true })
	}
	stopped := make([]<-chan struct{}, len(e.loops))
	for i, l := range e.loops {
		stopped[i] = l.stopped
	}
	halting, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltTimeout)
	defer cancel()
	return errors.Join(err, hanging(halting, stopped))
}

// haltTimeout is how long the loops may take to end their turns.
const haltTimeout = 2 * time.Second

// Connections is how many connections there are, those included that are being
// opened or closed, but for those that carry HTTP requests. Any goroutine may call it.
func (e *Engine) Connections() int64 { return e.connections() - e.posts.Load() }

// connections is how many connections the loops have.
func (e *Engine) connections() int64 {
	n := int64(0)
	for i := range e.load {
		n += e.load[i].Load()
	}
	return n
}

// Do has each loop call f on its goroutine and waits until all have.
func (e *Engine) Do(f func(*Loop)) {
	var wg sync.WaitGroup
	for _, l := range e.loops {
		wg.Add(1)
		if !l.Post(func() { f(l); wg.Done() }) {
			wg.Done()
		}
	}
	wg.Wait()
}
