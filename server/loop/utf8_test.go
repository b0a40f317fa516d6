//go:build linux

package loop

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// cuts are texts that are wrong from their nth byte on.
var cuts = []struct {
	text string
	n    int
}{
	{"\xff", 1},
	{"\xc0\xaf", 1},
	{"\xc1\xbf", 1},
	{"\xf5\x80\x80\x80", 1},
	{"\x80", 1},
	{"a\xbf", 2},
	{"\xe2\x28\xa1", 2},
	{"\xe2\x82\x28", 3},
	{"\xf0\x80\x80\x80", 2}, // longer than need be
	{"\xe0\x9f\x80", 2},
	{"κόσμε\xed\xa0\x80edited", 12}, // a surrogate
	{"κόσμε\xf4\x90\x80\x80edited", 12},
	{"κόσμε\xf4\x8f\xbf\xbfedited\xf8", 21},
	{strings.Repeat("x", 300) + "\xf4\x90\x80\x80edited", 302},
}

// A text that cannot become UTF-8 any more fails its connection at that byte (Autobahn 6.4.1 to 6.4.4), be it
// in one frame or in fragments with a ping between them, and however it is cut on the way.
func TestWrongTextFailsAtOnce(t *testing.T) {
	for _, x := range cuts {
		for _, size := range []int{0, 1, 2, 3, 5, 100} {
			t.Run(fmt.Sprintf("%.20q in frames of %d", x.text, size), func(t *testing.T) {
				for _, chop := range []int{1, 2, 7} {
					stream, last := framed(x.text, x.n, size)
					failsWithin(t, stream, last, chop)
				}
			})
		}
	}
}

// A text that ends within a character fails when it ends.
func TestTextEndsWithinACharacter(t *testing.T) {
	for _, s := range []string{"\xc3", "\xe2\x82", "κ\xf0\x9f\x98"} {
		for _, size := range []int{0, 1, 2} {
			stream, _ := framed(s, len(s), size)
			failsWithin(t, stream, len(stream), 1)
		}
	}
}

// framed puts a text into a frame, or into fragments of size bytes with pings between them, and says how many
// bytes of the stream it takes to see n bytes of the text.
func framed(s string, n, size int) (stream []byte, last int) {
	if size == 0 {
		stream = masked(ws.OpText, true, s)
		return stream, len(stream) - len(s) + n
	}
	op := ws.OpText
	for done := 0; len(s) > 0; op = ws.OpContinuation {
		p := s[:min(size, len(s))]
		s = s[len(p):]
		f := masked(op, s == "", p)
		if done < n && n <= done+len(p) {
			last = len(stream) + len(f) - len(p) + n - done
		}
		done += len(p)
		stream = append(append(stream, f...), masked(ws.OpPing, true, "x")...)
	}
	return stream[:len(stream)-len(masked(ws.OpPing, true, "x"))], last
}

// failsWithin requires that a connection that gets stream in pieces of chop bytes is failed for its text with the
// piece that holds the last byte.
func failsWithin(t *testing.T, stream []byte, last, chop int) {
	t.Helper()
	var code ws.StatusCode
	l := idle(t, Options{}, &hooks{violation: func(_ *Conn, c ws.StatusCode) { code = c }})
	fd, _ := pair(t)
	c := l.member(fd)
	defer func() {
		c.abort()
		l.reap()
	}()
	for at := 0; at < len(stream); at += chop {
		b, have := l.room(c)
		n := copy(b[have:], stream[at:min(at+chop, len(stream))])
		l.received(c, b[:have+n])
		if c.Open() != (at+n < last) {
			t.Fatalf("open: %v after %d bytes, wrong from %d on", c.Open(), at+n, last)
		}
	}
	if code != ws.StatusInvalidFramePayloadData {
		t.Errorf("failed with %d", code)
	}
}

// In any pieces a text is judged as utf8.Valid judges it.
func FuzzTextCheck(f *testing.F) {
	for _, x := range cuts {
		f.Add([]byte(x.text), uint8(3))
	}
	f.Add([]byte("κόσμε 😀"), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		var x textCheck
		ok := true
		for p := text; len(p) > 0 && ok; {
			n := min(len(p), 1+int(step)%9)
			ok = x.next(p[:n])
			p = p[n:]
		}
		if got := ok && x.whole(); got != utf8.Valid(text) {
			t.Errorf("%q: %v", text, got)
		}
	})
}
