package bus

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// A storeLink carries what streams store to the embedded server, and JetStream's answers back. It speaks NATS's
// client protocol itself, as link does for events: nats.go makes a map of the headers and encodes that, and copies and
// queues each answer for a goroutine of its own, which took as long as JetStream takes to store.
//
// What is read of streams goes by another connection: the server reads for a direct get before it looks at what
// comes behind it, and no publish waits for that here.
type storeLink struct {
	sc         *streamConn
	dial       func() (net.Conn, error)
	login      map[string]any
	inbox      []byte // prefix of the subjects of answers
	maxPayload int    // of the server, headers included: it would end the connection
	soon       bool   // the server is alone, and does not sync before it answers

	up atomic.Bool

	mu         sync.Mutex
	some       sync.Cond
	conn       net.Conn
	out, spare []byte // what is to be written; inFlight bounds it
	header     []byte // scratch
	closed     bool
	pong       chan error // of confirm, nil: nobody waits
}

// openStoreLink connects. run must be called then.
func openStoreLink(sc *streamConn, dial func() (net.Conn, error), user, password string, maxPayload int) (*storeLink, error) {
	l := &storeLink{sc: sc, dial: dial, inbox: []byte(sc.inbox + "a."), maxPayload: maxPayload, login: map[string]any{
		"name": "notifyd store", "user": user, "pass": password, "headers": true, "no_responders": true,
	}}
	l.some.L = &l.mu
	return l, l.connect()
}

func (l *storeLink) connect() error {
	conn, err := logIn(l.dial, l.login)
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
	l.out = append(append(append(l.out[:0], "SUB "...), l.inbox...), "* 1\r\n"...)
	l.some.Signal()
	l.up.Store(true)
	return nil
}

func (l *storeLink) run() {
	l.sc.b.running.Go(l.write)
	l.sc.b.running.Go(l.readAll)
}

// send hands over an event whose answer will have a number. It never waits.
func (l *storeLink) send(m *wire.ToStore, number uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up.Load() {
		return errLink
	}
	l.header = appendHeaders(l.header[:0], m)
	if len(l.header)+len(m.Data) > l.maxPayload {
		return nats.ErrMaxPayload
	}
	op := "PUB "
	if len(l.header) > 0 {
		op = "HPUB "
	}
	out := append(append(append(l.out, op...), l.sc.b.subject...), m.Topic...)
	out = strconv.AppendUint(append(append(out, ' '), l.inbox...), number, 36)
	if len(l.header) > 0 {
		out = strconv.AppendUint(append(out, ' '), uint64(len(l.header)), 10)
	}
	out = strconv.AppendUint(append(out, ' '), uint64(len(l.header)+len(m.Data)), 10)
	out = append(append(append(out, "\r\n"...), l.header...), m.Data...)
	l.out = append(out, "\r\n"...)
	l.some.Signal()
	return nil
}

// appendHeaders appends the headers that an event is stored with, as NATS writes them; nothing: there are none.
func appendHeaders(dst []byte, m *wire.ToStore) []byte {
	begins := len(dst)
	for key, value := range headersOf(m) {
		if len(dst) == begins {
			dst = append(dst, "NATS/1.0\r\n"...)
		}
		dst = append(append(append(append(dst, key...), ": "...), value...), "\r\n"...)
	}
	if len(dst) > begins {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// write is the goroutine that owns the sending side. While the server takes what came before, what comes gathers.
func (l *storeLink) write() {
	for {
		l.mu.Lock()
		for !l.closed && (len(l.out) == 0 || l.conn == nil) {
			l.some.Wait()
		}
		p, conn, closed := l.out, l.conn, l.closed
		l.out, l.spare = l.spare[:0], nil
		l.mu.Unlock()
		if closed {
			return
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

// readAll is the goroutine that owns the receiving side, and connects anew when the server has ended the connection.
func (l *storeLink) readAll() {
	for {
		l.mu.Lock()
		conn := l.conn
		l.mu.Unlock()
		err := errLink
		if conn != nil {
			err = readConn(conn, l.operations)
		}
		l.mu.Lock()
		closed := l.closed
		l.lost()
		l.mu.Unlock()
		l.sc.flights.fail(time.Time{})
		if closed {
			return
		}
		l.sc.b.log.Warn("lost embedded NATS, reconnecting; what was to be stored may have been", zap.Error(err))
		for attempt := 1; l.connect() != nil; attempt++ {
			select {
			case <-time.After(reconnectDelay(attempt)):
			case <-l.sc.b.quit:
				return
			}
		}
	}
}

// lost gives up the connection. mu is held.
func (l *storeLink) lost() {
	l.up.Store(false)
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
	l.ponged(errLink)
	l.out = l.out[:0]
}

// ponged ends a confirm. mu is held.
func (l *storeLink) ponged(err error) {
	if l.pong != nil {
		l.pong <- err
		l.pong = nil
	}
}

// operations acts on the complete operations in p; see readConn.
func (l *storeLink) operations(p []byte) (used, need int, err error) {
	for {
		size, err := l.operation(p[used:])
		if err != nil {
			return used, 0, err
		}
		if size <= 0 || size > len(p)-used {
			return used, size, nil
		}
		used += size
	}
}

// operation is [link.operation] of answers.
func (l *storeLink) operation(p []byte) (size int, err error) {
	end := bytes.IndexByte(p, '\n')
	if end < 1 {
		if len(p) > linkRead {
			return 0, errOperation
		}
		return 0, nil
	}
	line := p[:end-1] // without CR
	if rest, ok := bytes.CutPrefix(line, []byte("MSG ")); ok {
		return l.answer(p, end+1, rest, 0)
	}
	if rest, ok := bytes.CutPrefix(line, []byte("HMSG ")); ok {
		sizes := rest[:max(0, bytes.LastIndexByte(rest, ' '))]
		headers, ok := decimal(sizes[bytes.LastIndexByte(sizes, ' ')+1:])
		if !ok {
			return 0, errMsg
		}
		return l.answer(p, end+1, rest, headers)
	}
	switch {
	case string(line) == "PONG":
		l.mu.Lock()
		l.ponged(nil)
		l.mu.Unlock()
	case string(line) == "PING":
		l.mu.Lock()
		l.out = append(l.out, "PONG\r\n"...)
		l.some.Signal()
		l.mu.Unlock()
	case bytes.HasPrefix(line, []byte("-ERR")):
		l.sc.b.failures.Add(1)
		if l.sc.b.errors.allow() {
			l.sc.b.log.Warn("NATS reports an error on the connection that stores", zap.ByteString("error", line[4:]))
		}
	case bytes.HasPrefix(line, []byte("INFO ")): // asks for nothing
	default:
		return 0, errOperation
	}
	return end + 1, nil
}

// answer acts on the MSG or HMSG in p, of which line is the head, when p holds all of it. The payload is at begin, and the
// first of it are headers.
func (l *storeLink) answer(p []byte, begin int, line []byte, headers uint64) (size int, err error) {
	m, err := parseMsg(line)
	if err != nil || headers > uint64(m.size) {
		return 0, errMsg
	}
	if size = begin + m.size + 2; size <= len(p) {
		subject := unsafe.String(unsafe.SliceData(m.subject), len(m.subject))
		l.sc.answeredBy(subject, p[begin+int(headers):begin+m.size])
	}
	return size, nil
}

// confirm waits until NATS has taken everything that was written so far. One at a time may call it.
func (l *storeLink) confirm(ctx context.Context) error {
	done := make(chan error, 1)
	l.mu.Lock()
	if !l.up.Load() {
		l.mu.Unlock()
		return errLink
	}
	l.pong = done
	l.out = append(l.out, "PING\r\n"...)
	l.some.Signal()
	l.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *storeLink) close() {
	l.mu.Lock()
	l.closed = true
	l.lost()
	l.some.Signal()
	l.mu.Unlock()
}
