//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

const (
	readBuffer = 256 << 10
	// stallTime is how long a closed loop waits for a delivery before it gives up.
	stallTime = 10 * time.Second
	// drainTime is how long events that are under way are waited for at the end,
	// after the last that came.
	drainTime = 2 * time.Second
	// writerBytes is the most that may wait for a publisher's socket; until it is
	// less, events that are due are late.
	writerBytes = 1 << 20

	// Latencies are kept from a microsecond to a minute, with three digits.
	minLatency, maxLatency, latencyDigits = 1_000, 60_000_000_000, 3

	// stalledBytes is the receive buffer of a connection that is not read.
	stalledBytes = 64 << 10

	// Numbers of what epoll tells about that is no connection: the timer, and from
	// linkEvent downwards the links.
	timerEvent = -1
	linkEvent  = -2

	// edges is what epoll reports of a connection, each change once, which spares the kernel to
	// look again. After it, a socket is read until it has given less than asked, or
	// to its end, if that has come.
	edges  = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	hangup = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// engine publishes and receives. It is one goroutine and one epoll descriptor;
// nothing here is shared. Reading, it looks at frame headers and marks alone.
type engine struct {
	target    Target
	op        ws.OpCode
	epoll     int
	timer     int
	conns     []*conn
	writers   [][]*conn // by topic; nil in a process that only receives
	readers   []int     // by topic: connections that are subscribed and read
	messages  *messages
	stored    func(answer []byte) (int, error) // looks at what is counted, if those are answers; nil: events are counted
	back      int                              // clients that have caught up
	answering *answering                       // nil: nobody awaits answers
	links     []*link                          // to the processes that receive, or to the one that publishes
	heard     func(link int, m note) error

	start  time.Time
	base   int64 // CLOCK_MONOTONIC at start, nanoseconds
	now    int64 // on that clock, which all processes of the machine share
	buf    []byte
	reader *conn // whose bytes are being split

	received int64 // bytes

	pace
	pinger  *pinger // nil: nobody pings
	count   counters
	dropped map[string]int // of them, by close code
	latency *hdrhistogram.Histogram
	late    int64 // what the last events were late
	alike   int64 // so many of them: those of one write have one latency, recorded at once
	from    int64 // latencies count if the event was sent in [from, until)
	until   int64
	lastAt  [timeDigits]byte // the time that was decoded last, and what it was
	lastVal int64
}

// counters go up from the start of a load.
type counters struct {
	published uint64
	delivered uint64
	awaited   uint64 // deliveries that the published events are to bring
	answered  uint64 // of the published, if answers are awaited
	dropped   int    // stalled connections that the server closed
}

func newEngine(target Target, messages *messages) (*engine, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, err
	}
	e := &engine{
		target: target, op: opcode(target), epoll: epoll, timer: timer, messages: messages,
		start: time.Now(), base: monotonic(), buf: make([]byte, readBuffer),
		latency: hdrhistogram.New(minLatency, maxLatency, latencyDigits),
	}
	e.tick()
	return e, e.epollControl(unix.EPOLL_CTL_ADD, timer, timerEvent, unix.EPOLLIN)
}

// listen hands what comes over links to heard.
func (e *engine) listen(links []*link, heard func(link int, m note) error) error {
	e.links, e.heard = links, heard
	for i, l := range links {
		if err := e.epollControl(unix.EPOLL_CTL_ADD, l.in, linkEvent-i, unix.EPOLLIN); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) epollControl(op, fd, id int, events uint32) error {
	return unix.EpollCtl(e.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// add takes over a connection.
func (e *engine) add(c *conn) error {
	c.id = len(e.conns)
	e.conns = append(e.conns, c)
	if early := c.in.tail; len(early) > 0 {
		if err := e.split(c, early); err != nil {
			return err
		}
	}
	return e.epollControl(unix.EPOLL_CTL_ADD, c.fd, c.id, edges)
}

// stall stops reading a connection, for which the kernel keeps little, so that
// the server soon notices. A reset is told all the same.
func (e *engine) stall(c *conn) error {
	c.stalled = true
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, stalledBytes); err != nil {
		return err
	}
	return e.epollControl(unix.EPOLL_CTL_MOD, c.fd, c.id, unix.EPOLLET)
}

// resume reads a stalled connection, without counting.
func (e *engine) resume(c *conn) error {
	if c.closed {
		return nil
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer); err != nil {
		return err
	}
	return e.epollControl(unix.EPOLL_CTL_MOD, c.fd, c.id, edges)
}

// missing is how many answers and deliveries have not come.
func (e *engine) missing() uint64 {
	n := e.count.awaited - min(e.count.delivered, e.count.awaited)
	if e.answering != nil {
		n += e.count.published - min(e.count.answered, e.count.published)
	}
	return n
}

// close drops every connection.
func (e *engine) close() {
	for _, c := range e.conns {
		c.drop()
	}
	_ = unix.Close(e.timer)
	_ = unix.Close(e.epoll)
}

// tick reads the clock without a system call, which unix.ClockGettime makes.
func (e *engine) tick() { e.now = e.base + int64(time.Since(e.start)) }

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // every Linux has it
	return ts.Nano()
}

// poll waits at most timeout for something to happen, and handles it.
func (e *engine) poll(ctx context.Context, events []unix.EpollEvent, timeout time.Duration) error {
	if e.next < len(e.queue) && !e.ended {
		timeout = 0
	}
	n, err := unix.EpollWait(e.epoll, events, int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	e.tick()
	for _, ev := range events[:max(n, 0)] {
		switch {
		case ev.Fd == timerEvent:
			var expirations [8]byte
			_, _ = unix.Read(e.timer, expirations[:])
		case ev.Fd <= linkEvent:
			if err := e.hear(int(linkEvent - ev.Fd)); err != nil {
				return err
			}
		default:
			if err := e.handle(e.conns[ev.Fd], ev.Events); err != nil {
				return fmt.Errorf("connection %d: %w", ev.Fd, err)
			}
		}
		if err := e.publishDue(false); err != nil { // also amid many that are ready, or it would be late
			return err
		}
	}
	if err := e.report(); err != nil {
		return err
	}
	return ctx.Err()
}

func (e *engine) hear(link int) error {
	notes, err := e.links[link].receive()
	if err != nil {
		return err
	}
	for _, m := range notes {
		if err := e.heard(link, m); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) handle(c *conn, events uint32) error {
	if c.closed {
		return nil
	}
	if events&unix.EPOLLOUT != 0 {
		if err := e.flush(c); err != nil {
			return err
		}
	}
	more, err := events&(unix.EPOLLIN|hangup) != 0, error(nil)
	for more && err == nil && !c.closed {
		more, err = e.receive(c, events&hangup != 0)
	}
	return err
}

// receive reads once. more: the socket may hold more, and will not tell again;
// toEnd: it surely has its end.
func (e *engine) receive(c *conn, toEnd bool) (more bool, err error) {
	kept := copy(e.buf, c.in.tail)
	n, err := receive(c.fd, e.buf[kept:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EINTR):
		return true, nil
	case err == nil && n == 0:
		err = errors.New("the server ended it without a close frame")
	}
	if err != nil {
		return false, e.lose(c, err)
	}
	e.received += int64(n)
	e.tick()
	more = toEnd || kept+n == len(e.buf)
	return more, e.split(c, e.buf[:kept+n])
}

// receive is recv(2). It never blocks, so the Go scheduler need not know of it.
func receive(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (e *engine) split(c *conn, b []byte) error {
	e.reader = c
	need, err := c.in.split(b, e.frame)
	e.record()
	if need >= len(e.buf) {
		e.buf = make([]byte, need+readBuffer)
	}
	if err != nil {
		return e.lose(c, err)
	}
	return nil
}

// closeError is a close frame from the server.
type closeError struct {
	code   ws.StatusCode
	reason string
}

func (e *closeError) Error() string {
	return fmt.Sprintf("the server closed it: %d %s", e.code, e.reason)
}

// lose ends the run, unless the connection was a stalled one.
func (e *engine) lose(c *conn, err error) error {
	if !c.stalled {
		return err
	}
	c.drop()
	how := "no close frame"
	if told := (*closeError)(nil); errors.As(err, &told) {
		how = strconv.Itoa(int(told.code))
	}
	e.dropped[how]++
	e.count.dropped++
	return nil
}

// frame handles one frame for e.reader.
func (e *engine) frame(f frame) error {
	c, p := e.reader, f.payload
	if c.requests {
		return e.response(c, f)
	}
	switch f.op {
	case ws.OpText, ws.OpBinary, ws.OpContinuation:
		if e.target.Packs() {
			return e.packed(c, p)
		}
		if !markAt(p, c.hint) {
			at := findMark(p)
			if at < 0 || !markAt(p, at) {
				if f.op == ws.OpContinuation {
					return nil // the rest of an event
				}
				return e.answer(c, p)
			}
			c.hint = at
		}
		if err := e.check(c, p); err != nil {
			return err
		}
		e.event(c, p[c.hint+len(markWord):])
		return nil
	case ws.OpPing:
		return e.send(c, appendFrame(nil, ws.OpPong, p))
	case ws.OpPong:
		e.pong(c, p)
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(p)
		return &closeError{code, reason}
	}
	return nil
}

// packed looks for any number of events, one of which may have begun in the
// message before.
func (e *engine) packed(c *conn, p []byte) error {
	if err := e.check(c, p); err != nil {
		return err
	}
	if len(c.seam) > 0 {
		begun := len(c.seam)
		c.seam = append(c.seam, p[:min(len(p), markBytes-1)]...)
		if at := findMark(c.seam); at >= 0 && at < begun && markAt(c.seam, at) {
			e.event(c, c.seam[at+len(markWord):])
		}
	}
	found := false
	for rest := p; ; found = true {
		at := findMark(rest)
		if at < 0 || !markAt(rest, at) {
			break
		}
		e.event(c, rest[at+len(markWord):])
		rest = rest[at+markBytes:]
	}
	c.seam = append(c.seam[:0], p[max(0, len(p)-markBytes+1):]...)
	if found {
		return nil
	}
	return e.answer(c, p)
}

// check looks at a message of answers, where these are counted.
func (e *engine) check(c *conn, p []byte) error {
	if e.stored == nil || !c.publishes {
		return nil
	}
	_, err := e.stored(p)
	return err
}

func (e *engine) answer(c *conn, p []byte) error {
	answer, err := e.target.Answer(p)
	if err == nil && len(answer.Reply) > 0 {
		err = e.send(c, appendFrame(nil, e.op, answer.Reply))
	}
	return err
}

// event counts an event whose time and topic stand at the start of p.
func (e *engine) event(c *conn, p []byte) {
	if c.stalled {
		return
	}
	if at := [timeDigits]byte(p); at != e.lastAt { // subscribers of a topic get the same
		e.lastAt, e.lastVal = at, int64(readDigits(at[:]))
	}
	if e.answering != nil {
		if c.publishes {
			e.answered(c, 1, e.lastVal)
		} else {
			e.receivedBy(e.lastVal)
		}
		return
	}
	e.count.delivered++
	if e.lastVal >= e.from && e.lastVal < e.until {
		if late := e.now - e.lastVal; late != e.late {
			e.record()
			e.late = late
		}
		e.alike++
	}
	if e.Window > 0 {
		topic := 0
		if len(e.outstanding) > 1 {
			topic = int(readDigits(p[timeDigits : timeDigits+topicDigit]))
		}
		e.arrived(topic)
	}
	if c.missed > 0 {
		if c.missed--; c.missed == 0 {
			e.back++
			_ = e.latency.RecordValue(min(max(e.now-c.began, 0), maxLatency)) // in range, so no error
		}
	}
}

// record records the latencies that were alike.
func (e *engine) record() {
	if e.alike > 0 {
		_ = e.latency.RecordValues(min(max(e.late, 0), maxLatency), e.alike) // in range, so no error
		e.alike = 0
	}
}

// send writes, and keeps what the socket does not take.
func (e *engine) send(c *conn, b []byte) error {
	if len(c.out) == 0 {
		n, err := unix.Write(c.fd, b)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return e.lose(c, err)
		}
		if b = b[max(n, 0):]; len(b) == 0 {
			return nil
		}
	}
	c.out = append(c.out, b...)
	return nil
}

func (e *engine) flush(c *conn) error {
	for len(c.out) > 0 {
		n, err := unix.Write(c.fd, c.out)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return e.lose(c, err)
		}
		c.out = c.out[:copy(c.out, c.out[max(n, 0):])]
	}
	return nil
}
