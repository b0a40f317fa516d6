//go:build linux

package loop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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

	behind atomic.Int32 // callers of Deliver that wait for room

	load []atomic.Int64 // connections assigned to each loop
	open atomic.Int64   // sockets, those given to net/http included

	mu    sync.Mutex
	perIP map[[16]byte]int // guarded by mu; used when ConnectionsPerIP is set

	listener listener // loop 0's
	governor governor
	running  sync.WaitGroup
}

// New makes an engine; nothing runs before [Engine.Start].
func New(opts Options, h Handler) (*Engine, error) {
	opts = opts.withDefaults()
	e := &Engine{
		opts: opts, handler: h, start: time.Now(),
		// A batch larger than a part of what a peer may be owed would close
		// peers that are merely a moment late.
		mergeBytes: max(4<<10, min(256<<10, opts.PendingBytes/4)),
		load:       make([]atomic.Int64, opts.Loops),
		perIP:      make(map[[16]byte]int),
	}
	for i := range opts.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			e.closeFDs()
			return nil, fmt.Errorf("epoll: %w", err)
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

func (e *Engine) closeFDs() {
	for _, l := range e.loops {
		l.closeFDs()
	}
}

// Loops returns the loops; a handler makes its state for each before Start.
func (e *Engine) Loops() []*Loop { return e.loops }

// Start takes over the socket of ln, a TCP listener made by [Listen], which it closes,
// and runs the loops. It returns at once. After an error the engine is of
// no more use.
func (e *Engine) Start(ln net.Listener) error {
	if err := e.listener.take(ln, e.loops[0].epfd); err != nil {
		e.closeFDs()
		return err
	}
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	return nil
}

// Drain ends the engine: it stops accepting, sends each connection a close
// frame with 1012 (service restart), spread evenly over window so that the
// clients do not all come back at once, waits for the close handshakes, and
// stops the loops. What is queued for a connection is sent before its close
// frame. When ctx ends first, what is left is cut off and ctx's error returned.
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
	e.running.Wait()
	return err
}

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

// origin is what ConnectionsPerIP counts by: an IPv4 address, or the /64 of an
// IPv6 one, all of which one subscriber line usually has to itself.
func origin(addr [16]byte) [16]byte {
	if !netip.AddrFrom16(addr).Is4In6() {
		clear(addr[8:])
	}
	return addr
}

// admit counts a new socket in, unless that is over a limit; then it returns
// the response to refuse it with. The zero address is not known yet and counts
// towards the total alone.
func (e *Engine) admit(addr [16]byte) (response string) {
	if e.open.Add(1) > int64(e.opts.Connections) && e.opts.Connections > 0 {
		e.open.Add(-1)
		return responseUnavailable
	}
	if !e.admitFrom(addr) {
		e.open.Add(-1)
		return responseTooManyRequests
	}
	return ""
}

// admitFrom counts a socket in at its address, unless that is over the limit.
func (e *Engine) admitFrom(addr [16]byte) bool {
	if e.opts.ConnectionsPerIP == 0 || addr == [16]byte{} {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	from := origin(addr)
	if e.perIP[from] >= e.opts.ConnectionsPerIP {
		return false
	}
	e.perIP[from]++
	return true
}

// gone counts a socket out. Any goroutine may call it.
func (e *Engine) gone(addr [16]byte) {
	e.open.Add(-1)
	if e.opts.ConnectionsPerIP == 0 || addr == [16]byte{} {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	from := origin(addr)
	if e.perIP[from]--; e.perIP[from] == 0 {
		delete(e.perIP, from)
	}
}

// least is the loop with the fewest connections.
func (e *Engine) least() *Loop {
	best := 0
	for i := range e.load {
		if e.load[i].Load() < e.load[best].Load() {
			best = i
		}
	}
	return e.loops[best]
}
