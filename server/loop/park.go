package loop

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"
)

// parking is how a loop sleeps when Go has one processor to run goroutines on
// (GOMAXPROCS=1, as in a container with one CPU). A thread that sleeps in
// epoll_wait keeps that processor until the runtime notices, after 20 µs to
// 10 ms; until then no other goroutine runs, and the noticing costs more than the
// sleep. So the loop parks in Go's own poller, as goroutines do that wait for a
// net.Conn. With more processors that is the dearer way: there the poller has a
// thread of its own, to be woken for each event.
type parking struct {
	file   *os.File // a second descriptor of the epoll set; nil: do not park
	conn   syscall.RawConn
	ready  func(uintptr) bool // polls into events
	events []pollEvent
	n      int
}

// parkFor bounds a sleep, since a sweep may be due.
const parkFor = time.Second

// ProcessorsChanged tells the loops that the number of processors (runtime.GOMAXPROCS)
// has changed. Without it they notice within a second. Any goroutine may call it.
func (e *Engine) ProcessorsChanged() {
	for _, l := range e.loops {
		l.Post(l.chooseSleep)
	}
}

// chooseSleep has the loop park from now on if there is one processor, and else sleep in
// epoll_wait.
func (l *Loop) chooseSleep() {
	switch one := runtime.GOMAXPROCS(0) == 1; {
	case one && l.parking.file == nil:
		l.parking.open(&l.poller)
	case !one && l.parking.file != nil:
		l.parking.close()
	}
}

// open leaves file nil when it gets no descriptor or no poller.
func (p *parking) open(x *poller) {
	file := x.file()
	if file == nil {
		return
	}
	conn, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Now().Add(parkFor))
	}
	if err != nil {
		_ = file.Close()
		return
	}
	p.file, p.conn = file, conn
	p.ready = func(uintptr) bool {
		p.n = x.poll(p.events)
		return p.n > 0
	}
}

func (p *parking) close() {
	if p.file != nil {
		_ = p.file.Close()
		p.file = nil
	}
}

// wait returns what is ready, at the latest when a sweep is due.
func (p *parking) wait(events []pollEvent) int {
	p.events = events
	if err := p.conn.Read(p.ready); errors.Is(err, os.ErrDeadlineExceeded) {
		_ = p.file.SetReadDeadline(time.Now().Add(parkFor)) // it was possible before
		return 0
	}
	return p.n
}
