package loop

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

func TestHeadEnd(t *testing.T) {
	for head, want := range map[string]int{
		"": 0, "GET": 0, "\n": 0, "\r\n": 0, "a\r\n\r": 0, "a\r\nb\r\n": 0,
		"\n\n": 2, "a\r\n\r\n": 5, "a\r\n\r\nrest\r\n\r\n": 5, "a\n\n": 3, "a\n\r\nx": 4, "a\r\nb\n\nx": 6,
		"a\r\r\n\r\n": 6,
	} {
		if got := headEnd([]byte(head)); got != want {
			t.Errorf("%q: %d, want %d", head, got, want)
		}
		for i := range head {
			if got := headEnd([]byte(head[:i])); got != 0 && got != want {
				t.Errorf("%q: %d", head[:i], got)
			}
		}
	}
}

const key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

func TestInspectHead(t *testing.T) {
	const up = "Upgrade: websocket\r\n"
	for _, test := range []struct {
		name, head string
		want       headKind
	}{
		{"plain", "GET / HTTP/1.1\r\nHost: h\r\n" + up + key, headUpgrade},
		{"capitals", "GET / HTTP/1.1\r\nHOST: h\r\nUPGRADE:WebSocket\r\n" + key, headUpgrade},
		{"bare line feeds", "GET / HTTP/1.1\nHost: h\nUpgrade: websocket\n" + key, headBad},
		{"one bare line feed", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n" + up + key, headBad},
		{"HTTP/1.01", "GET / HTTP/1.01\r\nHost: h\r\n" + up + key, headBad},
		{"HTTP/11.1", "GET / HTTP/11.1\r\nHost: h\r\n" + up + key, headBad},
		{"HTTP/1,1", "GET / HTTP/1,1\r\nHost: h\r\n" + up + key, headBad},
		{"HTTP/x.1", "GET / HTTP/x.1\r\nHost: h\r\n" + up + key, headBad},
		{"http/1.1", "GET / http/1.1\r\nHost: h\r\n" + up + key, headBad},
		{"no version", "GET /\r\nHost: h\r\n" + up + key, headBad},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\n" + up + key, headUpgrade}, // ws.Upgrader refuses it
		{"h2c too", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c, websocket\r\n" + key, headUpgrade},
		{"h2c on another line", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n" + up + key, headUpgrade},
		{"empty body", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" + up + key, headUpgrade},
		{"no key", "GET / HTTP/1.1\r\nHost: h\r\n" + up, headUpgrade}, // ws.Upgrader says what is wrong
		{"no upgrade", "GET / HTTP/1.1\r\nHost: h\r\n", headHTTP},
		{"a long s", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: web\u017focket\r\n" + key, headHTTP},
		{"h2c alone", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n", headHTTP},
		{"websocket in a word", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websockets\r\n", headHTTP},
		{"post", "POST / HTTP/1.1\r\nHost: h\r\n" + up + key, headHTTP},
		{"lower-case get", "get / HTTP/1.1\r\nHost: h\r\n" + up + key, headHTTP},
		{"two hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: g\r\n" + up + key, headBad},
		{"two keys", "GET / HTTP/1.1\r\nHost: h\r\n" + up + key + key, headBad},
		{"short key", "GET / HTTP/1.1\r\nHost: h\r\n" + up + "Sec-WebSocket-Key: AAAA\r\n", headBad},
		{"key of 24 letters", "GET / HTTP/1.1\r\nHost: h\r\n" + up + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n", headBad},
		{"body", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + up + key, headBad},
		{"chunked body", "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" + up + key, headBad},
		{"space before the colon", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n" + up + key, headBad},
		{"folded", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n" + up + key, headBad},
		{"folded with a tab", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb: c\r\n" + up + key, headBad},
		{"bare CR", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 5\r\n" + up + key, headBad},
		{"line without a colon", "GET / HTTP/1.1\r\nHost: h\r\nhello\r\n" + up + key, headBad},
		{"line without a name", "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n" + up + key, headBad},
		{"slash in a name", "GET / HTTP/1.1\r\nHost: h\r\na/b: x\r\n" + up + key, headBad},
		{"NUL", "GET / HTTP/1.1\r\nHost: h\r\nX: \x00\r\n" + up + key, headBad},
	} {
		t.Run(test.name, func(t *testing.T) {
			head := test.head + "\r\n"
			b := []byte(head)
			if got := inspectHead(b); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
			if string(b) != head {
				t.Errorf("changed to %q", b)
			}
		})
	}
}

func TestNormalizeUpgrade(t *testing.T) {
	b := []byte("GET /Upgrade: HTTP/1.1\r\nUpgrade: h2c, WebSocket, x\r\nconnection: keep-alive\r\nConnection: Upgrade\r\nupgrade:h2c\r\nX: y\r\n\r\n")
	want := "GET /Upgrade: HTTP/1.1\r\nUpgrade: websocket        \r\nXonnection: keep-alive\r\nConnection: Upgrade\r\nXpgrade:h2c\r\nX: y\r\n\r\n"
	if normalizeUpgrade(b); string(b) != want {
		t.Errorf("got  %q\nwant %q", b, want)
	}
}

// What clients may ask for, and what they must not.
func TestHandshake(t *testing.T) {
	const (
		host    = "Host: h\r\n"
		up      = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
		version = "Sec-WebSocket-Version: 13\r\n"
		get     = "GET / HTTP/1.1\r\n"
	)
	s := start(t, Options{}, &hooks{message: echo})
	for _, test := range []struct{ name, head, want string }{
		{"plain", get + host + up + version + key, "101"},
		{"h2c, websocket", get + host + "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n" + version + key, "101"},
		{"two Upgrade lines", get + host + "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade, HTTP2-Settings\r\n" + version + key, "101"},
		{"two Connection lines", get + host + "Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n" + version + key, "101"},
		{"compression offered", get + host + up + version + key + "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", "101"},
		{"no key", get + host + up + version, "400"},
		{"short key", get + host + up + version + "Sec-WebSocket-Key: AAAA\r\n", "400"},
		{"no Host", get + up + version + key, "400"},
		{"no Connection", get + host + "Upgrade: websocket\r\n" + version + key, "400"},
		{"no version", get + host + up + key, "400"},
		{"version 8", get + host + up + "Sec-WebSocket-Version: 8\r\n" + key, "426"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n" + host + up + version + key, "505"},
		{"HTTP/3.7", "GET / HTTP/3.7\r\n" + host + up + version + key, "505"},
		{"no HTTP", "GET /\r\n" + host + up + version + key, "400"},
		{"POST", "POST / HTTP/1.1\r\n" + host + up + version + key, "426"}, // no HTTP handler here
		{"body", get + host + up + version + key + "Content-Length: 3\r\n", "400"},
		{"line without a colon", get + host + up + version + key + "hello\r\n", "400"},
		{"60 kB of protocols", get + host + up + version + key + "Sec-WebSocket-Protocol: " + strings.Repeat("a,", 30000) + "b\r\n", "431"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.connect()
			c.t = t
			c.send([]byte(test.head + "\r\n"))
			answer := c.status(test.want)
			if test.want == "101" {
				if strings.Contains(answer, "-Extensions") || strings.Contains(answer, "-Protocol") {
					t.Errorf("agreed to something: %q", answer)
				}
				c.alive()
				return
			}
			if test.want == "426" && test.name == "version 8" && !strings.Contains(answer, "Sec-WebSocket-Version: 13\r\n") {
				t.Errorf("no version named: %q", answer)
			}
			if _, err := io.ReadAll(c.br); err != nil {
				t.Errorf("response cut off: %v", err)
			}
		})
	}
	if n := s.h.count("open"); n != 5 {
		t.Errorf("%d opened, want 5", n)
	}
}

// The handler sees what was asked for, and its answer is sent.
func TestHandshakeRequest(t *testing.T) {
	h := &hooks{request: func(c *Conn, r *Request) error {
		if !c.Addr().IsLoopback() {
			t.Errorf("address %v", c.Addr())
		}
		switch {
		case string(r.URI) == "/teapot":
			return ws.RejectConnectionError(ws.RejectionStatus(418), ws.RejectionReason("short and stout"))
		case string(r.URI) == "/broken":
			return errors.New("went wrong")
		case string(r.URI) == "/close":
			c.Close(1000, "too early") // nothing is open yet
		case string(r.Protocols) == "a, b,c":
			r.Protocol = "b"
		case r.Protocols != nil:
			t.Errorf("protocols %q", r.Protocols)
		}
		return nil
	}}
	s := start(t, Options{}, h)
	ask := func(uri, more, status string) string {
		c := s.connect()
		c.send([]byte(strings.Replace(strings.Replace(request, "/v1/ws?x=1", uri, 1), "\r\n\r\n", "\r\n"+more+"\r\n", 1)))
		return c.status(status)
	}
	ask("/teapot", "", "418")
	ask("/broken", "", "500")
	ask("/close", "", "101")
	if a := ask("/", "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n", "101"); !strings.Contains(a, "Sec-WebSocket-Protocol: b\r\n") {
		t.Errorf("no protocol in %q", a)
	}
	if a := ask("/", "", "101"); strings.Contains(a, "-Protocol") {
		t.Errorf("protocol in %q", a)
	}
}

// Frames in the segment of the handshake are handled, wherever it is cut.
func TestFrameBehindHandshake(t *testing.T) {
	s := start(t, Options{}, &hooks{message: echo})
	all := append([]byte(request), text("early")...)
	all = append(all, masked(ws.OpBinary, true, strings.Repeat("x", 300))...)
	for _, cut := range []int{len(all), 1, 10, len(request) - 3, len(request) - 1, len(request), len(request) + 1, len(request) + 7, len(all) - 1} {
		c := s.connect()
		c.send(all[:cut])
		s.Do(func(*Loop) {})
		c.send(all[cut:])
		c.status("101")
		c.want(ws.OpText, "early")
		c.want(ws.OpBinary, strings.Repeat("x", 300))
	}
}

// A head without end costs HeadBytes and no more, and is answered.
func TestEndlessHead(t *testing.T) {
	s := start(t, Options{}, &hooks{})
	for name, next := range map[string]string{
		"no line feed": strings.Repeat("a", 4096), "100,000 headers": strings.Repeat("A: b\r\n", 700), "line feeds": strings.Repeat("a\n", 2048),
	} {
		t.Run(name, func(t *testing.T) {
			c := s.connect()
			c.t = t
			c.send([]byte("GET / HTTP/1.1\r\nX: "))
			for range 150 {
				if _, err := c.Write([]byte(next)); err != nil {
					break // the server need not listen to all of it
				}
			}
			var held int
			s.Do(func(l *Loop) {
				for _, c := range l.conns {
					if c != nil && c.in != nil {
						held += cap(c.in.tail)
					}
				}
			})
			if held > 2*s.opts.HeadBytes {
				t.Errorf("%d bytes held", held)
			}
			c.status("431")
		})
	}
}

// Five hundred clients that dawdle over their handshakes are no obstacle to
// honest ones, and their time ends.
func TestSlowHandshakes(t *testing.T) {
	s := start(t, Options{}, &hooks{message: echo})
	var slow []*client
	for range 500 {
		c := s.connect()
		c.send([]byte("GET / HT"))
		slow = append(slow, c)
	}
	s.advance(6 * time.Second)
	for _, c := range slow {
		c.send([]byte("T")) // a byte now and then is no reprieve
	}
	honest := s.dial()
	honest.alive()
	s.advance(6 * time.Second)
	for _, c := range slow {
		c.gone()
	}
	honest.alive()
	if st := s.Stats(); st.Timeouts != 500 || st.Open != 1 {
		t.Errorf("%d timeouts, %d open", st.Timeouts, st.Open)
	}
}

// The bytes of a handshake may come one at a time.
func TestHandshakeByteByByte(t *testing.T) {
	s := start(t, Options{}, &hooks{message: echo})
	c := s.connect()
	for _, b := range []byte(request) {
		c.send([]byte{b})
	}
	c.status("101")
	if err := wsutil.WriteClientText(c, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	c.want(ws.OpText, "hi")
}
