//go:build linux

package loop

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// fed is what came of a stream of bytes.
type fed struct {
	log []string
	out []byte // what the server wrote
}

// feed gives a connection stream in pieces that end at cuts, the way a socket
// would, and checks what memory it holds after each. A handler that pauses is
// resumed before more is read. What the server writes goes to a file.
func feed(t testing.TB, l *Loop, h *hooks, stream []byte, cuts []int) fed {
	t.Helper()
	fd, err := unix.MemfdCreate("out", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	h.log = nil
	c := &Conn{loop: l, fd: int32(fd), events: readable, posts: l.eng.opts.Posts != nil}
	l.opened(c)
	received := 0
	for len(stream) > 0 && c.state < stateLinger {
		piece := len(stream)
		for len(cuts) > 0 && cuts[0] <= received {
			cuts = cuts[1:]
		}
		if len(cuts) > 0 {
			piece = min(piece, cuts[0]-received)
		}
		b, have := l.room(c)
		if len(b) <= have {
			t.Fatalf("no room behind %d bytes", have)
		}
		n := copy(b[have:], stream[:piece])
		stream = stream[n:]
		received += n
		l.received(c, b[:have+n])
		for c.paused {
			c.Resume()
		}
		if c.in != nil {
			if held := cap(c.in.tail) + cap(c.in.message); held > 2*received+2*smallTail {
				t.Fatalf("%d bytes held after %d", held, received)
			}
			if len(c.in.tail) == c.in.off && c.in.fragments == 0 {
				t.Fatal("a record of nothing is kept")
			}
		}
	}
	l.cork.release()
	c.leaveOpen(stateDead)
	if c.out != nil || len(l.endings.dead) > 0 || l.stat.open != 0 || l.eng.posts.Load() != 0 {
		t.Fatalf("owed %v, dead %v, open %d", c.out, l.endings.dead, l.stat.open)
	}
	end, _ := unix.Seek(fd, 0, io.SeekEnd)
	out := make([]byte, end)
	if n, err := unix.Pread(fd, out, 0); int64(n) != end || err != nil {
		t.Fatal(err)
	}
	return fed{h.noted(), out}
}

// fuzzLimits are small, so that a fuzzer meets them.
var fuzzLimits = Options{MessageBytes: 8 << 10, Fragments: 20}

// theirs reads a stream with gobwas' blocking reader and its checks: the
// messages before the close frame or the first thing that it does not like, and
// what that was. (Not with wsutil, which takes a fragmented message that a cut
// control frame interrupts for a whole one.)
func theirs(stream []byte) (log []string, err error) {
	r := bytes.NewReader(stream)
	state := ws.StateServerSide
	var op ws.OpCode
	var message []byte
	for {
		h, p, err := readFrame(r)
		if err != nil {
			return log, err
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return log, err
		}
		ws.Cipher(p, h.Mask, 0)
		switch h.OpCode {
		case ws.OpPing, ws.OpPong:
			continue
		case ws.OpClose:
			return log, errors.New("closed")
		case ws.OpContinuation:
		default:
			op, message = h.OpCode, nil
		}
		message = append(message, p...)
		if state = state.Set(ws.StateFragmented); !h.Fin {
			continue
		}
		state = state.Clear(ws.StateFragmented)
		if op == ws.OpText && !utf8.Valid(message) {
			return log, errors.New("not UTF-8")
		}
		log = append(log, note(op, message))
	}
}

func note(op ws.OpCode, p []byte) string {
	h := &hooks{}
	h.Message(nil, op, p)
	return h.log[0]
}

// A stream in any pieces does what it does in one, and gives the messages that
// gobwas reads from it.
func FuzzFrames(f *testing.F) {
	add := func(frames ...[]byte) { f.Add(bytes.Join(frames, nil), []byte{1, 1, 3, 200, 5}, uint8(3)) }
	long := strings.Repeat("long ", 300)
	add(text("hello"), masked(ws.OpBinary, true, long), text(""))
	add(masked(ws.OpText, false, "he"), masked(ws.OpPing, true, "p"), masked(ws.OpContinuation, false, ""), masked(ws.OpContinuation, true, "llo"), text("x"))
	add(masked(ws.OpClose, true, "\x03\xe8bye"), text("late"))
	add(masked(ws.OpText, true, "\xff"), text("never"))
	add(masked(ws.OpContinuation, true, "first"))
	add(masked(ws.OpText, false, "a"), text("b"))
	add([]byte("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00"))
	add([]byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"))
	add([]byte("\x81\x05hello"))
	add([]byte("\xc1\x80\x00\x00\x00\x00"))
	add(masked(ws.OpText, true, strings.Repeat(long, 6)))
	add(masked(ws.OpPing, true, strings.Repeat("p", 125)), masked(ws.OpPong, true, ""))

	h := &hooks{}
	l := idle(f, fuzzLimits, h)
	f.Fuzz(func(t *testing.T, stream, steps []byte, pause uint8) {
		messages := 0
		h.message = func(c *Conn, op ws.OpCode, p []byte) {
			h.note("message %d %s", op, p)
			clear(p) // it is the handler's to change
			if messages++; pause > 0 && messages%int(pause) == 0 {
				c.Pause()
			}
		}
		whole := feed(t, l, h, bytes.Clone(stream), nil)
		var cuts []int
		at := 0
		for _, step := range steps {
			at += int(step)
			cuts = append(cuts, at)
		}
		for _, cuts := range [][]int{cuts, every(len(stream), 1), every(len(stream), 7)} {
			messages = 0
			cut := feed(t, l, h, bytes.Clone(stream), cuts)
			if !slices.Equal(whole.log, cut.log) || !bytes.Equal(whole.out, cut.out) {
				t.Fatalf("in one piece %q, %q\nin many %q, %q", whole.log, whole.out, cut.log, cut.out)
			}
		}
		read, err := theirs(bytes.Clone(stream))
		mine := whole.log
		if i := slices.IndexFunc(mine, func(s string) bool { return !strings.HasPrefix(s, "message") }); i >= 0 {
			// We saw an end. Messages before it are the same; where gobwas sees no
			// end, it is one that only we insist on.
			mine = mine[:i]
		} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("we let pass what gobwas refuses: %v", err)
		} else if len(read) != len(mine) {
			t.Fatalf("gobwas reads %q, we %q", read, mine)
		}
		if len(read) < len(mine) || !slices.Equal(read[:len(mine)], mine) {
			t.Fatalf("gobwas reads %q (%v), we %q", read, err, mine)
		}
	})
}

// A request that is answered with 101 is one that net/http reads in the same
// way, to its last byte: no proxy in front may see another one in it.
func FuzzHead(f *testing.F) {
	_, plainest, _ := strings.Cut(request, "\r\n")
	f.Add(plainest)
	f.Add(strings.Replace(plainest, "Host: h\r\n", "Host: h\r\nX: a\r\n b\r\n", 1))
	f.Add(strings.Replace(plainest, "Upgrade\r\n", "keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", 1))
	f.Add("Content-Length: 0\r\nContent-Length: 0\nTransfer-Encoding:\tchunked\r\n" + plainest)
	l := idle(f, Options{}, &hooks{request: func(_ *Conn, r *Request) error {
		r.Protocol = "p"
		return nil
	}})
	f.Fuzz(func(t *testing.T, lines string) {
		stream := []byte("GET /v1/ws HTTP/1.1\r\n" + lines + "\r\n")
		c := &Conn{loop: l, fd: -1, state: stateHead, events: readable}
		used := l.head(c, bytes.Clone(stream))
		if c.state != stateOpen {
			if (c.state == stateHead) != (used == 0) {
				t.Fatalf("%d bytes used, state %d", used, c.state)
			}
			l.cork.conn, l.cork.frames, l.endings.dead = nil, l.cork.frames[:0], l.endings.dead[:0]
			return
		}
		answer := string(l.cork.frames)
		l.cork.conn, l.cork.frames = nil, l.cork.frames[:0]
		left := bytes.NewReader(stream)
		br := bufio.NewReaderSize(left, len(stream)+16)
		r, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		if rest := br.Buffered() + left.Len(); rest != len(stream)-used {
			t.Fatalf("the head takes %d bytes, to net/http %d", used, len(stream)-rest)
		}
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 || len(r.Header["Sec-Websocket-Key"]) != 1 ||
			!strings.Contains(strings.ToLower(strings.Join(r.Header["Upgrade"], ",")), "websocket") ||
			!strings.Contains(strings.ToLower(strings.Join(r.Header["Connection"], ",")), "upgrade") {
			t.Fatalf("net/http sees %+v", r)
		}
		if end := headEnd([]byte(answer)); end != len(answer) {
			t.Fatalf("the answer ends at %d of %d: %q", end, len(answer), answer)
		}
	})
}

func every(n, step int) (cuts []int) {
	for at := step; at < n; at += step {
		cuts = append(cuts, at)
	}
	return cuts
}

// Valid streams of messages, fragmented in any way with control frames between,
// arrive whole however they are cut.
func TestStreams(t *testing.T) {
	h := &hooks{}
	l := idle(t, fuzzLimits, h)
	rapid.Check(t, func(r *rapid.T) {
		var stream []byte
		var want []string
		var pongs []byte
		control := func() {
			for rapid.Bool().Draw(r, "ping") {
				p := rapid.StringN(0, 20, 125).Draw(r, "ping payload")
				stream = append(stream, masked(ws.OpPing, true, p)...)
				stream = append(stream, masked(ws.OpPong, true, p)...)
				pongs = append(appendHeader(pongs, ws.OpPong, len(p)), p...)
			}
		}
		for range rapid.IntRange(0, 10).Draw(r, "messages") {
			op := rapid.SampledFrom([]ws.OpCode{ws.OpText, ws.OpBinary}).Draw(r, "op")
			p := []byte(rapid.StringN(0, 3000, 8<<10).Draw(r, "payload"))
			want = append(want, note(op, p))
			for range rapid.IntRange(0, 5).Draw(r, "fragments") {
				control()
				n := rapid.IntRange(0, len(p)).Draw(r, "fragment")
				stream = append(stream, masked(op, false, string(p[:n]))...)
				op, p = ws.OpContinuation, p[n:]
			}
			control()
			stream = append(stream, masked(op, true, string(p))...)
		}
		cuts := rapid.SliceOf(rapid.IntRange(0, len(stream))).Draw(r, "cuts")
		slices.Sort(cuts)
		h.message = nil
		if rapid.Bool().Draw(r, "pause") {
			h.message = func(c *Conn, op ws.OpCode, p []byte) {
				h.note("message %d %s", op, p)
				c.Pause()
			}
		}
		got := feed(t, l, h, stream, cuts)
		if !slices.Equal(got.log, want) || !bytes.Equal(got.out, pongs) {
			r.Fatalf("got %q, %q; want %q, %q", got.log, got.out, want, pongs)
		}
	})
}

// Requests are answered one by one and in order, wherever their bytes are cut, and also when an answer has to wait.
func TestPostsCutAnywhere(t *testing.T) {
	stream := aPost("one") + "\r\n" + aPost("wait", "X: y") + aPost("three") + aPost("four", "Connection: close") + aPost("never")
	h := &hooks{}
	l := idle(t, Options{Posts: func(p *Post) bool { return string(p.Target) == "/p" }}, h)
	var paused *Conn
	h.post = func(c *Conn, p *Post) {
		if string(p.Body) == "wait" && paused == nil {
			paused = c
			c.Pause() // feed resumes it
			answerPost(c, p)
			return
		}
		answerPost(c, p)
	}
	whole := feed(t, l, h, []byte(stream), nil)
	if got := strings.Join(whole.log, ","); got != "post one,post wait,post three,post four,closed 1000" {
		t.Fatalf("%s", got)
	}
	for i := range stream {
		paused = nil
		x := feed(t, l, h, []byte(stream), []int{i})
		if strings.Join(x.log, ",") != strings.Join(whole.log, ",") || !bytes.Equal(x.out, whole.out) {
			t.Fatalf("cut at %d: %q %q", i, x.log, x.out)
		}
	}
	var each []int
	for i := range stream {
		each = append(each, i)
	}
	if x := feed(t, l, h, []byte(stream), each); !bytes.Equal(x.out, whole.out) {
		t.Errorf("byte by byte: %q", x.out)
	}
}
