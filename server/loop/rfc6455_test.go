package loop

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// What a peer must not send (RFC 6455 §5, §7, §8.1), and the code it is closed
// with. Nothing is allocated from what it declares, the close frame arrives
// although the peer goes on sending, and others do not notice.
func TestViolations(t *testing.T) {
	header := func(first byte, length string) []byte { return append([]byte{first}, length+"\x00\x00\x00\x00"...) }
	rsv := func(bits byte) []byte {
		b := text("x")
		b[0] |= bits
		return b
	}
	fragments := func(n int) (b []byte) {
		b = masked(ws.OpText, false, "")
		for range n {
			b = append(b, masked(ws.OpContinuation, false, "")...)
		}
		return b
	}
	join := func(frames ...[]byte) []byte { return slices.Concat(frames...) }
	type test struct {
		name string
		send []byte
		code ws.StatusCode
	}
	tests := []test{
		{"length 2^63", header(0x82, "\xff\x80\x00\x00\x00\x00\x00\x00\x00"), 1002},
		{"length 2^64-1", header(0x82, "\xff\xff\xff\xff\xff\xff\xff\xff\xff"), 1002},
		{"length 2^63-1", header(0x82, "\xff\x7f\xff\xff\xff\xff\xff\xff\xff"), 1009},
		{"length 2^40", header(0x81, "\xff\x00\x00\x01\x00\x00\x00\x00\x00"), 1009},
		{"length of one too many", header(0x81, "\xff\x00\x00\x00\x00\x00\x01\x00\x01"), 1009},
		{"length 5 in 16 bits", header(0x81, "\xfe\x00\x05"), 1002},
		{"length 126 in 64 bits", header(0x81, "\xff\x00\x00\x00\x00\x00\x00\x00\x7e"), 1002},
		{"20,001 small fragments", fragments(20_001), 1009},
		{"fragments of one byte too many", join(masked(ws.OpBinary, false, strings.Repeat("a", 65536)), masked(ws.OpContinuation, true, "b")), 1009},
		{"continuation of 2^63-1", join(masked(ws.OpBinary, false, "a"), header(0x80, "\xff\x7f\xff\xff\xff\xff\xff\xff\xff")), 1009},
		{"RSV1, compression that was not agreed", rsv(0x40), 1002},
		{"RSV2", rsv(0x20), 1002},
		{"RSV3", rsv(0x10), 1002},
		{"RSV1 on a ping", join([]byte{0xc9}, masked(ws.OpPing, true, "")[1:]), 1002},
		{"unmasked", ws.MustCompileFrame(ws.NewTextFrame([]byte("x"))), 1002},
		{"unmasked ping", ws.MustCompileFrame(ws.NewPingFrame(nil)), 1002},
		{"fragmented ping", masked(ws.OpPing, false, "x"), 1002},
		{"fragmented close", masked(ws.OpClose, false, ""), 1002},
		{"ping of 126 bytes", masked(ws.OpPing, true, strings.Repeat("x", 126)), 1002},
		{"pong of 126 bytes", masked(ws.OpPong, true, strings.Repeat("x", 126)), 1002},
		{"close of 126 bytes", masked(ws.OpClose, true, "\x03\xe8"+strings.Repeat("x", 124)), 1002},
		{"ping of 2^40", header(0x89, "\xff\x00\x00\x01\x00\x00\x00\x00\x00"), 1002},
		{"continuation first", masked(ws.OpContinuation, true, "x"), 1002},
		{"continuation behind a whole message", join(text("x"), masked(ws.OpContinuation, false, "x")), 1002},
		{"text inside a fragmented one", join(masked(ws.OpText, false, "x"), text("y")), 1002},
		{"binary inside a fragmented text", join(masked(ws.OpText, false, "x"), masked(ws.OpBinary, false, "y")), 1002},
		{"text that is no UTF-8", text("\xff"), 1007},
		{"UTF-8 surrogate", text("\xed\xa0\x80"), 1007},
		{"UTF-8 cut short", join(masked(ws.OpText, false, "\xe2\x82"), masked(ws.OpContinuation, true, "")), 1007},
		{"close body of 1 byte", masked(ws.OpClose, true, "\x03"), 1002},
		{"close with bad UTF-8", masked(ws.OpClose, true, "\x03\xe8\xff"), 1002},
	}
	for _, op := range []ws.OpCode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		tests = append(tests, test{fmt.Sprintf("reserved opcode %d", op), masked(op, true, "x"), 1002})
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		body := string([]byte{byte(code >> 8), byte(code)})
		tests = append(tests, test{fmt.Sprintf("close with code %d", code), masked(ws.OpClose, true, body), 1002})
	}
	s := start(t, Options{MessageBytes: 65536}, &hooks{message: echo, violation: func(c *Conn, code ws.StatusCode) {
		c.Send(ws.OpText, fmt.Appendf(nil, "last words for %d", code))
	}})
	other := s.dial()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.h.mu.Lock()
			s.h.log = nil
			s.h.mu.Unlock()
			c := s.dial()
			c.t = t
			before := allocated()
			c.send(test.send)
			c.send(slices.Concat(text("still here"), masked(ws.OpPing, true, ""), []byte(strings.Repeat("junk", 10_000))))
			words := fmt.Sprintf("last words for %d", test.code)
			for { // pongs and echoes of what was right come first
				if _, p := c.frame(); string(p) == words {
					break
				}
			}
			op, p := c.frame()
			if got, ok := closeStatus(p); op != ws.OpClose || got != test.code || !ok {
				t.Fatalf("frame %d %q, want close with %d", op, p, test.code)
			}
			c.wantEOF()
			if n := allocated() - before; n > 4<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			want := []string{"open", fmt.Sprintf("violation %d", test.code), fmt.Sprintf("closed %d", test.code)}
			if got := s.h.noted(); !slices.Equal(got, want) {
				t.Errorf("handler was told %q, want %q", got, want)
			}
		})
	}
	other.alive()
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// What looks odd and is right.
func TestLegal(t *testing.T) {
	s := start(t, Options{MessageBytes: 65536}, &hooks{message: echo})
	c := s.dial()
	c.send(text(""))
	c.want(ws.OpText, "")
	c.send(masked(ws.OpBinary, true, strings.Repeat("x", 65536)))
	c.want(ws.OpBinary, strings.Repeat("x", 65536))
	c.send(masked(ws.OpPing, true, strings.Repeat("p", 125)))
	c.want(ws.OpPong, strings.Repeat("p", 125))
	c.send(masked(ws.OpPong, true, "nobody asked"))
	c.send(masked(ws.OpText, false, "\xe2"))
	c.send(masked(ws.OpPing, true, "between"))
	c.send(masked(ws.OpContinuation, false, "\x82"))
	c.send(masked(ws.OpContinuation, true, "\xac"))
	c.want(ws.OpPong, "between")
	c.want(ws.OpText, "€")
	c.send(masked(ws.OpText, false, ""))
	for range 1022 {
		c.send(masked(ws.OpContinuation, false, "a"))
	}
	c.send(masked(ws.OpContinuation, true, ""))
	c.want(ws.OpText, strings.Repeat("a", 1022))
}

// The buffer of a large message goes when the message has gone, also when a bit
// of the next one is there already.
func TestTailShrinks(t *testing.T) {
	l := idle(t, Options{}, &hooks{})
	c := &Conn{loop: l, fd: -1, state: stateOpen, events: 1}
	stream := text(strings.Repeat("x", 60_000))
	stream = append(stream, stream[:100]...)
	for len(stream) > 0 {
		b, have := l.room(c)
		n := copy(b[have:], stream[:min(len(stream), 20_000)])
		stream = stream[n:]
		l.received(c, b[:have+n])
	}
	if l.stat.messages != 1 || len(c.in.tail) != 100 || cap(c.in.tail) > 1000 {
		t.Errorf("%d messages, %d bytes in room for %d", l.stat.messages, len(c.in.tail), cap(c.in.tail))
	}
}

// A peer's close frame is answered with its own code (RFC 6455 §5.5.1), what
// was sent before goes out first, and data behind it is not heard.
func TestPeerCloses(t *testing.T) {
	for _, body := range []string{"", "\x03\xe8", "\x03\xe9bye", "\x0f\xa0mine", "\x03\xf4"} {
		t.Run(fmt.Sprintf("%q", body), func(t *testing.T) {
			h := &hooks{message: echo}
			s := start(t, Options{}, h)
			c := s.dial()
			c.send(slices.Concat(text("before"), masked(ws.OpClose, true, body), text("after"), text("\xff")))
			c.want(ws.OpText, "before")
			c.want(ws.OpClose, body[:min(2, len(body))])
			c.wantEOF()
			code, _ := closeStatus([]byte(body))
			if got := h.noted(); !slices.Equal(got, []string{"open", fmt.Sprintf("closed %d", code)}) {
				t.Errorf("%q", got)
			}
		})
	}
}

// Both sides close at once: each takes the other's frame for the answer.
func TestSimultaneousClose(t *testing.T) {
	h := &hooks{message: func(c *Conn, _ ws.OpCode, _ []byte) { c.Close(1000, "done") }}
	s := start(t, Options{}, h)
	c := s.dial()
	c.send(slices.Concat(text("close, please"), masked(ws.OpClose, true, "\x03\xe9")))
	c.want(ws.OpClose, "\x03\xe8done")
	c.wantEOF()
	if got := h.noted(); !slices.Equal(got, []string{"open", "closed 1000"}) {
		t.Errorf("%q", got)
	}
}

// The handler may close a connection from wherever it is called.
func TestHandlerCloses(t *testing.T) {
	bye := func(c *Conn) { c.Send(ws.OpText, []byte("words")); c.Close(4000, "bye"); c.Close(4001, "twice") }
	for name, h := range map[string]*hooks{
		"Open":              {open: bye},
		"Message":           {message: func(c *Conn, _ ws.OpCode, _ []byte) { bye(c) }},
		"Message, paused":   {message: func(c *Conn, _ ws.OpCode, _ []byte) { c.Pause(); bye(c); c.Pause() }},
		"Violation":         {message: func(*Conn, ws.OpCode, []byte) {}, violation: func(c *Conn, _ ws.StatusCode) { bye(c) }},
		"Closed by Message": {message: func(c *Conn, _ ws.OpCode, _ []byte) { bye(c) }, closed: func(c *Conn, _ ws.StatusCode) { bye(c) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{}, h)
			c := s.dial()
			// Data in flight behind it must not cost the peer the close frame.
			c.send(slices.Concat(text("hi"), text("hi again"), []byte("\xff\xff\xff"), make([]byte, 50_000)))
			c.want(ws.OpText, "words")
			c.want(ws.OpClose, "\x0f\xa0bye")
			if name != "Violation" { // there the server is lingering already
				c.send(masked(ws.OpClose, true, "\x0f\xa0"))
			}
			c.wantEOF()
			if n := h.count("closed 4000"); n != 1 {
				t.Errorf("told %q", h.noted())
			}
		})
	}
}

// Our close frame is answered or it is not: the connection ends.
func TestCloseTimeout(t *testing.T) {
	h := &hooks{message: func(c *Conn, _ ws.OpCode, _ []byte) { c.Close(1000, "") }}
	s := start(t, Options{}, h)
	c := s.dial()
	c.send(text("close, please"))
	c.want(ws.OpClose, "\x03\xe8")
	s.advance(3 * time.Second)
	c.send(text("but I am not done"))
	c.send(masked(ws.OpPing, true, ""))
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	s.advance(3 * time.Second)
	c.gone()
	eventually(t, "connection forgotten", func() bool { return s.Connections() == 0 })
	if got := h.noted(); !slices.Equal(got, []string{"open", "closed 1000"}) {
		t.Errorf("%q", got)
	}
}
