package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// A link carries events to the embedded server and back. It speaks NATS's client protocol itself: nats.go
// copies and queues each message for a goroutine of its own, which for small events is most of their cost.
// Here what a loop published in one turn is one write, and the goroutine that reads hands events to the
// sink straight out of its buffer. (https://docs.nats.io/reference/reference-protocols/nats-protocol)
//
// The server is in this process, so there are no names to resolve, no TLS and no timeouts: what it takes to
// reach a server elsewhere is left to nats.go (see remote).
type link struct {
	b              *Bus
	dial           func() (net.Conn, error)
	user, password string

	received, receivedBytes atomic.Uint64
	pings                   atomic.Int32 // len(pongs)
	full                    atomic.Bool  // out holds more than linkBytes
	up                      atomic.Bool
	underWay                atomic.Bool // something was flushed, and a PONG is due behind it

	// The reader's own.
	events, eventBytes int      // handed over since the last Flush
	handles            []uint32 // of the event in hand

	mu                        sync.Mutex
	some                      sync.Cond
	conn                      net.Conn
	out, spare                []byte // what is to be written
	unanswered                int    // writes whose PONG is due
	queued                    int    // events in out
	kicked                    bool   // the writer is to write out now
	closed                    bool
	subs                      map[uint64]*subscription
	sid                       uint64       // the last one, but for ofPatterns
	pongs                     []chan error // for each PING under way: where to report its PONG, or nil
	published, publishedBytes uint64
	reconnects                uint64
}

const (
	// linkBytes or linkEvents may wait to be written before publishers are held back. The second bounds how
	// long a subscription has to wait behind them: NATS takes small ones at so many a second.
	linkBytes  = 4 << 20
	linkEvents = 8 << 10
	// maxUnanswered is how many writes may be under way, from the first byte to the PONG behind the last
	// event. What the server has yet to hand us is thereby bounded, and what is published meanwhile leaves
	// as one write.
	maxUnanswered = 2
	// kickBytes leave without waiting for the end of the turn.
	kickBytes = 128 << 10
	// linkRead is what the reader takes at once, and the server writes at once.
	linkRead = 64 << 10
	// ofPatterns is the lowest bit in the sid of a pattern.
	ofPatterns = 1
)

var errLink = errors.New("embedded NATS closed the connection")

// openLink connects. run must be called then.
func (b *Bus) openLink(dial func() (net.Conn, error), user, password string) (*link, error) {
	l := &link{b: b, dial: dial, user: user, password: password, subs: make(map[uint64]*subscription)}
	l.some.L = &l.mu
	return l, l.connect()
}

// connect logs in to the server and makes the subscriptions that there are.
func (l *link) connect() error {
	// Without headers: the server cuts off those of others.
	conn, err := logIn(l.dial, map[string]any{"name": "notifyd events", "user": l.user, "pass": l.password, "headers": false})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return errLink
	}
	l.conn = conn
	l.out = l.out[:0]
	for _, sub := range l.subs {
		l.appendSub(sub)
	}
	l.kicked = true
	l.some.Signal()
	l.up.Store(true)
	return nil
}

// logIn connects to the embedded server, with options beside those that all connections have.
func logIn(dial func() (net.Conn, error), options map[string]any) (net.Conn, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	maps.Copy(options, map[string]any{"verbose": false, "pedantic": false, "echo": true, "protocol": 1, "lang": "go", "version": "1"})
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	// The server says INFO, and PONG or why not.
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	buf := make([]byte, 32<<10)
	if _, err = conn.Read(buf); err == nil {
		if _, err = fmt.Fprintf(conn, "CONNECT %s\r\nPING\r\n", text); err == nil {
			err = awaitPong(conn, buf)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

func awaitPong(conn net.Conn, buf []byte) error {
	n := 0
	for !bytes.Contains(buf[:n], []byte("PONG\r\n")) {
		m, err := conn.Read(buf[n:])
		if n += m; err != nil {
			return fmt.Errorf("%w: %q", err, buf[:n])
		}
	}
	return nil
}

func (l *link) appendSub(sub *subscription) {
	l.out = append(append(append(l.out, "SUB "...), l.b.subject...), sub.pattern...)
	if sub.wild {
		l.out = append(append(l.out, ' '), l.b.group...)
	}
	l.out = append(strconv.AppendUint(append(l.out, ' '), sub.sid, 10), "\r\n"...)
}

// run writes and reads until close.
func (l *link) run() {
	l.b.running.Go(l.write)
	l.b.running.Go(l.readAll)
}

// publish implements events. It never waits.
func (l *link) publish(topic, data []byte) wire.Code {
	l.mu.Lock()
	if !l.up.Load() {
		l.mu.Unlock()
		return wire.Unavailable
	}
	l.out = append(append(append(l.out, "PUB "...), l.b.subject...), topic...)
	l.out = strconv.AppendUint(append(l.out, ' '), uint64(len(data)), 10)
	l.out = append(append(append(l.out, "\r\n"...), data...), "\r\n"...)
	l.published++
	l.publishedBytes += uint64(len(data))
	l.queued++
	if len(l.out) > kickBytes {
		l.kick()
	}
	if len(l.out) > linkBytes || l.queued > linkEvents {
		l.kick()
		l.full.Store(true)
	}
	l.mu.Unlock()
	return wire.OK
}

// ping asks the server for a PONG, which is reported to done, if that is not nil; done has room for it. mu is held.
func (l *link) ping(done chan error) {
	l.out = append(l.out, "PING\r\n"...)
	l.pongs = append(l.pongs, done)
	l.pings.Add(1)
}

// kick wakes the writer, so that it writes what is in out. mu is held.
func (l *link) kick() {
	if !l.kicked {
		l.kicked = true
		l.some.Signal()
	}
}

// flush implements events.
func (l *link) flush() {
	l.mu.Lock()
	if len(l.out) > 0 && l.conn != nil {
		l.underWay.Store(true)
		l.kick()
	}
	l.mu.Unlock()
}

// busy implements events.
func (l *link) busy() bool { return l.underWay.Load() }

// hasRoom implements events.
func (l *link) hasRoom() bool { return !l.full.Load() }

// write is the goroutine that owns the sending side.
func (l *link) write() {
	for {
		l.mu.Lock()
		for !l.closed && (!l.kicked || l.conn == nil || l.unanswered == maxUnanswered) {
			l.some.Wait()
		}
		// The PONG will say that all events that this brings are in: see readOperations.
		l.ping(nil)
		l.unanswered++
		p, conn := l.out, l.conn
		l.out, l.spare, l.queued, l.kicked = l.spare[:0], nil, 0, false
		room, closed := l.full.Swap(false), l.closed
		l.mu.Unlock()
		if closed {
			return
		}
		if room {
			l.b.sink.Room()
		}
		// An error shows on the reading side too, which deals with it.
		_, _ = conn.Write(p)
		l.mu.Lock()
		if cap(p) <= 2*kickBytes {
			l.spare = p
		}
		l.mu.Unlock()
	}
}

// readAll is the goroutine that owns the receiving side, and connects anew when the server has ended the
// connection: it does that when we are too slow for what others publish.
func (l *link) readAll() {
	for {
		err := l.read()
		l.mu.Lock()
		closed := l.closed
		room := l.lost()
		l.mu.Unlock()
		l.b.sink.Answered() // there will be no answer
		if room {
			l.b.sink.Room()
		}
		if closed {
			return
		}
		l.b.log.Warn("lost embedded NATS, reconnecting; events may have been missed", zap.Error(err))
		l.b.reportState(false)
		for attempt := 1; ; attempt++ {
			if err = l.connect(); err == nil {
				break
			}
			if l.b.dials.allow() {
				l.b.log.Warn("embedded NATS does not answer", zap.Error(err))
			}
			select {
			case <-time.After(reconnectDelay(attempt)):
			case <-l.b.quit:
				return
			}
		}
		l.mu.Lock()
		l.reconnects++
		l.mu.Unlock()
		l.b.reportState(true)
	}
}

// lost gives up the connection and what waits for it, and reports whether there is room now and was none
// before. mu is held.
func (l *link) lost() (room bool) {
	l.up.Store(false)
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
	for len(l.pongs) > 0 {
		l.ponged(errLink)
	}
	l.underWay.Store(false)
	l.out, l.queued = l.out[:0], 0
	return l.full.Swap(false)
}

// read hands over events until the connection ends.
func (l *link) read() error {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn == nil {
		return errLink
	}
	return readConn(conn, l.readOperations)
}

// readConn calls act with what has come until the connection ends. act says how much of that it has used, and how much
// the next operation needs, as far as known.
func readConn(conn net.Conn, act func(p []byte) (used, need int, err error)) error {
	buf, have := make([]byte, 2*linkRead), 0
	for {
		n, err := conn.Read(buf[have:])
		if have += n; err != nil {
			return err
		}
		used, need, err := act(buf[:have])
		if err != nil {
			return err
		}
		have = copy(buf, buf[used:have])
		if need > len(buf)-linkRead {
			buf = append(make([]byte, 0, need+linkRead), buf[:have]...)[:need+linkRead]
		} else if len(buf) > 2*linkRead && have < linkRead {
			buf = append(make([]byte, 0, 2*linkRead), buf[:have]...)[:2*linkRead]
		}
	}
}

// readOperations acts on the complete operations in p. The server may bring what we published in one write in many
// small pieces, each of which would cost every subscriber a write of its own: while a PONG is due more is
// to come, and the sink's round goes on. used is how much of p they are; need is how long the next
// one is, as far as known.
func (l *link) readOperations(p []byte) (used, need int, err error) {
	for {
		size, err := l.operation(p[used:])
		if err != nil {
			return used, 0, err
		}
		if size <= 0 || size > len(p)-used {
			need = size
			break
		}
		used += size
	}
	if l.eventBytes >= linkRead || l.pings.Load() == 0 {
		l.flushEvents()
	}
	return used, need, nil
}

// flushEvents ends what the sink takes for a round.
func (l *link) flushEvents() {
	if l.events == 0 {
		return
	}
	l.received.Add(uint64(l.events))
	l.receivedBytes.Add(uint64(l.eventBytes))
	l.events, l.eventBytes = 0, 0
	l.b.sink.Flush(0)
}

// operation acts on the first operation in p when p holds all of it. size is its length, 0 when that cannot
// be told yet.
func (l *link) operation(p []byte) (size int, err error) {
	end := bytes.IndexByte(p, '\n')
	if end < 1 {
		if len(p) > linkRead {
			return 0, errOperation
		}
		return 0, nil
	}
	line := p[:end-1] // without CR
	switch {
	case bytes.HasPrefix(line, []byte("MSG ")):
		m, err := parseMsg(line[4:])
		if err != nil {
			return 0, err
		}
		size = end + 1 + m.size + 2
		if size <= len(p) {
			l.event(m, p[end+1:end+1+m.size])
		}
		return size, nil
	case string(line) == "PONG":
		l.flushEvents()
		l.mu.Lock()
		l.ponged(nil)
		if len(l.pongs) == 0 && len(l.out) == 0 {
			l.underWay.Store(false)
		}
		l.mu.Unlock()
		l.b.sink.Answered()
	case string(line) == "PING":
		l.mu.Lock()
		l.out = append(l.out, "PONG\r\n"...)
		l.kick()
		l.mu.Unlock()
	case bytes.HasPrefix(line, []byte("-ERR")):
		l.b.failures.Add(1)
		if l.b.errors.allow() {
			l.b.log.Warn("NATS reports an error", zap.ByteString("error", line[4:]))
		}
	case bytes.HasPrefix(line, []byte("INFO ")): // asks for nothing
	default:
		return 0, errOperation
	}
	return end + 1, nil
}

// msg is the head of a MSG: "subject sid [reply-to] size".
type msg struct {
	subject []byte
	sid     uint64
	size    int
}

var (
	errMsg       = errors.New("malformed MSG from NATS")
	errOperation = errors.New("malformed operation from NATS")
)

func parseMsg(line []byte) (m msg, err error) {
	i := bytes.IndexByte(line, ' ')
	j := bytes.LastIndexByte(line, ' ')
	if i < 0 || j <= i {
		return m, errMsg
	}
	m.subject = line[:i]
	sid := line[i+1 : j]
	if k := bytes.IndexByte(sid, ' '); k >= 0 {
		sid = sid[:k] // a reply subject follows
	}
	size, ok := decimal(line[j+1:])
	var ok2 bool
	m.sid, ok2 = decimal(sid)
	if !ok || !ok2 || size > maxPayloadBytes {
		return m, errMsg
	}
	m.size = int(size)
	return m, nil
}

// decimal reads an unsigned number of at most 18 digits.
func decimal(p []byte) (n uint64, ok bool) {
	if len(p) == 0 || len(p) > 18 {
		return 0, false
	}
	for _, c := range p {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return n, true
}

func (l *link) event(m msg, data []byte) {
	l.events++
	l.eventBytes += len(data)
	if len(m.subject) <= len(l.b.subject) {
		return // a mapping of NATS's made another subject of it
	}
	var topic string
	if m.sid&1 == ofPatterns {
		// It came by one of the patterns that match, maybe by one that has been unsubscribed since.
		if l.b.StreamOf(m.subject[len(l.b.subject):]) != nil {
			return // it comes by the stream
		}
		topic = string(m.subject[len(l.b.subject):])
		l.handles = l.b.interest.patterns.match(l.handles[:0], topic)
	} else {
		l.mu.Lock()
		sub := l.subs[m.sid]
		l.mu.Unlock()
		if l.handles = sub.append(l.handles[:0]); sub != nil {
			topic = sub.pattern
		}
	}
	if len(l.handles) > 0 { // else it lingers, or was unsubscribed and NATS had sent this before it knew
		l.b.sink.Event(0, l.handles, topic, data)
	}
}

// subscribe implements events.
func (l *link) subscribe(sub *subscription) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errLink
	}
	l.sid += 2
	sub.sid = l.sid
	if sub.wild {
		sub.sid |= ofPatterns
	}
	l.subs[sub.sid] = sub
	l.appendSub(sub)
	l.kick()
	return nil
}

// unsubscribe implements events.
func (l *link) unsubscribe(subs []*subscription) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sub := range subs {
		delete(l.subs, sub.sid)
		l.out = append(strconv.AppendUint(append(l.out, "UNSUB "...), sub.sid, 10), "\r\n"...)
	}
	l.kick()
	return nil
}

// confirm implements events.
func (l *link) confirm(ctx context.Context) error {
	done := make(chan error, 1)
	l.mu.Lock()
	if !l.up.Load() {
		l.mu.Unlock()
		return errLink
	}
	l.ping(done)
	l.kick()
	l.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ponged is called for the PONG to the earliest PING, or why there will be none. mu is held.
func (l *link) ponged(err error) {
	if len(l.pongs) == 0 {
		return
	}
	if done := l.pongs[0]; done != nil {
		done <- err
	} else {
		l.unanswered--
		l.some.Signal()
	}
	l.pongs = append(l.pongs[:0], l.pongs[1:]...)
	l.pings.Add(-1)
}

// stats implements events.
func (l *link) stats(st *Stats) {
	st.Received += l.received.Load()
	st.ReceivedBytes += l.receivedBytes.Load()
	l.mu.Lock()
	st.Published += l.published
	st.PublishedBytes += l.publishedBytes
	st.Reconnects += l.reconnects
	l.mu.Unlock()
}

// close implements events.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.lost()
	l.some.Signal()
	l.mu.Unlock()
}
