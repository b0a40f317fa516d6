//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// load drives one server: raw epoll, and events are counted by the mark in their
// payload, without a look at frames, so that it costs well under what the server
// costs.
type load struct {
	s        *scenario
	crowd    crowd
	subs     []subscriber // of topic i modulo Topics
	pubs     []int        // descriptors, by topic
	frames   [][]byte     // what a publisher sends at once, by topic
	epfd     int
	timer    int // timerfd, for a rate
	events   []unix.EpollEvent
	buf      []byte
	waiting  []int // deliveries that are not yet in, by topic
	missing  int   // sum of waiting
	began    time.Time
	patience time.Duration // for the next event
	latency  []time.Duration
}

// subscriber is a receiving connection. A mark may be cut in two by reads, so the
// end of the last one is kept; it is shorter than a mark.
type subscriber struct {
	fd     int
	tail   [len(mark) - 1]byte
	kept   int
	events int
}

// timerSlot is the timer among the subscribers' numbers in the epoll set.
const timerSlot = -1

func newLoad(s *scenario, addr string, d *dialect) (l *load, err error) {
	l = &load{s: s, epfd: -1, timer: -1, events: make([]unix.EpollEvent, 512), buf: make([]byte, 256<<10), waiting: make([]int, s.Topics), patience: patience * time.Second}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return l, err
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return l, err
	}
	if err = l.watch(l.timer, timerSlot); err != nil {
		return l, err
	}
	if err = l.crowd.open(addr, d, s.Topics*s.Subscribers, s.Topics); err != nil {
		return l, err
	}
	for i, fd := range l.crowd.fds {
		l.subs = append(l.subs, subscriber{fd: fd})
		if err = errors.Join(unix.SetNonblock(fd, true), l.watch(fd, i)); err != nil {
			return l, err
		}
	}
	if err = l.crowd.open(addr, d, s.Topics, 0); err != nil {
		return l, err
	}
	l.pubs = l.crowd.fds[len(l.subs):]
	for i := range s.Topics {
		l.frames = append(l.frames, bytes.Repeat(frame(d.publish(topicName(i))), max(1, s.Window)))
	}
	return l, nil
}

func (l *load) watch(fd, slot int) error {
	return unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(slot)})
}

func (l *load) close() {
	l.crowd.close()
	_ = unix.Close(l.timer)
	_ = unix.Close(l.epfd)
}

// run drives the server for that long, and then waits for what is under way. It
// returns how many events came.
func (l *load) run(d time.Duration) (delivered int, err error) {
	for i := range l.subs {
		l.subs[i].events = 0
	}
	l.latency = l.latency[:0]
	l.began = time.Now()
	if l.s.Rate > 0 {
		err = l.open(d)
	} else {
		err = l.closed(d)
	}
	for i := range l.subs {
		delivered += l.subs[i].events
	}
	return delivered, err
}

// closed publishes to a topic whenever nothing of it is under way.
func (l *load) closed(d time.Duration) error {
	for {
		if time.Since(l.began) < d {
			for topic, n := range l.waiting {
				if n == 0 {
					if err := l.publish(topic, l.s.Window); err != nil {
						return err
					}
				}
			}
		} else if l.missing == 0 {
			return nil
		}
		if _, err := l.receive(); err != nil {
			return err
		}
	}
}

// open publishes to one topic after the other, at the scenario's rate. What the
// timer missed is made up for at once.
func (l *load) open(d time.Duration) error {
	interval := l.interval()
	every := unix.NsecToTimespec(int64(interval))
	l.began = time.Now() // the k-th publish, from 0, is due at the timer's tick k+1
	if err := unix.TimerfdSettime(l.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return err
	}
	total := max(1, int(d/interval))
	for sent := 0; sent < total || l.missing > 0; {
		ticks, err := l.receive()
		if err != nil {
			return err
		}
		for ; ticks > 0 && sent < total; ticks-- {
			if err := l.publish(sent%l.s.Topics, 1); err != nil {
				return err
			}
			sent++
		}
	}
	return unix.TimerfdSettime(l.timer, 0, &unix.ItimerSpec{}, nil)
}

func (l *load) interval() time.Duration { return time.Second / time.Duration(l.s.Rate) }

func (l *load) publish(topic, events int) error {
	l.waiting[topic] += events * l.s.Subscribers
	l.missing += events * l.s.Subscribers
	return send(l.pubs[topic], l.frames[topic])
}

// receive waits for something to arrive and counts it. ticks are those of the
// timer.
func (l *load) receive() (ticks int, err error) {
	n, err := unix.EpollWait(l.epfd, l.events, int(l.patience.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("stalled: %d deliveries are missing", l.missing)
	}
	for _, e := range l.events[:n] {
		if e.Fd == timerSlot {
			var count [8]byte
			if _, err := unix.Read(l.timer, count[:]); err == nil {
				ticks += int(binary.NativeEndian.Uint64(count[:]))
			}
			continue
		}
		if err := l.read(int(e.Fd)); err != nil {
			return ticks, err
		}
	}
	return ticks, nil
}

func (l *load) read(i int) error {
	s := &l.subs[i]
	at := copy(l.buf, s.tail[:s.kept])
	n, err := unix.Read(s.fd, l.buf[at:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		return errors.Join(err, errEnded)
	}
	got := l.buf[:at+n]
	s.kept = copy(s.tail[:], got[max(0, len(got)-len(s.tail)):])
	events := bytes.Count(got, []byte(mark))
	topic := i % l.s.Topics
	if l.s.Rate > 0 {
		now := time.Since(l.began)
		for k := range events {
			due := time.Duration((s.events+k)*l.s.Topics+topic+1) * l.interval()
			l.latency = append(l.latency, now-due)
		}
	}
	s.events += events
	l.waiting[topic] -= events
	l.missing -= events
	if l.waiting[topic] < 0 {
		return fmt.Errorf("more events than were published to %s", topicName(topic))
	}
	return nil
}

// percentile of the last run's latencies, in µs, from when an event was due to be
// published until a subscriber had it.
func (l *load) percentile(p float64) float64 {
	slices.Sort(l.latency)
	return micros(l.latency[min(len(l.latency)-1, int(p*float64(len(l.latency))))])
}
