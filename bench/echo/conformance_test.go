//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/notifyd/notifyd/server/loop"
)

// serve runs the echo server until the test ends and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	eng, err := loop.New(options(1), echo{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Start(ln); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := eng.Drain(ctx, 0); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// frame is one to send, or one to expect.
type frame struct {
	op      ws.OpCode
	payload string
	more    bool // FIN is not set
	rsv     byte
}

func (f frame) bytes() []byte {
	h := ws.NewFrame(f.op, !f.more, []byte(f.payload))
	h.Header.Rsv = f.rsv
	return ws.MustCompileFrame(ws.MaskFrameInPlaceWith(h, [4]byte{0xa1, 0x55, 0, 0xff}))
}

func text(s string) frame               { return frame{op: ws.OpText, payload: s} }
func binary(s string) frame             { return frame{op: ws.OpBinary, payload: s} }
func ping(s string) frame               { return frame{op: ws.OpPing, payload: s} }
func pong(s string) frame               { return frame{op: ws.OpPong, payload: s} }
func end(s string) frame                { return frame{op: ws.OpContinuation, payload: s} }
func part(op ws.OpCode, s string) frame { return frame{op: op, payload: s, more: true} }
func more(s string) frame               { return part(ws.OpContinuation, s) }
func reserved(rsv byte, f frame) frame  { f.rsv = rsv; return f }
func bye(code int, reason string) frame {
	return frame{op: ws.OpClose, payload: string([]byte{byte(code >> 8), byte(code)}) + reason}
}

// fragments cuts a text into frames of n bytes.
func fragments(s string, n int) (all []frame) {
	op := ws.OpText
	for len(s) > n {
		all = append(all, part(op, s[:n]))
		op, s = ws.OpContinuation, s[n:]
	}
	return append(all, frame{op: op, payload: s})
}

// test is one case: what is sent, in pieces of chop bytes, what comes back, and
// the close code that it ends with. Without one the client closes, with 1000.
type test struct {
	name string
	send []frame
	chop int
	want []frame
	code int
}

// The cases, and their numbers, are those of the Autobahn test suite.
func cases() (all []test) {
	add := func(name string, chop int, send, want []frame, code int) {
		all = append(all, test{name, send, chop, want, code})
	}
	f := func(frames ...frame) []frame { return frames }
	same := func(name string, chop int, frames ...frame) { add(name, chop, frames, frames, 0) }
	fails := func(name string, frames ...frame) {
		add(name, 0, frames, nil, 1002)
		add(name+", octet by octet", 1, frames, nil, 1002)
	}

	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		same(fmt.Sprintf("1.1.%d", i+1), 0, text(strings.Repeat("*", n)))
		same(fmt.Sprintf("1.2.%d", i+1), 0, binary(strings.Repeat("\xfe", n)))
	}
	same("1.1.8", 997, text(strings.Repeat("*", 65536)))
	same("1.2.8", 997, binary(strings.Repeat("\xfe", 65536)))

	add("2.1", 0, f(ping("")), f(pong("")), 0)
	add("2.2", 0, f(ping("Hello, world!")), f(pong("Hello, world!")), 0)
	add("2.3", 0, f(ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), f(pong("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), 0)
	full := strings.Repeat("\xfe", 125)
	add("2.4", 0, f(ping(full)), f(pong(full)), 0)
	fails("2.5", ping(full+"\xfe"))
	add("2.6", 1, f(ping(full)), f(pong(full)), 0)
	add("2.7", 0, f(pong("")), nil, 0)
	add("2.8", 0, f(pong("unsolicited")), nil, 0)
	add("2.9", 0, f(pong("unsolicited"), ping("p")), f(pong("p")), 0)
	var pings, pongs []frame
	for i := range 10 {
		pings, pongs = append(pings, ping(fmt.Sprint("payload-", i))), append(pongs, pong(fmt.Sprint("payload-", i)))
	}
	add("2.10", 0, pings, pongs, 0)
	add("2.11", 1, pings, pongs, 0)

	fails("3.1", reserved(1, text("Hello")))
	add("3.2", 0, f(text("Hello"), reserved(2, text("Hello")), ping("")), f(text("Hello")), 1002)
	add("3.3", 3, f(text("Hello"), reserved(3, text("Hello")), ping("")), f(text("Hello")), 1002)
	add("3.4", 1, f(text("Hello"), reserved(4, text("Hello")), ping("")), f(text("Hello")), 1002)
	fails("3.5", reserved(5, binary("\x00\xff")))
	fails("3.6", reserved(6, ping("Hello")))
	fails("3.7", reserved(7, bye(1000, "")))

	for i := range 5 {
		for class, low := range map[int]int{1: 3, 2: 11} {
			bad := frame{op: ws.OpCode(low + i)}
			name := fmt.Sprintf("4.%d.%d", class, i+1)
			fails(name, bad)
			bad.payload = "Hello"
			add(name+" behind a message", 0, f(text("Hello"), bad, ping("")), f(text("Hello")), 1002)
		}
	}

	fails("5.1", part(ws.OpPing, "fragment1"), end("fragment2"))
	fails("5.2", part(ws.OpPong, "fragment1"), end("fragment2"))
	whole := f(text("fragment1fragment2"))
	for i, chop := range []int{0, 7, 1} { // one segment, many, octets
		two := f(part(ws.OpText, "fragment1"), end("fragment2"))
		pinged := slices.Insert(slices.Clone(two), 1, ping("pongme"))
		add(fmt.Sprintf("5.%d", 3+i), chop, two, whole, 0)
		add(fmt.Sprintf("5.%d", 6+i), chop, pinged, slices.Concat(f(pong("pongme")), whole), 0)
		add(fmt.Sprintf("5.%d", 9+i), chop, f(more("non-continuation payload"), text("Hello")), nil, 1002)
		add(fmt.Sprintf("5.%d", 12+i), chop, f(end("non-continuation payload"), text("Hello")), nil, 1002)
	}
	add("5.15", 0, f(part(ws.OpText, "fragment1"), end("fragment2"), more("fragment3"), text("fragment4")), whole, 1002)
	fails("5.16", more("fragment1"), part(ws.OpText, "fragment2"), end("fragment3"))
	fails("5.17", end("fragment1"), part(ws.OpText, "fragment2"), end("fragment3"))
	fails("5.18", part(ws.OpText, "fragment1"), text("fragment2"))
	five := f(part(ws.OpText, "fragment1"), more("fragment2"), ping("pongme 1!"), more("fragment3"), more("fragment4"), ping("pongme 2!"), end("fragment5"))
	for i, chop := range []int{0, 1} {
		add(fmt.Sprintf("5.%d", 19+i), chop, five, f(pong("pongme 1!"), pong("pongme 2!"), text("fragment1fragment2fragment3fragment4fragment5")), 0)
	}

	same("6.1.1", 0, text(""))
	add("6.1.2", 0, f(part(ws.OpText, ""), more(""), end("")), f(text("")), 0)
	add("6.1.3", 0, f(part(ws.OpText, ""), more("middle frame payload"), end("")), f(text("middle frame payload")), 0)
	const good, bad = "Hello-µ@ßöäüàá-UTF-8!!", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"
	same("6.2.1", 0, text(good))
	add("6.2.2", 0, f(part(ws.OpText, good[:12]), end(good[12:])), f(text(good)), 0)
	add("6.2.3", 0, fragments(good, 1), f(text(good)), 0)
	add("6.2.4", 0, fragments("κόσμε", 1), f(text("κόσμε")), 0)
	add("6.3.1", 0, f(text(bad)), nil, 1007)
	add("6.3.2", 0, fragments(bad, 1), nil, 1007)
	add("6.4.1", 0, f(part(ws.OpText, "κόσμε"), more("\xf4\x90\x80\x80"), end("edited")), nil, 1007)
	add("6.4.1, the end does not come", 0, f(part(ws.OpText, "κόσμε"), more("\xf4\x90\x80\x80")), nil, 1007)
	add("6.4.2, the end does not come", 0, f(part(ws.OpText, "κόσμε\xf4"), more("\x90")), nil, 1007)
	for _, s := range valid {
		same(fmt.Sprintf("6.5–6.23 valid %+q", s), 0, text(s))
		add(fmt.Sprintf("6.5–6.23 valid %+q, fragmented", s), 1, fragments(s, 1), f(text(s)), 0)
	}
	for _, s := range invalid {
		add(fmt.Sprintf("6.5–6.23 invalid %+q", s), 0, f(text(s)), nil, 1007)
		add(fmt.Sprintf("6.5–6.23 invalid %+q, fragmented", s), 0, fragments(s+"edited", 1), nil, 1007)
	}

	same("7.1.1", 0, text("Hello World!"))
	add("7.1.2", 0, f(bye(1000, ""), bye(1000, "")), nil, 1000)
	add("7.1.3", 0, f(bye(1000, ""), ping("")), nil, 1000)
	add("7.1.4", 0, f(bye(1000, ""), text("Hello World!")), nil, 1000)
	add("7.1.5", 0, f(part(ws.OpText, "fragment1"), bye(1000, ""), end("fragment2")), nil, 1000)
	big := strings.Repeat("BAsd7&jh23", 26214)
	add("7.1.6", 0, f(text(big), text("Hello World!"), bye(1000, ""), ping("")), f(text(big), text("Hello World!")), 1000)
	add("7.3.1", 0, f(frame{op: ws.OpClose}), nil, 1005)
	add("7.3.2", 0, f(frame{op: ws.OpClose, payload: "a"}), nil, 1002)
	add("7.3.3", 0, f(bye(1000, "")), nil, 1000)
	add("7.3.4", 0, f(bye(1000, "Hello World!")), nil, 1000)
	add("7.3.5", 0, f(bye(1000, strings.Repeat("*", 123))), nil, 1000)
	fails("7.3.6", bye(1000, strings.Repeat("*", 124)))
	fails("7.5.1", bye(1000, bad))
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(fmt.Sprint("7.7 code ", code), 0, f(bye(code, "")), nil, code)
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		fails(fmt.Sprint("7.9, 7.13 code ", code), bye(code, ""))
	}

	large := strings.Repeat("0123456789abcdef", 1<<16)
	same("9.1.3", 0, text(large))
	same("9.2.3", 0, binary(strings.Repeat(large, 4)))
	add("9.3.1", 0, fragments(large, 64), f(text(large)), 0)
	same("9.5.6", 2048, text(large))
	small := slices.Repeat(f(text("small message of some bytes")), 1000)
	same("9.7.2", 0, small...)
	add("10.1.1", 0, fragments(strings.Repeat("*", 65536), 1300), f(text(strings.Repeat("*", 65536))), 0)
	return all
}

// Texts of Markus Kuhn's UTF-8 stress test, on which the suite's part 6 rests.
var (
	valid = []string{
		"κόσμε", "\x00", "\u0080", "\u0800", "\U00010000", "\x7f", "\u07ff", "\uffff", "\U0010ffff",
		"\ud7ff", "\ue000", "\ufffd", "\ufffe", "\U0001fffe", "\U0001ffff", "\U000efffe", "\U000effff", "\U0010fffe",
	}
	invalid = []string{
		"\xce", "\xce\xba\xe1", "\xce\xba\xe1\xbd", "\xce\xba\xe1\xbd\xb9\xcf", // cut short
		"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf", "\xf4\x90\x80\x80", // too large
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80\xbf\x80\xbf", // continuation bytes alone
		"\xc0 \xc1 \xdf ", "\xe0 \xef ", "\xf0 \xf7 ", "\xf8 \xfb ", "\xfc \xfd ", // starts alone
		"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xc0\xe0\x80\xf0\x80\x80", "\xfe", "\xff", "\xfe\xfe\xff\xff",
		"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf", // overlong
		"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80",
		"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf", // surrogates
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
	}
)

func TestConformance(t *testing.T) {
	addr := serve(t)
	for _, test := range cases() {
		t.Run(test.name, func(t *testing.T) {
			conn, br, _, err := ws.Dial(context.Background(), "ws://"+addr+"/")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			if br == nil {
				br = bufio.NewReader(conn)
			}
			var stream []byte
			for _, f := range test.send {
				stream = append(stream, f.bytes()...)
			}
			code := test.code
			if code == 0 {
				stream, code = append(stream, bye(1000, "").bytes()...), 1000
			}
			go func() { // the server may stop reading before the end
				for len(stream) > 0 {
					n := len(stream)
					if test.chop > 0 {
						n = min(n, test.chop)
					}
					if _, err := conn.Write(stream[:n]); err != nil {
						return
					}
					stream = stream[n:]
				}
			}()
			for i, want := range test.want {
				h, payload := read(t, br)
				if h.OpCode != want.op || payload != want.payload {
					t.Fatalf("frame %d: %d %.100q, want %d %.100q", i, h.OpCode, payload, want.op, want.payload)
				}
			}
			h, payload := read(t, br)
			got := int(ws.StatusNoStatusRcvd)
			if len(payload) >= 2 {
				got = int(payload[0])<<8 | int(payload[1])
			}
			if h.OpCode != ws.OpClose || got != code {
				t.Fatalf("at the end %d %.100q, want close with %d", h.OpCode, payload, code)
			}
			if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
				t.Errorf("behind the close frame: %d bytes, %v", len(rest), err)
			}
		})
	}
}

func read(t *testing.T, r io.Reader) (ws.Header, string) {
	t.Helper()
	h, err := ws.ReadHeader(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.CheckHeader(h, ws.StateClientSide); err != nil || !h.Fin {
		t.Fatalf("%+v: %v", h, err)
	}
	p := make([]byte, h.Length)
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	return h, string(p)
}

// messages are what other people's clients send below.
func messages() []string {
	return []string{"", "hello", "κόσμε", strings.Repeat("a", 125), strings.Repeat("b", 126), strings.Repeat("c", 65535), strings.Repeat("d", 65536), strings.Repeat("e", 1<<20)}
}

func TestCoderClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, compression := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover} {
		c, _, err := websocket.Dial(ctx, "ws://"+serve(t)+"/", &websocket.DialOptions{CompressionMode: compression})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(2 << 20)
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			for _, m := range messages() {
				check := func() {
					t.Helper()
					if got, p, err := c.Read(ctx); err != nil || got != kind || string(p) != m {
						t.Fatalf("%v of %d bytes: %v, %d bytes, %v", kind, len(m), got, len(p), err)
					}
				}
				if err := c.Write(ctx, kind, []byte(m)); err != nil {
					t.Fatal(err)
				}
				check()
				w, err := c.Writer(ctx, kind) // a frame for each Write
				if err != nil {
					t.Fatal(err)
				}
				for _, half := range []string{m[:len(m)/2], m[len(m)/2:]} {
					if _, err := io.WriteString(w, half); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				check()
			}
		}
		reading := c.CloseRead(ctx)
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
		if err := c.Close(4000, "done"); err != nil {
			t.Error(err)
		}
		<-reading.Done()
	}
}

func TestGobwasClient(t *testing.T) {
	conn, _, _, err := ws.Dial(context.Background(), "ws://"+serve(t)+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
		for _, m := range messages() {
			check := func() {
				t.Helper()
				if p, got, err := wsutil.ReadServerData(conn); err != nil || got != op || string(p) != m {
					t.Fatalf("%v of %d bytes: %v, %d bytes, %v", op, len(m), got, len(p), err)
				}
			}
			if err := wsutil.WriteClientMessage(conn, op, []byte(m)); err != nil {
				t.Fatal(err)
			}
			check()
			w := wsutil.NewWriterSize(conn, ws.StateClientSide, op, 1000) // fragments of that size
			if _, err := io.WriteString(w, m); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			check()
		}
	}
}
