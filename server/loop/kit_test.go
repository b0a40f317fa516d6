package loop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"
)

// hooks is a Handler that writes down what it is told and then calls the hook
// for it, if there is one.
type hooks struct {
	request   func(*Conn, *Request) error
	open      func(*Conn)
	message   func(*Conn, ws.OpCode, []byte)
	post      func(*Conn, *Post)
	violation func(*Conn, ws.StatusCode)
	closed    func(*Conn, ws.StatusCode)
	expired   func(*Member)
	turn      func(*Loop) bool

	mu   sync.Mutex
	log  []string
	tick func()
}

func (h *hooks) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *hooks) noted() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.log)
}

// count says how often the same thing was noted.
func (h *hooks) count(what string) (n int) {
	for _, s := range h.noted() {
		if s == what {
			n++
		}
	}
	return n
}

func (h *hooks) Request(c *Conn, r *Request) error {
	if h.request != nil {
		return h.request(c, r)
	}
	return nil
}

func (h *hooks) Abandoned(*Conn) { h.note("abandoned") }

func (h *hooks) Open(c *Conn) {
	h.note("open")
	if h.open != nil {
		h.open(c)
	}
}

func (h *hooks) Message(c *Conn, op ws.OpCode, p []byte) {
	if h.message != nil {
		h.message(c, op, p)
		return
	}
	h.note("message %d %s", op, p)
}

func (h *hooks) Post(c *Conn, p *Post) {
	h.note("post %s", p.Body)
	if h.post != nil {
		h.post(c, p)
	}
}

func (h *hooks) Violation(c *Conn, code ws.StatusCode) {
	h.note("violation %d", code)
	if h.violation != nil {
		h.violation(c, code)
	}
}

func (h *hooks) Closed(c *Conn, code ws.StatusCode) {
	h.note("closed %d", code)
	if h.closed != nil {
		h.closed(c, code)
	}
}

func (h *hooks) Expired(m *Member) {
	h.note("expired")
	if h.expired != nil {
		h.expired(m)
	}
}

func (h *hooks) Turn(l *Loop) bool {
	return h.turn != nil && h.turn(l)
}

func (h *hooks) Tick(*Loop) {
	h.mu.Lock()
	tick := h.tick
	h.mu.Unlock()
	if tick != nil {
		tick()
	}
}

// quiet is a Handler that keeps nothing.
type quiet struct{ messages int }

func (*quiet) Request(*Conn, *Request) error      { return nil }
func (*quiet) Abandoned(*Conn)                    {}
func (*quiet) Open(*Conn)                         {}
func (q *quiet) Message(*Conn, ws.OpCode, []byte) { q.messages++ }
func (*quiet) Post(*Conn, *Post)                  {}
func (*quiet) Violation(*Conn, ws.StatusCode)     {}
func (*quiet) Closed(*Conn, ws.StatusCode)        {}
func (*quiet) Expired(*Member)                    {}
func (*quiet) Turn(*Loop) bool                    { return false }
func (*quiet) Tick(*Loop)                         {}

// echo answers each message with itself.
func echo(c *Conn, op ws.OpCode, p []byte) { c.Send(op, p) }

// onlyOnLinux skips a test of what Engine.Start refuses elsewhere.
func onlyOnLinux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("loops need epoll")
	}
}

// idle is a loop that does not run: tests call its parts.
func idle(t testing.TB, opts Options, h Handler) *Loop {
	t.Helper()
	onlyOnLinux(t)
	opts.Loops = 1
	e, err := New(opts, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.closeLoops)
	return e.loops[0]
}

// member makes an open connection of fd on a loop that does not run.
func (l *Loop) member(fd int) *Conn {
	l.add(int32(fd), [16]byte{})
	c := l.conns[len(l.conns)-1]
	l.eng.load[l.index].Add(1)
	c.state, c.since = stateOpen, 0
	l.stat.open++
	return c
}

// sweepAll looks at all deadlines.
func (l *Loop) sweepAll() {
	l.beginSweep()
	for l.sweep.due() {
		l.sweepSome()
	}
}

// server is a running engine.
type server struct {
	*Engine
	t    testing.TB
	h    *hooks
	addr string
}

// start runs an engine on a free port. When the test ends it is drained, and
// descriptors and goroutines must be back at what they were.
func start(t testing.TB, opts Options, h *hooks) *server {
	t.Helper()
	onlyOnLinux(t)
	others := goleak.IgnoreCurrent()
	fds := descriptors(t)
	if opts.Loops == 0 {
		opts.Loops = 1
	}
	e, err := New(opts, h)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Engine: e, t: t, h: h, addr: ln.Addr().String()}
	if err := e.Start(ln); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = e.Drain(ctx, 0)
		if n := e.Connections(); n != 0 {
			t.Errorf("%d connections are still counted", n)
		}
		goleak.VerifyNone(t, others)
		eventually(t, "descriptors at the baseline", func() bool { return descriptors(t) <= fds })
	})
	return s
}

// advance lets the engine believe that d has passed.
func (s *server) advance(d time.Duration) {
	s.t.Helper()
	if len(s.loops) != 1 {
		s.t.Fatal("the clock can be moved for one loop only")
	}
	s.Do(func(l *Loop) { l.eng.start = l.eng.start.Add(-d) })
	s.Do(func(*Loop) {}) // the turn that follows has swept
	s.Do(func(*Loop) {})
}

// held is the memory that connections keep for what is incomplete or unsent.
func (s *server) held() (in, out int) {
	s.t.Helper()
	s.Do(func(l *Loop) {
		for _, c := range l.conns {
			if c == nil {
				continue
			}
			if c.in != nil {
				in += cap(c.in.tail) + cap(c.in.message)
			}
			if c.out != nil {
				for _, b := range c.out.queue {
					out += cap(b.b)
				}
			}
		}
	})
	return in, out
}

func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// eventually waits until ok, for as long as a broken machine might take.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// client is the other end of a socket, with no library in between.
type client struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

const request = "GET /v1/ws?x=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// connect opens a TCP connection and sends nothing.
func (s *server) connect() *client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &client{Conn: conn, t: s.t, br: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	s.t.Cleanup(func() { _ = conn.Close() })
	return c
}

// refused asks for a WebSocket and requires a response with this status; it returns its head.
func (s *server) refused(status string) string {
	s.t.Helper()
	c := s.connect()
	c.send([]byte(request))
	return c.status(status)
}

// unanswered requires that c has been sent nothing.
func (c *client) unanswered() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := c.br.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("%q, %v", b, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
}

// dial opens a WebSocket.
func (s *server) dial() *client {
	s.t.Helper()
	c := s.connect()
	c.send([]byte(request))
	c.status("101")
	return c
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// status reads the head of a response, checks its status, and returns it.
func (c *client) status(want string) string {
	c.t.Helper()
	var head bytes.Buffer
	for {
		line, err := c.br.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			c.t.Fatalf("response %q: %v", head.String(), err)
		}
		if line == "\r\n" {
			break
		}
	}
	if got, ok := bytes.CutPrefix(head.Bytes(), []byte("HTTP/1.1 ")); !ok || !bytes.HasPrefix(got, []byte(want)) {
		c.t.Fatalf("response %q, want status %s", head.String(), want)
	}
	return head.String()
}

// frame reads one frame, which must be as servers send them.
func (c *client) frame() (ws.OpCode, []byte) {
	c.t.Helper()
	h, p, err := readFrame(c.br)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := ws.CheckHeader(h, ws.StateClientSide); err != nil || !h.Fin {
		c.t.Fatalf("frame %+v: %v", h, err)
	}
	return h.OpCode, p
}

// readFrame reads a frame with gobwas.
func readFrame(r io.Reader) (ws.Header, []byte, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return h, nil, err
	}
	p, err := io.ReadAll(io.LimitReader(r, h.Length))
	if err == nil && int64(len(p)) < h.Length {
		err = io.ErrUnexpectedEOF
	}
	return h, p, err
}

func (c *client) want(op ws.OpCode, payload string) {
	c.t.Helper()
	if gotOp, got := c.frame(); gotOp != op || string(got) != payload {
		c.t.Fatalf("got frame %d %.100q (%d bytes), want %d %.100q", gotOp, got, len(got), op, payload)
	}
}

// wantClose reads up to a close frame with this code.
func (c *client) wantClose(code ws.StatusCode) {
	c.t.Helper()
	for {
		op, p := c.frame()
		if op != ws.OpClose {
			continue
		}
		if got, _ := closeStatus(p); got != code {
			c.t.Fatalf("closed with %d %q, want %d", got, p[min(2, len(p)):], code)
		}
		return
	}
}

// wantEOF checks that the server ended its side in order: no more bytes, no RST.
func (c *client) wantEOF() {
	c.t.Helper()
	if b, err := io.ReadAll(c.br); err != nil || len(b) > 0 {
		c.t.Fatalf("%d bytes and %v behind the end", len(b), err)
	}
}

// gone waits until the server has given the connection up, in order or not.
func (c *client) gone() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.br); errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("still connected")
	}
}

// masked is a client's frame.
func masked(op ws.OpCode, fin bool, payload string) []byte {
	f := ws.NewFrame(op, fin, []byte(payload))
	return ws.MustCompileFrame(ws.MaskFrameInPlaceWith(f, [4]byte{1, 2, 3, 4}))
}

func text(s string) []byte { return masked(ws.OpText, true, s) }

// alive checks that the connection works, by a ping.
func (c *client) alive() {
	c.t.Helper()
	c.send(masked(ws.OpPing, true, "alive?"))
	c.want(ws.OpPong, "alive?")
}

const forever = math.MaxInt64

// batch is one with these texts as frames.
func batch(texts ...string) *Batch {
	b := NewBatch()
	for _, s := range texts {
		b.Append(ws.OpText, []byte(s))
	}
	return b
}
